"""Simple preference optimisation (Meng et al. 2024, arXiv 2405.14734): rewards per token, no reference model."""

from __future__ import annotations

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
from semdpo.recipe.objectives import SimPOSettings


def simpo(
    chosen_mean: Tensor,
    rejected_mean: Tensor,
    *,
    reward_scale: float,
    margin: float,
    weight: Tensor | None = None,
) -> PairLosses:
    """−log σ(r(y_w) − r(y_l) − γ), r(y) = (β/|y|)·log π_θ(y|x) (equations 4 and 6).

    The paper's β only scales the reward and does not regularise towards a reference, so it is called ``reward_scale``.

    Args:
        chosen_mean: log π_θ(y_w|x) as the mean over tokens, [n].
        rejected_mean: log π_θ(y_l|x) as the mean over tokens, [n].
        reward_scale: the paper's β, > 0.
        margin: γ, by which the chosen reward should exceed the rejected one, ≥ 0.
        weight: weight of every pair, ≥ 0, [n]; None is 1.

    Returns:
        Losses, and rewards r, at least float32.

    Raises:
        ValueError: the scale is not positive, the margin is negative, the shapes differ, or a weight is negative or
            not finite.

    Source:
        princeton-nlp/SimPO, ``SimPOTrainer.simpo_loss``.

    Example:
        >>> chosen, rejected = torch.tensor([-1.0, -1.0]), torch.tensor([-1.5, -4.0])
        >>> simpo(chosen, rejected, reward_scale=2.0, margin=1.0).losses
        tensor([0.6931, 0.0067])
    """
    positive("reward_scale", reward_scale)
    if not 0 <= margin < float("inf"):
        raise ValueError(f"margin must be a finite number ≥ 0, not {margin}")
    same_shape(chosen_mean, rejected_mean)
    chosen, rejected = reward_scale * wide(chosen_mean), reward_scale * wide(rejected_mean)
    losses = -F.logsigmoid(chosen - rejected - margin)
    return PairLosses(weighted(losses, weight), chosen.detach(), rejected.detach())


def compute(batch: Batch, settings: SimPOSettings, _memory: Memory) -> Computed:
    """See ``Objective.compute``."""
    means = batch.policy / batch.lengths
    scale, margin = settings.reward_scale, settings.margin
    return of_pairs(simpo(*means.unbind(1), reward_scale=scale, margin=margin, weight=batch.weight))


OBJECTIVE = Objective(compute)
