"""Propositions 1 and 2 of Sem-DPO (arXiv 2507.20133): the cost of the smooth weight, and the sources of drift.

All functions take numpy arrays or torch tensors on the CPU, and return numpy arrays.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from semdpo.analysis.semantics import semantic_weight

Array = NDArray[np.float64]
UNIT = 1e-4  # tolerance of the length of a float32 unit vector


def smooth_filter_bound(alpha: float, tau: float, max_loss: float) -> float:
    """M·max(1 − e^{−ατ}, e^{−ατ}): the largest distance of L_sem from the loss of a hard filter, for all data.

    The weight W = e^{−αd} differs from the filter 1[d ≤ τ] most at the filter's edge: by 1 − e^{−ατ} just inside, where
    the filter is 1, and by e^{−ατ} just outside, where it is 0. The paper's bound has only the first of the two.

    Args:
        alpha: strength of the weight, ≥ 0.
        tau: largest distance that the filter keeps, ≥ 0.
        max_loss: M, an upper bound of the losses ℓ, ≥ 0.

    Raises:
        ValueError: a value is negative or not finite.
    """
    return max(paper_filter_bound(alpha, tau, max_loss), max_loss * math.exp(-alpha * tau))


def paper_filter_bound(alpha: float, tau: float, max_loss: float) -> float:
    """M·(1 − e^{−ατ}), as the paper states it (Proposition 1); it holds for all data only where ατ ≥ ln 2.

    Args:
        alpha: strength of the weight, ≥ 0.
        tau: largest distance that the filter keeps, ≥ 0.
        max_loss: M, an upper bound of the losses ℓ, ≥ 0.

    Raises:
        ValueError: a value is negative or not finite.
    """
    for name, value in (("alpha", alpha), ("tau", tau), ("max_loss", max_loss)):
        if not math.isfinite(value) or value < 0:
            raise ValueError(f"{name} must be a finite number ≥ 0, not {value}")
    return max_loss * -math.expm1(-alpha * tau)


def paper_bound_applies(alpha: float, tau: float) -> bool:
    """Whether ατ ≥ ln 2, so that the paper's bound holds and equals ``smooth_filter_bound``."""
    return alpha * tau >= math.log(2)


def filter_deviation(
    losses: ArrayLike, distances: ArrayLike, alpha: float, tau: float, weights: ArrayLike | None = None
) -> float:
    """|L_sem − L_τ| as measured: L_sem = mean(W·ℓ), L_τ = mean(1[d ≤ τ]·ℓ).

    Args:
        losses: loss ℓ of every pair, [n], ≥ 0.
        distances: cosine distances between prompt and chosen, [n], in [0, 2].
        alpha: strength of the weight, ≥ 0.
        tau: largest distance that the filter keeps, ≥ 0.
        weights: how much each pair counts in both means, [n], > 0, such as 1/p of a render budget, which makes them
            estimates for all pairs; None counts each alike. The bounds hold for any such means.

    Raises:
        ValueError: the shapes differ, the arrays are empty, or a value is out of range.
    """
    loss, distance = np.asarray(losses, np.float64), np.asarray(distances, np.float64)
    if loss.shape != distance.shape or loss.ndim != 1 or not loss.size:
        raise ValueError(f"losses and distances must be two [n] arrays, n ≥ 1, not {loss.shape} and {distance.shape}")
    if not (np.isfinite(loss) & (loss >= 0)).all():
        raise ValueError("losses must be finite numbers ≥ 0; compute them again")
    paper_filter_bound(alpha, tau, 0.0)  # raises for values out of range
    gap = (semantic_weight(distance, alpha) - (distance <= tau)) * loss
    return float(abs(gap.mean() if weights is None else np.average(gap, weights=np.asarray(weights, np.float64))))


class Drift(NamedTuple):
    """Proposition 2's three lengths per image, each [n]: ``total`` ≤ ``prompt_level`` + ``generator_level``.

    Attributes:
        total: distance between prompt and image, ‖e(x) − e_img(I(y))‖.
        prompt_level: the rewriter's part, ‖e(x) − e(y)‖.
        generator_level: the renderer's part ε, ‖e(y) − e_img(I(y))‖.
    """

    total: Array
    prompt_level: Array
    generator_level: Array


def drift_decomposition(prompts: ArrayLike, rewrites: ArrayLike, images: ArrayLike) -> Drift:
    """Proposition 2's lengths: Euclidean distances between unit vectors, where ‖u − v‖² = 2(1 − cos).

    Args:
        prompts: e(x), unit vectors, [n, dim].
        rewrites: e(y), unit vectors, [n, dim].
        images: e_img(I(y)), unit vectors of the same space, [n, dim].

    Raises:
        ValueError: the shapes differ, or a vector does not have unit length.
    """
    x, y, image = _unit("prompts", prompts), _unit("rewrites", rewrites), _unit("images", images)
    if not x.shape == y.shape == image.shape:
        raise ValueError(f"prompts, rewrites and images must have one shape, not {x.shape}, {y.shape}, {image.shape}")
    return Drift(_length(x - image), _length(x - y), _length(y - image))


def drift_of_cosines(prompt_rewrite: ArrayLike, prompt_image: ArrayLike, rewrite_image: ArrayLike) -> Drift:
    """Proposition 2's lengths from the cosines between the three vectors: ‖u − v‖ = √(2(1 − cos)).

    Args:
        prompt_rewrite: cos(e(x), e(y)), [n], in [-1, 1].
        prompt_image: cos(e(x), e_img(I(y))), [n], in [-1, 1]: the CLIP score of image and prompt.
        rewrite_image: cos(e(y), e_img(I(y))), [n], in [-1, 1]: the CLIP score of image and rewrite.

    Raises:
        ValueError: the shapes differ, or a value is outside [-1, 1].
    """
    given = {"prompt_rewrite": prompt_rewrite, "prompt_image": prompt_image, "rewrite_image": rewrite_image}
    cosines = {name: np.asarray(values, np.float64) for name, values in given.items()}
    shapes = [values.shape for values in cosines.values()]
    if len(set(shapes)) > 1 or len(shapes[0]) != 1:
        raise ValueError(f"cosines must be three [n] arrays, not of shapes {shapes}")
    for name, values in cosines.items():
        bad = np.flatnonzero(~(np.abs(values) <= 1 + UNIT))
        if bad.size:
            raise ValueError(f"rows {bad[:5].tolist()} of {name} are not cosines; they must lie in [-1, 1]")
    lengths = {name: np.sqrt(2 * (1 - np.clip(values, -1, 1))) for name, values in cosines.items()}
    return Drift(lengths["prompt_image"], lengths["prompt_rewrite"], lengths["rewrite_image"])


def _unit(name: str, vectors: ArrayLike) -> Array:
    array = np.asarray(vectors, np.float64)
    if array.ndim != 2:
        raise ValueError(f"embeddings must be [n, dim], not {array.shape}")
    lengths = _length(array)
    bad = np.flatnonzero(~(np.abs(lengths - 1) <= UNIT))
    if bad.size:
        raise ValueError(f"rows {bad[:5].tolist()} of {name} do not have unit length; divide each by its length")
    normalised: Array = array / lengths[:, None]
    return normalised


def _length(vectors: Array) -> Array:
    lengths: Array = np.linalg.norm(vectors, axis=1)
    return lengths
