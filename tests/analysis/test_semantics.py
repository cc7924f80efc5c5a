"""The weight's formula, against its definition and its promises."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from semdpo.analysis.semantics import (
    alpha_of_weights,
    automatic_alpha,
    cosine_distance,
    effective_sample_size,
    scorer_disagreement,
    semantic_weight,
    small_margin,
)

DISTANCES = arrays.arrays(np.float64, st.integers(1, 20), elements=st.floats(0, 2))


def test_distance_of_known_vectors() -> None:
    a = [[1, 0], [1, 0], [1, 0], [3, 3]]
    b = [[2, 0], [0, 5], [-1, 0], [1, 1]]
    assert cosine_distance(a, b) == pytest.approx([0, 1, 2, 0])


@pytest.mark.parametrize("bad", [[[0.0, 0.0]], [[math.nan, 1.0]], [[math.inf, 1.0]]])
def test_vectors_without_direction_are_refused(bad: list[list[float]]) -> None:
    with pytest.raises(ValueError, match=r"rows \[0\]"):
        cosine_distance(bad, [[1.0, 0.0]])


def test_different_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="one shape"):
        cosine_distance([[1.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]])


@given(DISTANCES, st.floats(0, 50))
def test_weights_lie_in_the_unit_interval_and_fall_with_distance(distance: np.ndarray, alpha: float) -> None:
    weight = semantic_weight(distance, alpha)
    assert ((weight > 0) & (weight <= 1)).all()
    order = np.argsort(distance)
    assert (np.diff(weight[order]) <= 0).all()
    assert weight == pytest.approx([math.exp(-alpha * d) for d in distance])


@given(DISTANCES)
def test_alpha_zero_weighs_all_alike(distance: np.ndarray) -> None:
    assert (semantic_weight(distance, 0.0) == 1.0).all()


@pytest.mark.parametrize(
    ("distance", "alpha"), [([0.5], -1), ([0.5], math.nan), ([math.nan], 4), ([2.5], 4), ([-0.1], 4)]
)
def test_values_out_of_range_are_refused(distance: list[float], alpha: float) -> None:
    with pytest.raises(ValueError, match=r"alpha|\[0, 2\]"):
        semantic_weight(distance, alpha)


@given(DISTANCES, st.floats(0, 10))
def test_effective_sample_size_lies_between_one_and_n(distance: np.ndarray, alpha: float) -> None:
    size = effective_sample_size(semantic_weight(distance, alpha))
    assert 1 - 1e-9 <= size <= len(distance) + 1e-9


def test_effective_sample_size_of_equal_weights_is_their_number() -> None:
    assert effective_sample_size([0.3] * 7) == pytest.approx(7)
    assert effective_sample_size([1, 0, 0]) == pytest.approx(1)
    assert effective_sample_size([]) == 0


@given(arrays.arrays(np.float64, st.integers(5, 40), elements=st.floats(0, 2), unique=True), st.floats(0.3, 1))
def test_an_automatic_alpha_keeps_the_share_it_is_asked_for(distance: np.ndarray, share: float) -> None:
    if np.diff(np.sort(distance)).min() < 1e-4:
        return
    alpha = automatic_alpha(distance, share)
    nearest = distance - distance.min()
    assert effective_sample_size(np.exp(-alpha * nearest)) == pytest.approx(share * len(distance), rel=1e-4)


@given(DISTANCES)
def test_the_effective_sample_size_falls_as_alpha_grows(distance: np.ndarray) -> None:
    sizes = [effective_sample_size(semantic_weight(distance, alpha)) for alpha in (0, 1, 2, 4, 8, 16)]
    assert (np.diff(sizes) <= 1e-9).all()


def test_an_alpha_that_does_not_exist_is_refused() -> None:
    assert automatic_alpha([0.1, 0.5], 1.0) == 0.0
    with pytest.raises(ValueError, match="too many pairs have the smallest distance"):
        automatic_alpha([0.3] * 5, 0.5)
    with pytest.raises(ValueError, match=r"share must lie in \(0, 1\]"):
        automatic_alpha([0.1], 0.0)
    with pytest.raises(ValueError, match=r"\[0, 2\]"):
        automatic_alpha([math.nan], 0.5)


def test_the_alpha_of_weights_is_found_again_and_only_of_such_weights() -> None:
    distance = np.array([0.0, 0.1, 0.4, 1.2])
    for alpha in (0.0, 0.5, 4.0, 1000.0):  # the last gives weights of 0
        assert alpha_of_weights(semantic_weight(distance, alpha), distance) == pytest.approx(alpha)
    rounded = semantic_weight(distance, 4.0).round(6)
    assert alpha_of_weights(rounded, distance) == pytest.approx(4.0, rel=1e-3)
    for weights in ([1.0, 0.5, 0.4, 0.1], [0.0, 0.0, 0.0, 0.0], [1.0, 1.2, 1.5, 2.0]):
        assert alpha_of_weights(weights, distance) is None
    assert alpha_of_weights([0.5], [0.3]) is None  # any weight would fit


def test_pairs_on_which_two_scorers_disagree_are_far() -> None:
    assert scorer_disagreement([3.0, 0.0, -4.0]) == pytest.approx([0, 0, 4 / math.sqrt(25 / 3)])
    assert scorer_disagreement([1.0, 0.5]).tolist() == [0, 0]
    assert scorer_disagreement([0.0] * 99 + [-1.0])[-1] == 2, "no distance is above 2"
    assert scorer_disagreement([-5.0, 5.0]) == pytest.approx(scorer_disagreement([-0.1, 0.1])), "the scale is free"


def test_pairs_with_a_small_margin_are_far() -> None:
    assert small_margin([0.0, 1.0, 2.0, 4.0, 8.0]).tolist() == [1, 0.5, 0, 0, 0]
    assert small_margin([-9.0, 1.0, 1.0]).tolist() == [2, 0, 0]


@pytest.mark.parametrize("family", [scorer_disagreement, small_margin])
@pytest.mark.parametrize("bad", [[], [math.nan, 1.0], [[1.0]], [0.0, 0.0, 0.0]])
def test_scores_without_a_scale_are_refused(family: Any, bad: list[float]) -> None:
    with pytest.raises(ValueError, match=r"must be finite|same score|no margin"):
        family(bad)
