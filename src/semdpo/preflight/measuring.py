"""How long a piece of work takes: warmed up first, then timed on at least two batches."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from semdpo.engine import parquet
from semdpo.progress import Progress

SMALL = (1, 4)  # units in the batches that are tried first
REPEATS, MOST = 2, 6  # the fewest and the most batches that are timed
FEW_PAIRS = 2  # pairs of the first updates that are tried
UPDATES = 4  # updates that are timed, after one that warms up


@dataclass(frozen=True, slots=True)
class Cost:
    """What a piece of work costs.

    Attributes:
        measured: the batches that were timed, in words.
        seconds: the seconds of one unit of work, as each timed batch gives them; at least two.
        fixed: the seconds that are spent once: loading the models, and what the first batch takes longer.
        worst: the greatest factor by which a run may take longer than the measured batches.
        file_bytes: the bytes of a file of rows without rows.
        row_bytes: the bytes of a row in a file.
        memory: the largest number of bytes in use on the GPU; 0 where there is none.
    """

    measured: str
    seconds: Sequence[float]
    fixed: float = 0.0
    worst: float = 1.0
    file_bytes: float = 0.0
    row_bytes: float = 0.0
    memory: int = 0


@dataclass(frozen=True, slots=True)
class Timed:
    """Batches that were timed.

    Attributes:
        warm_up: how many seconds longer the very first batch took.
        size: the number of units in each of the timed batches.
        seconds: the seconds per unit in a batch of the run's size, at least two. Where the timed batches are smaller,
            they follow from what a batch takes anyhow and what each unit adds.
        most: the greatest factor by which these may be too low: 1, or that at which a large batch would be as slow per
            unit as the timed ones.
    """

    warm_up: float
    size: int
    seconds: list[float]
    most: float


def time_batches(work: Callable[[int], object], full: int, budget: float) -> Timed:
    """Times batches of the run's size, or the largest size of which one should fit into the time.

    Small batches come first, so that nothing that is far too large is begun: they warm up, and from two of them follows
    how long a larger one will take.

    Args:
        work: does the work of a batch of some number of units.
        full: the number of units in a batch of the run.
        budget: about how many seconds to spend; a few small batches are made in any case.
    """
    begun, small = time.monotonic(), [min(size, full) for size in SMALL]
    warm_up = _seconds(work, small[0])
    taken = [(size, _seconds(work, size)) for size in small]
    warm_up = max(warm_up - taken[0][1], 0.0)
    size = full
    while size > small[-1] and _predicted(taken, size) > budget:
        size = max(size // 2, small[-1])
    if _predicted(taken, size) * (REPEATS + 1) < budget - (time.monotonic() - begun):
        work(size)  # a batch of another shape is slow at first, at least on a GPU
    times = [_seconds(work, size) for _ in range(REPEATS)]
    while len(times) < MOST and time.monotonic() - begun + times[-1] < budget:
        times.append(_seconds(work, size))
    if size == full:
        return Timed(warm_up, size, [spent / size for spent in times], 1.0)
    seconds = [_predicted([taken[0], (size, spent)], full) / full for spent in times]
    return Timed(warm_up, size, seconds, max(max(times) / size / max(seconds), 1.0))


def _predicted(taken: Sequence[tuple[int, float]], size: int) -> float:
    """The seconds of a batch: a part that every batch takes, and a part for each unit, from two smaller batches."""
    (few, first), (more, second) = taken
    each = max(second - first, 0.0) / (more - few) if more > few else first / few
    return second + each * (size - more)


def _seconds(work: Callable[[int], object], size: int) -> float:
    begun = time.monotonic()
    work(size)
    return time.monotonic() - begun


# ------------------------------------------------------------------------------------------------------- training


class _EnoughError(Exception):
    """Stops a training after enough updates, before it is saved."""


@dataclass
class _Watch:
    """When a training reported, and what; as a ``Progress`` it ends the training after enough updates."""

    budget: float
    begun: float
    updates: list[float] = field(default_factory=list)
    reference: list[tuple[float, int]] = field(default_factory=list)

    def __call__(self, done: int, total: int, note: str = "") -> None:
        now = time.monotonic()
        if note == "reference":
            self.reference.append((now, done))
            return
        self.updates.append(now)
        enough = len(self.updates) > REPEATS and now - self.updates[0] > self.budget
        if done == total or len(self.updates) > UPDATES or enough:
            raise _EnoughError


@dataclass(frozen=True, slots=True)
class Trained:
    """What a training costs: its updates, and the pass of the reference before them, if there was one to time."""

    updates: Cost
    reference: Cost | None


def time_training(begin: Callable[[int, Progress], object], full: int, budget: float) -> Trained:
    """Times updates on batches of the run's size, or of two pairs where those would take too long.

    Args:
        begin: begins a training of more than ``UPDATES`` updates, with batches of some number of pairs.
        full: the number of pairs per update of the run.
        budget: the seconds to spend; three updates on two pairs are made in any case.
    """
    size = min(FEW_PAIRS, full)
    watch = _watched(begin, size, budget / 4)
    spent = statistics.mean(_intervals(watch)) / size * full
    if size < full and spent <= budget:  # an upper bound, for many pairs take less time than few, each
        size, watch = full, _watched(begin, full, budget)
    intervals = _intervals(watch)
    fixed = watch.updates[0] - (watch.reference[-1][0] if watch.reference else watch.begun) - statistics.mean(intervals)
    # An update of fewer pairs than the run's counts as their share of one.
    seconds = [interval / size * full for interval in intervals]
    measured = f"{len(seconds)} updates on {size} pairs" + ("" if size == full else f" (a run's have {full})")
    reference = [(after - before) / (rows - seen) for (before, seen), (after, rows) in pairwise(watch.reference)]
    loading = watch.reference[0][0] - watch.begun if watch.reference else 0.0
    shown = f"{len(reference)} batches of {watch.reference[0][1]} pairs by the reference" if reference else ""
    return Trained(
        Cost(measured, seconds, max(fixed, 0.0) + loading),
        Cost(shown, reference) if len(reference) >= REPEATS else None,
    )


def _watched(begin: Callable[[int, Progress], object], size: int, budget: float) -> _Watch:
    watch = _Watch(budget, time.monotonic())
    with suppress(_EnoughError):
        begin(size, watch)
    return watch


def _intervals(watch: _Watch) -> list[float]:
    """The seconds of every update after the first, which warms up."""
    return [after - before for before, after in pairwise(watch.updates)]


def longest(lengths: Sequence[int], draws: int) -> float:
    """The expected length of the longest of some draws: E[max] under the lengths' empirical distribution.

    Args:
        lengths: the lengths to draw from, at least one.
        draws: the number of draws.
    """
    count = len(lengths)
    shares = [(k / count) ** draws for k in range(count + 1)]
    return sum(
        length * (after - before) for length, (before, after) in zip(sorted(lengths), pairwise(shares), strict=True)
    )


# ------------------------------------------------------------------------------------------------- bytes and memory


def bytes_of(kind: type[Any], rows: Sequence[Any]) -> tuple[float, float]:
    """The bytes of a stage's file without rows, and of each row in it, from two files of rows.

    Args:
        kind: the class of the rows.
        rows: some rows; with fewer than two, their whole file counts as one row.
    """
    whole, half = len(parquet.encode(kind, rows, {})), len(rows) // 2
    if not half:
        return 0.0, float(whole)
    each = (whole - len(parquet.encode(kind, rows[:half], {}))) / (len(rows) - half)
    return max(whole - each * len(rows), 0.0), max(each, 0.0)


def forget_gpu_peak() -> None:
    """Begins to watch the GPU's memory anew, without what earlier work has left there."""
    import torch

    from semdpo.models.device import collect_garbage

    collect_garbage()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def gpu_peak() -> int:
    """The largest number of bytes that torch had on the GPU since ``forget_gpu_peak``; 0 without a GPU."""
    import torch

    return int(torch.cuda.max_memory_allocated()) if torch.cuda.is_available() else 0


def process_peak() -> int | None:
    """The largest number of bytes of memory that this process ever had; None where the system does not tell."""
    if sys.platform == "win32":
        return None
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024
