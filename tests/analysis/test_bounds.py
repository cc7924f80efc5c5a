"""The propositions on random data: what always holds, and where the paper's form does not."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from semdpo.analysis.bounds import (
    drift_decomposition,
    drift_of_cosines,
    filter_deviation,
    paper_bound_applies,
    paper_filter_bound,
    smooth_filter_bound,
)

ALPHAS, TAUS = st.floats(0, 30), st.floats(0, 2)
PAIRS = st.lists(st.tuples(st.floats(0, 20), st.floats(0, 2)), min_size=1, max_size=30)


@given(PAIRS, ALPHAS, TAUS)
def test_our_bound_holds_for_all_data(pairs: list[tuple[float, float]], alpha: float, tau: float) -> None:
    losses, distances = np.array(pairs).T
    found = filter_deviation(losses, distances, alpha, tau)
    assert found <= smooth_filter_bound(alpha, tau, losses.max()) + 1e-9


@given(PAIRS, ALPHAS, TAUS, st.floats(1, 50))
def test_pairs_that_count_more_keep_the_bound(
    pairs: list[tuple[float, float]], alpha: float, tau: float, most: float
) -> None:
    losses, distances = np.array(pairs).T
    counted = np.linspace(1, most, len(pairs))
    found = filter_deviation(losses, distances, alpha, tau, counted)
    assert found <= smooth_filter_bound(alpha, tau, losses.max()) + 1e-9


def test_a_pair_that_counts_three_times_is_three_pairs() -> None:
    thrice = filter_deviation([1.0, 2.0, 2.0, 2.0], [0.1, 0.3, 0.3, 0.3], 4.0, 0.2)
    assert filter_deviation([1.0, 2.0], [0.1, 0.3], 4.0, 0.2, weights=[1.0, 3.0]) == pytest.approx(thrice)
    assert filter_deviation([1.0, 2.0], [0.1, 0.3], 4.0, 0.2) != pytest.approx(thrice)


@given(PAIRS, ALPHAS, TAUS)
def test_the_papers_bound_holds_where_alpha_tau_is_large(
    pairs: list[tuple[float, float]], alpha: float, tau: float
) -> None:
    losses, distances = np.array(pairs).T
    if paper_bound_applies(alpha, tau):
        assert filter_deviation(losses, distances, alpha, tau) <= paper_filter_bound(alpha, tau, losses.max()) + 1e-9
        assert paper_filter_bound(alpha, tau, 1.0) == smooth_filter_bound(alpha, tau, 1.0)


def test_the_papers_bound_is_broken_by_a_pair_just_outside_the_filter() -> None:
    """α = 4, τ = 0.1: ατ = 0.4 < ln 2. A pair at distance 0.11 is filtered out, yet keeps the weight e^{−0.44}."""
    found = filter_deviation([1.0], [0.11], alpha=4.0, tau=0.1)
    assert found == pytest.approx(math.exp(-0.44))
    assert found > paper_filter_bound(4.0, 0.1, 1.0) == pytest.approx(1 - math.exp(-0.4))
    assert found <= smooth_filter_bound(4.0, 0.1, 1.0) == pytest.approx(math.exp(-0.4))
    assert not paper_bound_applies(4.0, 0.1)


@given(st.floats(0.01, 30), st.floats(0.0, 1.99))
def test_our_bound_is_tight(alpha: float, tau: float) -> None:
    """One pair at the filter's edge, inside or outside, comes as near as rounding lets it."""
    inside = filter_deviation([1.0], [tau], alpha, tau)
    outside = filter_deviation([1.0], [np.nextafter(tau, 3)], alpha, tau)
    assert max(inside, outside) == pytest.approx(smooth_filter_bound(alpha, tau, 1.0))


def _vectors(n: int) -> st.SearchStrategy[np.ndarray]:
    raw = arrays.arrays(np.float64, (n, 3, 5), elements=st.floats(-1, 1))
    return raw.filter(lambda each: (np.linalg.norm(each, axis=-1) > 1e-3).all())


@given(_vectors(4))
def test_proposition_two_holds_for_unit_vectors(raw: np.ndarray) -> None:
    x, y, image = np.moveaxis(raw / np.linalg.norm(raw, axis=-1, keepdims=True), 1, 0)
    found = drift_decomposition(x, y, image)
    assert (found.total <= found.prompt_level + found.generator_level + 1e-9).all()
    assert (found.total >= np.abs(found.prompt_level - found.generator_level) - 1e-9).all()
    np.testing.assert_allclose(found.prompt_level**2, 2 * (1 - (x * y).sum(-1)), atol=1e-9)


def test_tensors_are_taken_too() -> None:
    x = torch.nn.functional.normalize(torch.randn(3, 4, generator=torch.Generator().manual_seed(0)), dim=-1)
    found = drift_decomposition(x, x, x.flip(0))
    assert found.prompt_level.tolist() == [0, 0, 0]
    np.testing.assert_allclose(found.total, found.generator_level)
    assert filter_deviation(torch.ones(2), torch.zeros(2), 4.0, 0.5) == 0.0


@pytest.mark.parametrize("bad", [math.nan, 0.0, math.inf, 2.0])
def test_vectors_that_are_not_of_unit_length_are_refused(bad: float) -> None:
    good = np.array([[1.0, 0.0], [0.0, 1.0]])
    wrong = good.copy()
    wrong[1] = [0.0, bad]
    for rows in ((wrong, good, good), (good, wrong, good), (good, good, wrong)):
        with pytest.raises(ValueError, match=r"rows \[1\] of (prompts|rewrites|images) do not have unit length"):
            drift_decomposition(*rows)
    with pytest.raises(ValueError, match="one shape"):
        drift_decomposition(good, good[:1], good)


@pytest.mark.parametrize("values", [(-1.0, 0.5, 1.0), (1.0, math.nan, 1.0), (1.0, 0.5, math.inf)])
def test_bounds_of_values_out_of_range_are_refused(values: tuple[float, float, float]) -> None:
    for bound in (smooth_filter_bound, paper_filter_bound):
        with pytest.raises(ValueError, match="must be a finite number ≥ 0"):
            bound(*values)


@pytest.mark.parametrize(
    ("losses", "distances"), [([1.0], [0.1, 0.2]), ([], []), ([math.nan], [0.1]), ([-1.0], [0.1]), ([1.0], [3.0])]
)
def test_a_deviation_of_bad_data_is_refused(losses: list[float], distances: list[float]) -> None:
    with pytest.raises(ValueError, match=r"n ≥ 1|losses must be finite|\[0, 2\]"):
        filter_deviation(losses, distances, 4.0, 0.5)


@given(_vectors(3))
def test_cosines_give_the_same_lengths_as_vectors(vectors: np.ndarray) -> None:
    x, y, image = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    cosines = ((x * y).sum(1), (x * image).sum(1), (y * image).sum(1))
    for ours, theirs in zip(drift_of_cosines(*cosines), drift_decomposition(x, y, image), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_what_is_no_cosine_is_refused() -> None:
    with pytest.raises(ValueError, match=r"rows \[1\] of prompt_image are not cosines"):
        drift_of_cosines([1.0, 0.5], [0.0, 1.5], [0.1, 0.1])
    with pytest.raises(ValueError, match="not of shapes"):
        drift_of_cosines([1.0], [0.0, 0.5], [0.1, 0.1])
