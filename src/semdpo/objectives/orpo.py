"""Odds-ratio preference optimisation (Hong et al. 2024, arXiv 2403.07691): no reference model."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from semdpo.objectives.base import (
    Batch,
    Computed,
    Memory,
    Objective,
    PairLosses,
    of_pairs,
    positive,
    same_shape,
    weighted,
    wide,
)
from semdpo.objectives.sft import sft
from semdpo.recipe.objectives import ORPOSettings


def orpo(
    chosen_mean: Tensor,
    rejected_mean: Tensor,
    *,
    nll: Tensor,
    odds_weight: float,
    weight: Tensor | None = None,
) -> PairLosses:
    """NLL(y_w) − λ·log σ(log odds(y_w|x) − log odds(y_l|x)) (equations 6 and 7).

    Args:
        chosen_mean: log π_θ(y_w|x) as the mean over tokens, [n].
        rejected_mean: log π_θ(y_l|x) as the mean over tokens, [n].
        nll: negative log-likelihood of the chosen completions, [n], or one number for the batch.
        odds_weight: λ, > 0.
        weight: weight of every pair, ≥ 0, [n]; None is 1.

    Returns:
        Losses, and rewards λ·(mean log-probability), at least float32.

    Raises:
        ValueError: λ is not positive, or the shapes differ.

    Source:
        xfactlab/orpo, ``ORPOTrainer.compute_loss``; here in a form that stays finite near probability 1.

    Example:
        >>> p = torch.tensor([-1.0])
        >>> orpo(p, p, nll=torch.tensor([1.0]), odds_weight=0.1).losses
        tensor([1.0693])
    """
    positive("odds_weight", odds_weight)
    same_shape(chosen_mean, rejected_mean)
    chosen, rejected = wide(chosen_mean), wide(rejected_mean)
    log_odds = (chosen - rejected) - (_log1mexp(chosen) - _log1mexp(rejected))
    losses = wide(nll) - odds_weight * F.logsigmoid(log_odds)
    return PairLosses(weighted(losses, weight), odds_weight * chosen.detach(), odds_weight * rejected.detach())


def _log1mexp(values: Tensor) -> Tensor:
    """log(1 − eᵛ) for v < 0, exact on both sides of −log 2 (Mächler 2012); v = 0 counts as the next smaller number.

    In float32 a probability above 1 − 6e-8 has the logarithm 0, where the value and its slope would be infinite.
    """
    values = values.clamp(max=-torch.finfo(values.dtype).tiny)
    near = values > -math.log(2)
    # Where the other branch is used, each branch gets harmless values, so that no gradient is 0·∞.
    by_expm1 = torch.log(-torch.expm1(values.masked_fill(~near, -0.1)))
    by_log1p = torch.log1p(-torch.exp(values.masked_fill(near, -1.0)))
    return torch.where(near, by_expm1, by_log1p)


def compute(batch: Batch, settings: ORPOSettings, _memory: Memory) -> Computed:
    """See ``Objective.compute``."""
    nll = sft(batch.policy[:, 0], mean_tokens=batch.mean_tokens)
    chosen, rejected = batch.policy[:, 0] / batch.lengths[:, 0], batch.policy[:, 1] / batch.lengths[:, 1]
    return of_pairs(orpo(chosen, rejected, nll=nll, odds_weight=settings.odds_weight, weight=batch.weight))


OBJECTIVE = Objective(compute)
