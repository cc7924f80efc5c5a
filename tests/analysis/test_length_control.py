"""Winning at equal length: a method that wins by length alone is seen through."""

from __future__ import annotations

import numpy as np
import pytest

from semdpo.analysis.length_control import length_controlled
from semdpo.analysis.statistics import head_to_head
from semdpo.errors import DataError


def _judged(merit: float, per_token: float, n: int = 600) -> tuple[np.ndarray, ...]:
    """Scores of two methods: merit beside what each token adds, and noise; a writes longer on average."""
    rng = np.random.default_rng(0)
    long, short = rng.integers(20, 60, n), rng.integers(15, 45, n)
    noise = rng.logistic(0, 1, n)
    return merit + per_token * (long - short) + noise, np.zeros(n), long, short


def test_a_method_that_wins_by_length_alone_wins_half_at_equal_length() -> None:
    a, b, long, short = _judged(merit=0.0, per_token=0.08)
    assert head_to_head(a, b).low > 0.55, "it wins"
    found = length_controlled(a, b, long, short)
    assert found is not None
    assert found.low < 0.5 < found.high
    assert found.share == pytest.approx(0.5, abs=0.06)


def test_a_method_that_is_better_still_wins() -> None:
    found = length_controlled(*_judged(merit=1.0, per_token=0.0))
    assert found is not None
    assert found.low > 0.6
    assert found.share == pytest.approx(1 / (1 + np.exp(-1)), abs=0.06)  # logistic noise: σ(merit)


def test_sides_may_be_swapped() -> None:
    a, b, long, short = _judged(0.4, 0.03)
    one, other = length_controlled(a, b, long, short), length_controlled(b, a, short, long)
    assert one is not None
    assert other is not None
    assert one.share == pytest.approx(1 - other.share)
    assert one.low == pytest.approx(1 - other.high)


def test_equal_lengths_leave_the_plain_share_with_ties_as_halves() -> None:
    found = length_controlled([1, 1, 1, 0, 0], [0, 0, 0, 1, 0], [5] * 5, [5] * 5)
    assert found is not None
    assert found.share == pytest.approx(3.5 / 5)


def test_what_the_data_cannot_tell_is_not_told() -> None:
    assert length_controlled([1, 1, 1], [0, 0, 0], [1, 2, 3], [3, 2, 2]) is None, "won everywhere"
    separated = length_controlled([1] * 5 + [0] * 5, [0] * 5 + [1] * 5, [9] * 5 + [1] * 5, [1] * 5 + [9] * 5)
    assert separated is None, "the longer one always wins"
    won = [1, 0] * 20
    assert length_controlled(won, [0.5] * 40, [12] * 40, [7] * 40) is None, "no prompt has equal lengths"
    assert length_controlled(won, [0.5] * 40, [19, 18, 17, 16] * 10, [8] * 40) is None, "always 8 to 11 longer"


def test_bad_values_are_refused() -> None:
    with pytest.raises(DataError, match="not of shapes"):
        length_controlled([1, 2], [1, 2], [1, 2], [1])
    with pytest.raises(DataError, match="not finite"):
        length_controlled([1, np.nan], [1, 2], [1, 2], [1, 2])
