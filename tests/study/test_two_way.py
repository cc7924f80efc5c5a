"""The study's interval: the analysis of variance where the table is complete, and the truth in 95 of 100 studies."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import special, stats

from benchmarks import study_coverage as coverage
from semdpo.errors import DataError
from semdpo.study.analysis.rates import Rates, rates
from semdpo.study.analysis.two_way import two_way
from tests.study.votes import A, B, from_matrix, with_margins


def _table(votes: np.ndarray, counts: np.ndarray | None = None) -> Rates:
    counts = np.ones(votes.shape) if counts is None else counts
    names = [tuple(f"{i:03d}" for i in range(size)) for size in votes.shape]
    return Rates(names[0], names[1], votes * counts, counts)


def test_the_variance_of_a_complete_table_is_that_of_the_analysis_of_variance() -> None:
    rng = np.random.default_rng(4)
    odds = rng.normal(0, 1.2, (9, 1)) + rng.normal(0, 1.2, (1, 20))
    y = (rng.random((9, 20)) < special.expit(odds)).astype(float)
    mean, by_rater, by_prompt = y.mean(), y.mean(1), y.mean(0)
    squares = [20 * by_rater.var(ddof=1), 9 * by_prompt.var(ddof=1)]
    residuals = y - by_rater[:, None] - by_prompt + mean
    squares.append(float((residuals**2).sum() / (8 * 19)))
    assert min(squares[:2]) > squares[2]  # both parts are there
    variance = (squares[0] + squares[1] - squares[2]) / 180
    freedom = (variance * 180) ** 2 / (squares[0] ** 2 / 8 + squares[1] ** 2 / 19 + squares[2] ** 2 / (8 * 19))
    found = two_way(_table(y))
    assert (found.share, found.freedom) == pytest.approx((mean, freedom))
    assert found.effective == pytest.approx(mean * (1 - mean) / variance)
    # Wilson's interval holds the shares from which the share is t standard errors away or less.
    t = stats.t.isf(0.025, freedom)
    for end in (found.low, found.high):
        assert abs(mean - end) == pytest.approx(t * np.sqrt(end * (1 - end) / found.effective))


@pytest.mark.parametrize("level", [0.8, 0.95, 0.99])
def test_the_p_value_says_whether_one_half_is_in_the_interval(level: float) -> None:
    rng = np.random.default_rng(0)
    outcomes = set()
    for _ in range(60):
        found = two_way(_table((rng.random((8, 10)) < rng.uniform(0.35, 0.65)).astype(float)), level=level)
        outside = not found.low <= 0.5 <= found.high
        assert (found.p < 1 - level) == outside
        outcomes.add(outside)
    assert outcomes == {True, False}


def test_methods_and_axes_can_be_swapped() -> None:
    votes = with_margins([14, 15, 15, 16, 16, 17, 18, 18, 19], [3, 4, 6, 6, 6, 7, 7, 7, *[8] * 6, *[9] * 6])
    here, there = two_way(_table(votes)), two_way(_table(1 - votes))
    assert (here.low, here.high, here.p) == pytest.approx((1 - there.high, 1 - there.low, there.p))
    turned = two_way(_table(votes.T))
    assert (turned.low, turned.high) == pytest.approx((here.low, here.high))
    other_way = rates(from_matrix(votes), "match", (B, A))
    assert two_way(other_way).low == pytest.approx(there.low)
    assert rates(from_matrix(votes), "match", (A, B)).share == pytest.approx(148 / 180)


def test_votes_that_all_agree_have_an_interval_and_no_more_than_independent_votes_give() -> None:
    found = two_way(_table(np.ones((9, 20))))
    assert found.share == 1
    assert (found.effective, found.freedom) == (180, 8)
    t = stats.t.isf(0.025, 8)
    assert (found.low, found.high) == pytest.approx((180 / (180 + t**2), 1))
    assert found.p < 0.001


def test_empty_cells_and_raters_without_common_prompts() -> None:
    rng = np.random.default_rng(1)
    votes, counts = (rng.random((6, 12)) < 0.7).astype(float), np.zeros((6, 12))
    for rater in range(6):
        counts[rater, 2 * rater : 2 * rater + 2] = 1
    alone = two_way(_table(votes, counts))  # nothing is left to estimate single votes from
    assert 0 < alone.low < alone.share < alone.high < 1
    counts[:, :6] = 1
    assert two_way(_table(votes, counts)).share == pytest.approx((votes * counts).sum() / counts.sum())


def test_one_rater_or_one_prompt_is_refused() -> None:
    for shape in ((1, 20), (9, 1)):
        with pytest.raises(DataError, match="at least two of each"):
            two_way(_table(np.ones(shape)))


@pytest.mark.slow
@pytest.mark.parametrize("size", ["9x20", "57x5", "12x40", "20x20half"])
def test_the_interval_holds_the_truth(size: str) -> None:
    """1,200 studies of each size: 93 to 97%, widened by two standard errors; false positives at most 6%, likewise."""
    held, false, studies = 0, 0, 400
    for place, effect in enumerate((0.0, 0.8, 2.0)):
        rng, truth = np.random.default_rng(place), coverage.truth(effect, (0.5, 0.5))
        for _ in range(studies):
            sums, counts, _ = coverage.study(size, effect, (0.5, 0.5), rng)
            found = two_way(_table(sums, counts))
            held += found.low <= truth <= found.high
            false += effect == 0 and found.p < 0.05
    error = 2 * np.sqrt(0.95 * 0.05 / (3 * studies))
    assert 0.93 - error < held / (3 * studies) < 0.97 + error
    assert false / studies < 0.06 + 2 * np.sqrt(0.06 * 0.94 / studies)
