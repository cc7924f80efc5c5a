"""Semantic distance and the weight made from it (Sem-DPO, arXiv 2507.20133, section 3)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

# Of a text's words, the share that an encoder may never have seen before its distances mean nothing.
UNKNOWN_ALLOWED = 0.2


def cosine_distance(a: ArrayLike, b: ArrayLike) -> Array:
    """d(x, y) = 1 − cos(e(x), e(y)), row by row.

    Args:
        a: embeddings, [n, dim]; need not be of unit length.
        b: embeddings, [n, dim].

    Returns:
        Distances in [0, 2], [n], float64.

    Raises:
        ValueError: shapes differ, a row is zero, or a value is not finite.
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
    """W = exp(−α·d), the weight of a pair whose winner lies at distance d from the prompt.

    Args:
        distance: cosine distances, any shape, in [0, 2].
        alpha: strength, ≥ 0; 0 gives every pair weight 1, which is DPO exactly. The paper uses 4.

    Returns:
        Weights in (0, 1], of the shape of ``distance``, float64.

    Raises:
        ValueError: alpha is negative or not finite, or a distance is outside [0, 2] or not a number.
    """
    d = np.asarray(distance, np.float64)
    if not np.isfinite(alpha) or alpha < 0:
        raise ValueError(f"alpha must be a finite number ≥ 0, not {alpha}")
    # float32 storage may leave a distance a hair below 0
    if not ((d >= -1e-6) & (d <= 2 + 1e-6)).all():
        raise ValueError("cosine distances must lie in [0, 2]; recompute them with `semdpo weigh`")
    weights: Array = np.exp(-alpha * np.clip(d, 0.0, 2.0))
    return weights


def effective_sample_size(weights: ArrayLike) -> float:
    """(ΣW)² / Σ(W²): how many equally weighted pairs carry the same information (Kish 1965)."""
    w = np.asarray(weights, np.float64)
    return float(w.sum() ** 2 / (w**2).sum()) if w.size else 0.0
