"""Sem-DPO (arXiv 2507.20133): DPO in which a pair counts less the further its chosen rewrite drifted."""

from __future__ import annotations

import torch
from torch import Tensor

from semdpo.analysis.semantics import automatic_alpha
from semdpo.objectives.base import (
    Batch,
    Computed,
    Constants,
    Data,
    Memory,
    Objective,
    PairLosses,
    of_pairs,
    weighted,
    wide,
)
from semdpo.objectives.dpo import dpo, start
from semdpo.recipe.objectives import SemDPOSettings


def sem_dpo(
    policy_chosen: Tensor,
    policy_rejected: Tensor,
    reference_chosen: Tensor,
    reference_rejected: Tensor,
    *,
    beta: float,
    distance: Tensor,
    alpha: float,
    weight: Tensor | None = None,
) -> PairLosses:
    """W·ℓ(Δ) with W = exp(−α·d(x, y_w)) (equations 3 and 4); with α = 0 bit for bit the same as DPO.

    Where the paper prints the loss without the second logarithm of Δ, this follows its equation 3. The weights multiply
    the loss of every pair, and the batch's loss is divided by the number of pairs, not by the sum of the weights.

    Args:
        policy_chosen: log π_θ(y_w|x), summed over tokens, [n].
        policy_rejected: log π_θ(y_l|x), [n].
        reference_chosen: log π_ref(y_w|x), [n].
        reference_rejected: log π_ref(y_l|x), [n].
        beta: strength of the regularisation towards the reference, > 0.
        distance: cosine distances between prompt and chosen rewrite, in [0, 2], [n].
        alpha: strength of the weight, ≥ 0; the paper uses 4.
        weight: the data's own weight of every pair, ≥ 0, [n], which multiplies W; None is 1.

    Returns:
        Weighted losses, and rewards as in DPO.

    Raises:
        ValueError: as in ``dpo``, or alpha is negative, or the distances are outside [0, 2] or of another shape.

    Example:
        >>> zeros, distance = torch.zeros(2), torch.tensor([0.0, 0.25])
        >>> sem_dpo(zeros, zeros, zeros, zeros, beta=0.05, distance=distance, alpha=4.0).losses
        tensor([0.6931, 0.2550])
    """
    plain = dpo(policy_chosen, policy_rejected, reference_chosen, reference_rejected, beta=beta, weight=weight)
    semantic = semantic_weight(distance, alpha)
    if semantic.shape != plain.losses.shape:
        raise ValueError(f"distances must be of shape {tuple(plain.losses.shape)}, not {tuple(semantic.shape)}")
    return plain._replace(losses=weighted(plain.losses, semantic))


def semantic_weight(distance: Tensor, alpha: float) -> Tensor:
    """W = exp(−α·d), for tensors; ``semantics.semantic_weight`` is the same for arrays.

    Args:
        distance: cosine distances in [0, 2], any shape.
        alpha: strength of the weight, ≥ 0.

    Returns:
        Weights in (0, 1], at least float32.

    Raises:
        ValueError: alpha is negative or not finite, or a distance is outside [0, 2] or not a number.
    """
    if not 0 <= alpha < float("inf"):
        raise ValueError(f"alpha must be a finite number ≥ 0, not {alpha}")
    values = wide(distance)
    # float32 storage may round a distance to slightly below 0.
    if not bool(((values >= -1e-6) & (values <= 2 + 1e-6)).all()):
        raise ValueError("cosine distances must lie in [0, 2]; recompute them with `semdpo weigh`")
    return torch.exp(-alpha * values.clamp(0.0, 2.0))


def constants(settings: SemDPOSettings, data: Data) -> Constants:
    """See ``Objective.constants``: α; ``auto`` is the α whose effective sample size is ``kept_share`` of the pairs."""
    if settings.alpha == "auto":
        try:
            return {"alpha": automatic_alpha(data.distances, settings.kept_share)}
        except ValueError as error:
            raise ValueError(f"alpha: auto: {error}") from error
    return {"alpha": float(settings.alpha)}


def pair_weight(_settings: SemDPOSettings, distance: Tensor, constants: Constants) -> Tensor:
    """See ``Objective.pair_weight``: W of every pair, [n]."""
    return semantic_weight(distance, constants["alpha"])


def compute(batch: Batch, _settings: SemDPOSettings, memory: Memory) -> Computed:
    """See ``Objective.compute``."""
    alpha = memory.constants["alpha"]
    result = sem_dpo(*batch.pairs, beta=memory.beta, distance=batch.distance, alpha=alpha, weight=batch.weight)
    return of_pairs(result)


OBJECTIVE = Objective(compute, constants, pair_weight, start=start)
