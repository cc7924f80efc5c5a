"""Workers on a Ray cluster that make a stage's shards. This process alone writes them, so that a run has one writer."""

from __future__ import annotations

import logging
import os
import pickle
import signal
import socket
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from types import TracebackType
from typing import Any, Self

import pyarrow as pa

from semdpo import extras
from semdpo.engine.store import thread_count
from semdpo.engine.workers import GPUS, THREADS, TRIES, Failed, Made, Make, attempt
from semdpo.errors import ConfigError, ModelError

ADDRESS = "RAY_ADDRESS"  # environment variable: the cluster; without it, the one of this machine, or a new one
CONNECT_SECONDS = 10.0
# What machines report is not for stdout, where a run's results are; and what Ray's core writes is not for a user.
QUIET = {"RAY_DEDUP_LOGS_SKIP_REGEX": ".", "RAY_BACKEND_LOG_LEVEL": "fatal"}
WINDOW = 2048  # shards of one data set: the first process notes something about each until the last is made


class RayWorkers:
    """Workers on a Ray cluster that make shards: Ray Data's actors, one shard at a time each.

    Every stage starts its own workers, because they may need other GPUs. A worker whose process or machine dies is
    replaced as soon as there is room for it, and its shard is made again.

    Args:
        count: the number of workers; None is as many as the cluster has room for when a stage begins.
        opener: gives the function that makes shards. It is called once in every worker, and must be picklable.
        gpus: stage → the number of GPUs of a worker; None is 1 if the cluster has GPUs, and else 0. Without GPUs, a
            worker has one CPU and computes with one thread, unless ``OMP_NUM_THREADS`` says otherwise.
    """

    def __init__(self, count: int | None, opener: Callable[[], Make], gpus: Mapping[str, float | None]) -> None:
        self.count, self._opener, self._gpus = count, opener, gpus
        self._connected = False

    def __enter__(self) -> Self:
        """Connects to the cluster, or starts one on this machine.

        Raises:
            ConfigError: Ray is not installed, there is no such cluster, or none of its nodes has the GPUs of a worker.
        """
        self._connected = _connect()
        try:
            for gpus in set(self._gpus.values()):
                _room(gpus)
        except ConfigError:
            self._leave()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Leaves the cluster, unless this process was connected before."""
        self._leave()

    def _leave(self) -> None:
        import ray

        if self._connected:  # all workers end with it
            ray.shutdown()

    def stop(self) -> None:
        """Does nothing: a stage's workers end with it."""

    def made(self, stage: str, indices: Iterable[int]) -> Iterator[tuple[int, Any]]:
        """Makes shards of a stage; each comes as soon as it is ready, with its index.

        Args:
            stage: the stage's name.
            indices: the shards' indices.

        Raises:
            SemdpoError: a shard cannot be made; the error is the one that was raised in the worker.
            ModelError: several workers died at one shard, or none could start.
        """
        waiting = sorted(indices)
        for start in range(0, len(waiting), WINDOW):
            yield from self._made(stage, waiting[start : start + WINDOW])

    def _made(self, stage: str, indices: Sequence[int]) -> Iterator[tuple[int, Any]]:
        import ray

        missing, starts = set(indices), _starts()
        try:
            for index, outcome in _results(self._data_set(stage, indices, starts)):
                if isinstance(outcome, Failed):
                    raise outcome.error
                if index in missing:  # after a machine's death, Ray may give a shard again
                    missing.remove(index)
                    yield index, outcome.value
        except ray.exceptions.RayError as error:
            raise ModelError(
                f"Ray cannot make {stage}: {_cause(error)}; look at `ray status`, and whether all machines have the "
                "same Python and libraries, semdpo among them"
            ) from error
        if missing:
            raise RuntimeError(f"a defect: Ray has ended without the shards {sorted(missing)[:5]} of {stage}")

    def _data_set(self, stage: str, indices: Sequence[int], starts: Any) -> Any:
        """The data set of a stage's results; nothing is made before it is read."""
        import ray.data

        gpus, room = _room(self._gpus[stage])
        context = ray.data.DataContext.get_current().copy()
        context.enable_progress_bars = context.print_on_execution_start = False
        with ray.data.DataContext.current(context):
            rows = ray.data.from_items([{"index": index} for index in indices], override_num_blocks=len(indices))
            return rows.map_batches(
                _Worker,
                fn_constructor_args=(self._opener, stage, starts),
                batch_size=1,
                batch_format="pyarrow",
                compute=ray.data.ActorPoolStrategy(
                    size=min(self.count or room, len(indices)), max_tasks_in_flight_per_actor=1
                ),
                num_gpus=gpus,
                num_cpus=0 if gpus else 1,
                runtime_env={"env_vars": _environment(gpus)},
            )


class _Worker:
    """Makes shards on a node of the cluster.

    Args:
        opener: gives the function that makes shards.
        stage: the stage's name.
        starts: the counter of starts of shards, on the first process's node.
    """

    def __init__(self, opener: Callable[[], Make], stage: str, starts: Any) -> None:
        self._opened, self._stage, self._starts = cache(opener), stage, starts

    def __call__(self, rows: Any) -> Any:
        """Makes the shard of a row ``index``; gives it with a column ``outcome``, the pickled result."""
        import ray

        index = rows["index"][0].as_py()
        if ray.get(self._starts.begin.remote(index)) > TRIES:
            outcome: Made | Failed = Failed(_deadly(self._stage, index))
        else:
            outcome = attempt(self._opened, self._stage, index)
        self._starts.end.remote(index)
        data = pa.array([pickle.dumps(outcome)], pa.large_binary())  # a shard of images may have more than 2 GB
        return pa.table({"index": [index], "outcome": data})


class Starts:
    """Counts how often each shard was begun and not ended: once more than workers have died at it."""

    def __init__(self) -> None:
        self._begun = Counter[int]()

    def begin(self, index: int) -> int:
        """Notes that a worker begins a shard; the number of times so far."""
        self._begun[index] += 1
        return self._begun[index]

    def end(self, index: int) -> None:
        """Forgets a shard."""
        del self._begun[index]


def _starts() -> Any:
    """A new counter on this machine; if its process dies, another one counts from 0."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    endless = {"max_restarts": -1, "max_task_retries": -1}
    return ray.remote(Starts).options(num_cpus=0, scheduling_strategy=here, **endless).remote()


def _results(data_set: Any) -> Iterator[tuple[int, Made | Failed]]:
    """The results as they come; one is in memory at a time, and the others wait in Ray's object store."""
    for row in data_set.iter_batches(batch_size=1, prefetch_batches=0, batch_format="pyarrow"):
        yield row["index"][0].as_py(), pickle.loads(row["outcome"][0].as_buffer())


def _deadly(stage: str, index: int) -> ModelError:
    return ModelError(
        f"{TRIES} workers have died at shard {index} of {stage}, or their machines; perhaps memory ran out: lower the "
        "stage's batch_size, or give a worker more of a GPU with ray.gpus, then run the same command again"
    )


def _environment(gpus: float) -> dict[str, str]:
    """A worker's environment variables: as many threads as ``Workers`` has, on every machine of the cluster."""
    if gpus:
        return {THREADS: str(thread_count())}
    return {THREADS: os.environ.get(THREADS, "1"), GPUS: ""}


def _room(gpus: float | None) -> tuple[float, int]:
    """The number of GPUs of a worker, and how many such workers the cluster has room for.

    Raises:
        ConfigError: there is no room for any.
    """
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if gpus is None:
        gpus = float(any(node.get("GPU", 0) >= 1 for node in nodes))
    if gpus:
        room = sum(int(node.get("GPU", 0) / gpus + 1e-4) for node in nodes)
    else:
        room = sum(int(node.get("CPU", 0)) for node in nodes)
    if not room:
        lack = f"{gpus:g} GPUs for a worker; lower ray.gpus, or add such a node" if gpus else "a CPU; add one that has"
        raise ConfigError(f"no node of the Ray cluster has {lack}")
    return gpus, room


def _connect() -> bool:
    """Connects to the cluster, or starts one on this machine; False where this process is already connected.

    Raises:
        ConfigError: Ray is not installed, there is no cluster at the address, or its version is another one.
    """
    extras.require(ray="engine: ray")
    for name, value in QUIET.items():  # Ray reads them when it is imported
        os.environ.setdefault(name, value)
    import ray.data

    if ray.is_initialized():
        return False
    address = os.environ.get(ADDRESS, "")
    _refuse_unreachable(address)
    for handler in logging.getLogger("ray.data").handlers:
        if handler.name == "console":  # Ray's own; its file, and what others have attached, stay as they are
            handler.setLevel(logging.CRITICAL)
    before = signal.getsignal(signal.SIGTERM)
    try:
        with _unheard():
            ray.init(log_to_driver=False, logging_level=logging.CRITICAL, include_dashboard=False)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        raise ConfigError(
            f"Ray cannot be used{f' at {address}' if address else ''}: {_lines(error)[0]}; check that the cluster runs "
            "with this version of Ray and Python, and set RAY_AUTH_MODE=token if it asks for a token"
        ) from error
    finally:
        if signal.getsignal(signal.SIGTERM) is not before:  # Ray sets its own
            signal.signal(signal.SIGTERM, before)
    return True


def _cause(error: Exception) -> str:
    """The last line that names an error, of a text that holds those of all machines that it passed."""
    lines = _lines(error)
    return next((line for line in reversed(lines) if "Error: " in line), lines[-1]).strip()


def _lines(error: Exception) -> list[str]:
    return str(error).strip().splitlines() or [type(error).__name__]


@contextmanager
def _unheard() -> Iterator[None]:
    """Throws away what this process writes on stderr, for Ray's core notes there that it shall be quiet."""
    heard, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(heard, 2)
        os.close(heard)
        os.close(nowhere)


def _refuse_unreachable(address: str) -> None:
    """Refuses an address where nobody listens. Ray itself would try for minutes."""
    if address.startswith("ray://"):
        raise ConfigError(f"{ADDRESS} is {address}, for Ray's client; run semdpo on a node of the cluster instead")
    host, _, port = address.rpartition(":")
    if not host:  # auto, local, or none
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
    except (OSError, ValueError, OverflowError) as error:
        raise ConfigError(
            f"there is no Ray cluster at {address} ({error}); start one with `ray start --head`, or correct {ADDRESS}"
        ) from error
