"""Several processes that make a stage's shards. This process alone writes them, so that a run has one writer."""

from __future__ import annotations

import os
import signal
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from multiprocessing import get_context, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from types import TracebackType
from typing import Any, Protocol, Self

from semdpo.errors import ModelError, SemdpoError

Make = Callable[[str, int], Any]  # makes a shard, from the stage's name and the shard's index
GPUS = "CUDA_VISIBLE_DEVICES"
THREADS = "OMP_NUM_THREADS"
TRIES = 3  # how many processes may die at one shard


class Workforce(Protocol):
    """Who makes the shards of a run's stages in place of this process."""

    def made(self, stage: str, indices: Iterable[int]) -> Iterator[tuple[int, Any]]:
        """Makes shards of a stage; each comes as soon as it is ready, with its index."""
        ...

    def stop(self) -> None:
        """Frees the memory of this machine; the next shard may take it again."""
        ...


class Workers:
    """Processes that make shards; they start when the first shard is asked for, and end with the ``with`` block.

    A process that dies is replaced, and its shard is made again. A process ends by itself when this one has died.

    Args:
        count: the number of processes, ≥ 1.
        opener: gives the function that makes shards. It is called once in every process, and must be picklable.
        gpus: the GPUs, as ``CUDA_VISIBLE_DEVICES`` names them; process k gets the k-th. Without GPUs, a process
            computes with one thread, unless ``OMP_NUM_THREADS`` says otherwise.
    """

    def __init__(self, count: int, opener: Callable[[], Make], gpus: Sequence[str] = ()) -> None:
        self.count, self._opener, self._gpus = count, opener, gpus
        self._processes: dict[Connection, _Worker] = {}

    def __enter__(self) -> Self:
        """Starts nothing yet."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Ends all processes."""
        self.stop()

    def stop(self) -> None:
        """Ends all processes; the next shard starts new ones."""
        for worker in self._processes.values():
            worker.process.terminate()
        for connection, worker in self._processes.items():
            worker.process.join()
            connection.close()
        self._processes.clear()

    def made(self, stage: str, indices: Iterable[int]) -> Iterator[tuple[int, Any]]:
        """Makes shards of a stage; each comes as soon as it is ready, with its index.

        Args:
            stage: the stage's name.
            indices: the shards' indices; each is taken when a process is free for it.

        Raises:
            SemdpoError: a shard cannot be made; the error is the one that was raised in the process.
            ModelError: several processes died at one shard.
        """
        try:
            yield from self._made(stage, _Waiting(indices))
        except BaseException:  # also where nobody takes the rest: a late shard must not pass for one of the next stage
            self.stop()
            raise

    def _made(self, stage: str, waiting: _Waiting) -> Iterator[tuple[int, Any]]:
        deaths = Counter[int]()
        while self._hand_out(stage, waiting):
            for ready in wait(self._processes):
                assert isinstance(ready, Connection)
                worker = self._processes[ready]
                index, worker.index = worker.index, None
                try:
                    outcome = ready.recv()
                except (EOFError, OSError):
                    outcome = None
                if outcome is None:  # the process has died
                    self._bury(ready)
                    if index is not None:
                        deaths[index] += 1
                        waiting.put_back(index)
                        _refuse_deadly(stage, index, deaths[index], worker.process.exitcode)
                elif isinstance(outcome, Failed):
                    raise outcome.error
                elif index is not None:
                    yield index, outcome.value

    def _hand_out(self, stage: str, waiting: _Waiting) -> bool:
        """Gives each idle process a shard; starts processes while there are shards for them.

        Returns:
            Whether any process has a shard.
        """
        while True:
            idle = next((each for each in self._processes.items() if each[1].index is None), None)
            if idle is None and len(self._processes) == self.count:
                return True
            if (index := waiting.take()) is None:
                return any(worker.index is not None for worker in self._processes.values())
            connection, worker = idle or self._start()
            try:
                connection.send((stage, index))
            except OSError:  # it died while it was idle
                self._bury(connection)
                waiting.put_back(index)
                continue
            worker.index = index

    def _start(self) -> tuple[Connection, _Worker]:
        slot = min(set(range(self.count)) - {worker.slot for worker in self._processes.values()})
        gpu = self._gpus[slot % len(self._gpus)] if self._gpus else None
        ours, theirs = get_context("spawn").Pipe()
        process = get_context("spawn").Process(target=_work, args=(theirs, self._opener), daemon=True)
        with _environment({THREADS: os.environ.get(THREADS, "1")} if gpu is None else {GPUS: gpu}), _later_interrupts():
            process.start()
        theirs.close()
        self._processes[ours] = _Worker(process, slot)
        return ours, self._processes[ours]

    def _bury(self, connection: Connection) -> None:
        worker = self._processes.pop(connection)
        worker.process.join()
        connection.close()


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Sets environment variables for a process that starts: torch reads them when it is imported."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _later_interrupts() -> Iterator[None]:
    """Holds Ctrl-C back while a process starts, which inherits this.

    A terminal sends it to all processes, and a new one would print a traceback until it ignores it.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    resource_tracker.ensure_running()  # else the first process starts it, which lets Ctrl-C through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def gpus() -> list[str]:
    """The GPUs that this process may use, as ``CUDA_VISIBLE_DEVICES`` names them."""
    import torch

    count, named = torch.cuda.device_count(), os.environ.get(GPUS, "")
    return named.split(",")[:count] if named else [str(k) for k in range(count)]


class _Waiting:
    """The shards that no process has yet; those of dead processes come first."""

    def __init__(self, indices: Iterable[int]) -> None:
        self._indices, self._again = iter(indices), list[int]()

    def take(self) -> int | None:
        """The next shard; None where there is none."""
        return self._again.pop() if self._again else next(self._indices, None)

    def put_back(self, index: int) -> None:
        """Gives back a shard that was not made."""
        self._again.append(index)


@dataclass(slots=True)
class _Worker:
    """A process, its place among the processes, and the shard that it makes; None while it waits."""

    process: SpawnProcess
    slot: int
    index: int | None = None


@dataclass(frozen=True, slots=True)
class Made:
    """A shard, as it was made."""

    value: Any


@dataclass(frozen=True, slots=True)
class Failed:
    """Why a shard could not be made."""

    error: Exception


def attempt(opened: Callable[[], Make], stage: str, index: int) -> Made | Failed:
    """Makes a shard, or finds the error that the first process is to raise.

    Args:
        opened: gives the function that makes shards.
        stage: the stage's name.
        index: the shard's index.
    """
    try:
        return Made(opened()(stage, index))
    except SemdpoError as error:
        return Failed(error)
    except Exception:
        return Failed(RuntimeError(f"a defect in a worker process:\n{traceback.format_exc()}"))


def _refuse_deadly(stage: str, index: int, deaths: int, code: int | None) -> None:
    if deaths == TRIES:
        how = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
        raise ModelError(
            f"{deaths} processes have died at shard {index} of {stage} ({how}); perhaps memory ran out: lower "
            "--workers or the stage's batch_size, then run the same command again"
        )


def _work(connection: Connection, opener: Callable[[], Make]) -> None:
    """Runs in a process of its own: makes the shards that it is asked for, until the other side has gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process gets it too, and ends this one
    opened = cache(opener)
    while True:
        try:
            stage, index = connection.recv()
        except (EOFError, OSError):
            return
        try:
            connection.send(attempt(opened, stage, index))
        except OSError:
            return
