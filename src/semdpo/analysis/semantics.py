"""Semantic distance and the weight computed from it (Sem-DPO, arXiv 2507.20133, section 3)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq

Array = NDArray[np.float64]

# Largest mean share of unknown words per text at which an encoder's distances are still meaningful.
UNKNOWN_ALLOWED = 0.2
_NO_DRIFT = 1e-3  # the weight of a smaller distance says too little about α
_EQUAL_WEIGHTS = 1e-4  # two weights that differ by less were made from one α, and rounded when they were written


def cosine_distance(a: ArrayLike, b: ArrayLike) -> Array:
    """d(x, y) = 1 − cos(e(x), e(y)), row by row.

    Args:
        a: embeddings, [n, dim], of any length.
        b: embeddings, [n, dim].

    Returns:
        Distances in [0, 2], [n], float64.

    Raises:
        ValueError: the shapes differ, a row is zero, or a value is not finite.
    """
    left, right = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if left.shape != right.shape or left.ndim != 2:
        raise ValueError(f"embeddings must be two [n, dim] arrays of one shape, not {left.shape} and {right.shape}")
    norms = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    if not np.isfinite(norms).all() or (norms == 0).any():
        bad = np.flatnonzero(~np.isfinite(norms) | (norms == 0))
        raise ValueError(f"embeddings must be finite and not zero; rows {bad[:5].tolist()} are not")
    # Rounding can carry the cosine of equal vectors a few ulp past 1.
    distance: Array = 1.0 - np.clip((left * right).sum(axis=1) / norms, -1.0, 1.0)
    return distance


def semantic_weight(distance: ArrayLike, alpha: float) -> Array:
    """W = exp(−α·d), the weight of a pair whose chosen rewrite has distance d from the prompt.

    Args:
        distance: cosine distances in [0, 2], any shape.
        alpha: strength of the weight, ≥ 0; 0 gives every pair weight 1, which is DPO exactly. The paper uses 4.

    Returns:
        Weights in (0, 1], same shape as ``distance``, float64.

    Raises:
        ValueError: alpha is negative or not finite, or a distance is outside [0, 2] or not a number.

    Source:
        Sem-DPO (arXiv 2507.20133), equation 4.

    Example:
        >>> import semdpo
        >>> semdpo.semantic_weight([0.0, 0.25], alpha=4.0).round(3).tolist()
        [1.0, 0.368]
    """
    d = np.asarray(distance, np.float64)
    if not np.isfinite(alpha) or alpha < 0:
        raise ValueError(f"alpha must be a finite number ≥ 0, not {alpha}")
    # float32 storage may round a distance to slightly below 0
    if not ((d >= -1e-6) & (d <= 2 + 1e-6)).all():
        raise ValueError("cosine distances must lie in [0, 2]; recompute them with `semdpo weigh`")
    weights: Array = np.exp(-alpha * np.clip(d, 0.0, 2.0))
    return weights


def scorer_disagreement(fidelity: ArrayLike) -> Array:
    """How far a second scorer contradicts each pair: d = min(2, max(0, −f / rms(f))).

    exp(−α·d) then weighs a pair down whose chosen image the second scorer finds worse than the rejected one. A pair on
    which both scorers agree has d = 0, and so the weight 1.

    Args:
        fidelity: the second scorer's score of the chosen minus that of the rejected, f, [n].

    Returns:
        Distances in [0, 2], [n].

    Raises:
        ValueError: a value is not a number, or all are 0, so that there is no scale.
    """
    f = _finite(fidelity, "the second scorer's differences")
    scale = float(np.sqrt(np.mean(f**2)))
    if not scale > 0:
        raise ValueError("the second scorer gives both images of every pair the same score; name another one")
    distance: Array = np.clip(-f / scale, 0.0, 2.0)
    return distance


def small_margin(preference: ArrayLike) -> Array:
    """How far each pair's margin is below the median: d = min(2, max(0, 1 − m / median(m))).

    exp(−α·d) then weighs a pair down whose two images scored nearly alike, by e^(−α) at most where no margin is
    negative. A margin of the median or more gives d = 0, and so the weight 1.

    Args:
        preference: preference score of the chosen minus that of the rejected, m, [n].

    Returns:
        Distances in [0, 2], [n].

    Raises:
        ValueError: a value is not a number, or the median is not above 0.
    """
    m = _finite(preference, "the scores' differences")
    median = float(np.median(m))
    if not median > 0:
        raise ValueError("half of the pairs have no margin between their scores; use another source of drift")
    distance: Array = np.clip(1.0 - m / median, 0.0, 2.0)
    return distance


def _finite(values: ArrayLike, what: str) -> Array:
    x = np.asarray(values, np.float64)
    if x.ndim != 1 or not x.size or not np.isfinite(x).all():
        raise ValueError(f"{what} must be finite numbers, one for each pair, and at least one")
    return x


def alpha_of_weights(weights: ArrayLike, distance: ArrayLike) -> float | None:
    """The α with W = exp(−α·d) for every pair: what ``semantic_weight`` was given when it made these weights.

    Args:
        weights: the pairs' weights, [n], each ≥ 0.
        distance: the pairs' cosine distances, [n].

    Returns:
        α > 0, or 0 where every weight is 1. None where no α gives all of these weights, or where fewer than two pairs
        drift, so that any weight would fit.
    """
    w, d = np.asarray(weights, np.float64), np.asarray(distance, np.float64)
    if w.size and (w == 1).all():
        return 0.0
    drifting = (w > 0) & (d > _NO_DRIFT)
    strengths = -np.log(w[drifting]) / d[drifting]
    if strengths.size < 2 or strengths.min() <= 0:
        return None
    alpha = float(strengths.mean())
    return alpha if bool((np.abs(w - np.exp(-alpha * d)) < _EQUAL_WEIGHTS).all()) else None


def effective_sample_size(weights: ArrayLike) -> float:
    """(ΣW)² / Σ(W²): the number of equally weighted pairs with the same information (Kish 1965), or 0."""
    w = np.asarray(weights, np.float64)
    return float(w.sum() ** 2 / (w**2).sum()) if w.any() else 0.0


def automatic_alpha(distance: ArrayLike, share: float) -> float:
    """The α at which the effective sample size of W = exp(−α·d) is the given share of the number of pairs.

    The effective sample size falls as α grows, because W concentrates on the pairs with the smallest distances; so
    there is exactly one such α. Computing it needs neither images nor preference scores.

    Args:
        distance: cosine distances, [n], n ≥ 1.
        share: effective sample size divided by n, in (0, 1]; 1 gives α = 0, which is DPO.

    Raises:
        ValueError: the share is out of range, or no α reaches it.
    """
    d = np.asarray(distance, np.float64)
    if not 0 < share <= 1 or d.ndim != 1 or not d.size:
        raise ValueError(f"the share must lie in (0, 1] and distances be [n], n ≥ 1, not {share} and {d.shape}")
    semantic_weight(d, 0.0)  # raises for distances out of range
    nearest = d - d.min()  # a common factor leaves the effective sample size unchanged and prevents underflow

    def excess(alpha: float) -> float:
        return effective_sample_size(np.exp(-alpha * nearest)) - share * d.size

    if share == 1:
        return 0.0
    high = 1.0
    while excess(high) > 0:
        high *= 2
        if high > 1e6:
            raise ValueError(
                f"no alpha reduces the effective sample size to {share:g} of the pairs, because too many pairs have "
                "the smallest distance; give alpha as a number"
            )
    return float(brentq(excess, 0.0, high, xtol=1e-9))
