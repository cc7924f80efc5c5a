"""Direct preference optimisation (Rafailov et al. 2023, arXiv 2305.18290)."""

from __future__ import annotations

import math

from torch import Tensor
from torch.nn import functional as F

from semdpo.objectives.base import (
    Batch,
    Computed,
    Memory,
    Objective,
    PairLosses,
    Start,
    log_ratio_gap,
    of_pairs,
    positive,
    weighted,
)
from semdpo.recipe.objectives import DPOSettings


def dpo(
    policy_chosen: Tensor,
    policy_rejected: Tensor,
    reference_chosen: Tensor,
    reference_rejected: Tensor,
    *,
    beta: float,
    weight: Tensor | None = None,
) -> PairLosses:
    """ℓ(Δ) = −log σ(Δ), Δ = β[(log π_θ − log π_ref)(y_w|x) − (log π_θ − log π_ref)(y_l|x)] (equation 7).

    Args:
        policy_chosen: log π_θ(y_w|x), summed over tokens, [n].
        policy_rejected: log π_θ(y_l|x), [n].
        reference_chosen: log π_ref(y_w|x), [n].
        reference_rejected: log π_ref(y_l|x), [n].
        beta: strength of the regularisation towards the reference, > 0.
        weight: weight of every pair, ≥ 0, [n]; None is 1.

    Returns:
        Losses, and rewards β(log π_θ − log π_ref), each [n], at least float32.

    Raises:
        ValueError: beta is not positive, the shapes differ, or a weight is negative or not finite.

    Example:
        >>> zeros = torch.zeros(2)
        >>> dpo(torch.tensor([0.0, 20.0]), zeros, zeros, zeros, beta=0.1).losses
        tensor([0.6931, 0.1269])
    """
    positive("beta", beta)
    chosen, rejected = log_ratio_gap(policy_chosen, policy_rejected, reference_chosen, reference_rejected)
    chosen, rejected = beta * chosen, beta * rejected
    return PairLosses(weighted(-F.logsigmoid(chosen - rejected), weight), chosen.detach(), rejected.detach())


def compute(batch: Batch, _settings: DPOSettings, memory: Memory) -> Computed:
    """See ``Objective.compute``."""
    return of_pairs(dpo(*batch.pairs, beta=memory.beta, weight=batch.weight))


def start(beta: float) -> Start:
    """See ``Objective.start``: Δ is 0, and 1 nat more or less changes the loss by at most β."""
    return Start(loss=math.log(2), slope=beta)


OBJECTIVE = Objective(compute, start=start)
