"""A queue between many clients and one thread: the thread takes what waits and does it as one batch."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from semdpo.web.errors import busy, stopping, too_slow

Asked = TypeVar("Asked")
Given = TypeVar("Given")

GATHER = 0.004  # seconds that a batch which is not full waits for more


@dataclass(eq=False, slots=True)
class _Job(Generic[Asked, Given]):
    """A request and the place of its result."""

    asked: Asked
    result: Future[Given] = field(default_factory=Future)


class Batcher(Generic[Asked, Given]):
    """Does the work of many clients in batches, in a thread of its own.

    The models belong to this thread once ``start`` was called. If the work on a batch fails, its requests are done
    one by one, so that each gets its own result or error.

    Args:
        work: Does a batch: n results for n requests, in their order.
        group: The requests with equal groups may share a batch.
        batch: The most requests of a batch, ≥ 1.
        queue: The most requests that wait, ≥ 1.
        seconds: The time from a request's arrival to its result.
        seen: Is called with the size of every batch.
    """

    def __init__(
        self,
        work: Callable[[Sequence[Asked]], Sequence[Given]],
        *,
        batch: int,
        queue: int,
        seconds: float,
        group: Callable[[Asked], str] = lambda _: "",
        seen: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._work, self._group, self._seen = work, group, seen
        self._batch, self._queue, self._seconds = batch, queue, seconds
        self._waiting: deque[_Job[Asked, Given]] = deque()
        self._taken: list[_Job[Asked, Given]] = []  # out of the queue, and perhaps without a result yet
        self._changed = threading.Condition()
        self._closed = False
        # A daemon: a batch that takes minutes must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name="semdpo-models", daemon=True)

    def __len__(self) -> int:
        """The number of requests that wait."""
        return len(self._waiting)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    async def submit(self, asked: Asked) -> Given:
        """Waits for a request's result. If this coroutine is cancelled, a request that still waits is dropped.

        Raises:
            RefusedError: The queue is full, the time is over, or the server stops.
            Exception: Whatever the work raised for this request.
        """
        job = self._put(asked)
        try:
            async with asyncio.timeout(self._seconds) as limit:
                return await asyncio.wrap_future(job.result)
        except TimeoutError:
            if limit.expired():
                raise too_slow(self._seconds) from None
            raise
        finally:
            self._forget(job)

    def close(self) -> None:
        """Refuses what waits and all that comes. The batch that runs is finished, unless ``abandon`` is called."""
        with self._changed:
            self._closed = True
            waiting = list(self._waiting)
            self._waiting.clear()
            self._changed.notify_all()
        _refuse(waiting)

    def abandon(self) -> None:
        """Refuses the requests of the batch that runs, too; its results are thrown away."""
        _refuse(list(self._taken))

    def ended(self, seconds: float) -> bool:
        """Waits for the thread to end, and says whether it did; call ``close`` before."""
        if self._thread.ident is not None:
            self._thread.join(seconds)
        return not self._thread.is_alive()

    def _put(self, asked: Asked) -> _Job[Asked, Given]:
        job: _Job[Asked, Given] = _Job(asked)
        with self._changed:
            if self._closed:
                raise stopping()
            if len(self._waiting) >= self._queue:
                raise busy()
            self._waiting.append(job)
            self._changed.notify_all()
        return job

    def _forget(self, job: _Job[Asked, Given]) -> None:
        """Takes a job that nobody waits for out of the queue, so that it holds no place there."""
        with self._changed, contextlib.suppress(ValueError):
            self._waiting.remove(job)

    def _run(self) -> None:
        while not self._closed:
            self._taken = self._take()
            for jobs in self._grouped(self._taken):
                self._do(jobs)
            self._taken = []

    def _take(self) -> list[_Job[Asked, Given]]:
        """The next batch, in the order of arrival; empty when the server stops or all clients went away."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            self._changed.wait_for(lambda: len(self._waiting) >= self._batch or self._closed, GATHER)
            return [self._waiting.popleft() for _ in range(min(self._batch, len(self._waiting)))]

    def _grouped(self, jobs: Iterable[_Job[Asked, Given]]) -> list[list[_Job[Asked, Given]]]:
        groups: dict[str, list[_Job[Asked, Given]]] = {}
        for job in jobs:
            groups.setdefault(self._group(job.asked), []).append(job)
        return list(groups.values())

    def _do(self, jobs: Iterable[_Job[Asked, Given]]) -> None:
        """Does a batch and hands out its results; after a failure, one by one."""
        wanted = [job for job in jobs if not job.result.done()]  # the others were cancelled or abandoned
        if not wanted:
            return
        self._seen(len(wanted))
        try:
            results: Sequence[Given] = self._work([job.asked for job in wanted])
            for job, result in zip(wanted, results, strict=True):
                _settle(job.result, result)
        except Exception as error:
            if len(wanted) == 1:
                _settle(wanted[0].result, error)
                return
            for job in wanted:
                self._do([job])


def _settle(result: Future[Given], given: Given | Exception) -> None:
    """Sets a result or an error, unless the request was cancelled or abandoned meanwhile."""
    with contextlib.suppress(InvalidStateError):
        if isinstance(given, Exception):
            result.set_exception(given)
        else:
            result.set_result(given)


def _refuse(jobs: Iterable[_Job[Asked, Given]]) -> None:
    for job in jobs:
        _settle(job.result, stopping())
