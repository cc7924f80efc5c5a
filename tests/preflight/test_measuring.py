"""Timing of batches and trainings, on a clock that the work itself moves."""

from __future__ import annotations

import pytest

from semdpo.data.records import Score
from semdpo.engine import parquet
from semdpo.preflight import measuring
from semdpo.progress import Progress


class Clock:
    """A clock that stands still until some work takes time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr("time.monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def _batches(
    clock: Clock, full: int, budget: float, anyhow: float = 1.0, each: float = 0.1
) -> tuple[list[int], object]:
    sizes: list[int] = []

    def work(size: int) -> None:
        clock.now += anyhow + each * size + (5.0 if not sizes else 0.0)  # the first batch warms up
        sizes.append(size)

    return sizes, measuring.time_batches(work, full, budget)


def test_batches_have_the_runs_size_where_there_is_time(clock: Clock) -> None:
    sizes, timed = _batches(clock, full=32, budget=30.0)
    assert sizes[:4] == [1, 1, 4, 32], "small ones first, then one of the full size that warms up"
    assert (timed.size, timed.most) == (32, 1.0)
    assert timed.warm_up == pytest.approx(5.0)
    assert len(timed.seconds) >= 2
    assert timed.seconds == pytest.approx([4.2 / 32] * len(timed.seconds))


def test_large_batches_follow_from_smaller_ones_where_there_is_no_time(clock: Clock) -> None:
    sizes, timed = _batches(clock, full=64, budget=3.0)
    assert (timed.size, max(sizes)) == (16, 16)
    assert timed.seconds == pytest.approx([(1.0 + 6.4) / 64] * 2)
    assert timed.most * timed.seconds[0] == pytest.approx(2.6 / 16), "at most as slow per unit as what was timed"


@pytest.mark.parametrize("full", [1, 2, 4, 5])
def test_small_runs_have_small_batches(full: int, clock: Clock) -> None:
    sizes, timed = _batches(clock, full=full, budget=0.1)
    assert max(sizes) <= max(full, 4)
    assert len(timed.seconds) == 2
    assert timed.seconds == pytest.approx([(1.0 + 0.1 * full) / full] * 2)


def test_two_batches_that_differ_are_both_kept(clock: Clock) -> None:
    spent = iter([1.0, 1.0, 1.0, 2.0, 4.0])

    def work(size: int) -> None:
        clock.now += next(spent)

    assert measuring.time_batches(work, 1, 0.5).seconds == [2.0, 4.0]


class Training:
    """A training of the reference's pass, then updates, whose time depends on the number of pairs."""

    def __init__(self, clock: Clock, anyhow: float, each: float) -> None:
        self.clock, self.anyhow, self.each, self.sizes, self.saved = clock, anyhow, each, list[int](), False

    def __call__(self, size: int, progress: Progress) -> None:
        self.sizes.append(size)
        self.clock.now += 7.0  # loading
        for done in (16, 32, 48) if size > 2 else ():
            self.clock.now += 16 * 0.01
            progress(done, 48, "reference")
        for done in range(1, 7):
            self.clock.now += self.anyhow + self.each * size + (2.0 if done == 1 else 0.0)
            progress(done, 6, "loss 0.6")
        self.saved = True


def test_a_training_is_stopped_before_it_saves(clock: Clock) -> None:
    training = Training(clock, 0.1, 0.05)
    trained = measuring.time_training(training, 32, 10.0)
    assert (training.sizes, training.saved) == ([2, 32], False)
    assert trained.updates.seconds == pytest.approx([1.7] * 4), "without the first update, which warms up"
    assert trained.updates.fixed == pytest.approx(7.16 + 2.0)
    assert trained.updates.measured == "4 updates on 32 pairs"
    assert trained.reference is not None
    assert trained.reference.seconds == pytest.approx([0.01, 0.01])


def test_updates_on_two_pairs_stand_for_those_that_would_take_too_long(clock: Clock) -> None:
    training = Training(clock, 0.0, 1.0)
    trained = measuring.time_training(training, 32, 10.0)
    assert training.sizes == [2]
    assert trained.updates.seconds == pytest.approx([32.0] * len(trained.updates.seconds))
    assert trained.updates.measured.endswith("updates on 2 pairs (a run's have 32)")
    assert trained.reference is None


def test_bytes_grow_with_the_rows() -> None:
    rows = [Score(f"{k:016x}", "tiny:clip", k / 7, k, False) for k in range(600)]
    fixed, each = measuring.bytes_of(Score, rows[:100])
    assert fixed + 600 * each == pytest.approx(len(parquet.encode(Score, rows, {})), rel=0.2)
    assert measuring.bytes_of(Score, rows[:1]) == (0.0, len(parquet.encode(Score, rows[:1], {})))
