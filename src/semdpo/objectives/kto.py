"""Kahneman–Tversky optimisation (Ethayarajh et al. 2024, arXiv 2402.01306): good and bad examples instead of pairs."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from semdpo.objectives.base import Batch, Computed, Memory, Objective, positive, same_shape, weighted, wide
from semdpo.recipe.objectives import KTOSettings


class ExampleLosses(NamedTuple):
    """The result of KTO for n examples.

    Attributes:
        losses: loss of every example with weights applied, [n]; the batch's loss is their mean.
        rewards: log π_θ − log π_ref, without β (as upstream logs them) and without gradient, [n].
        kl: reference point, a scalar without gradient.
    """

    losses: Tensor
    rewards: Tensor
    kl: Tensor


def kto(
    policy: Tensor,
    reference: Tensor,
    desirable: Tensor,
    policy_kl: Tensor,
    reference_kl: Tensor,
    *,
    beta: float,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
    weight: Tensor | None = None,
) -> ExampleLosses:
    """λ_D(1 − σ(β(r − KL))) for desirable examples, λ_U(1 − σ(β(KL − r))) for the others (equations 7 and 8).

    KL is estimated from prompts with completions of other prompts: the sum of their log-ratios divided by the number
    of log-ratios that are not exactly 0, and at least 0.

    Args:
        policy: log π_θ(y|x), summed over tokens, [n]: the whole batch of all processes.
        reference: log π_ref(y|x), [n].
        desirable: whether y is a good completion, bool, [n].
        policy_kl: log π_θ of mismatched pairs (prompt i with the completion of example i + 1, cyclic), [k].
        reference_kl: log π_ref of the same pairs, [k].
        beta: strength of the regularisation towards the reference, > 0.
        desirable_weight: λ_D, > 0.
        undesirable_weight: λ_U, > 0.
        weight: weight of every example, ≥ 0, [n]; None is 1.

    Returns:
        Losses and rewards, at least float32.

    Raises:
        ValueError: a setting is not positive, or the shapes differ.

    Source:
        ContextualAI/HALOs, ``KTOTrainer.loss``.

    Example:
        >>> zeros = torch.zeros(2)
        >>> kto(zeros, zeros, torch.tensor([True, False]), zeros, zeros, beta=0.1).losses
        tensor([0.5000, 0.5000])
    """
    for name, value in (("beta", beta), ("desirable_weight", desirable_weight)):
        positive(name, value)
    positive("undesirable_weight", undesirable_weight)
    same_shape(policy, reference, desirable)
    same_shape(policy_kl, reference_kl)
    ratios = (wide(policy_kl) - wide(reference_kl)).detach()
    kl = (ratios.sum() / (ratios != 0).sum().clamp(min=1)).clamp(min=0)
    rewards = wide(policy) - wide(reference)
    losses = torch.where(
        desirable,
        desirable_weight * torch.sigmoid(-beta * (rewards - kl)),
        undesirable_weight * torch.sigmoid(-beta * (kl - rewards)),
    )
    return ExampleLosses(weighted(losses, weight), rewards.detach(), kl)


def compute(batch: Batch, settings: KTOSettings, memory: Memory) -> Computed:
    """See ``Objective.compute``: the examples are all chosen, then all rejected completions."""
    real = batch.real.repeat(2)

    def chosen_then_rejected(columns: Tensor) -> Tensor:
        return columns.T.reshape(-1)

    losses, rewards, kl = kto(
        chosen_then_rejected(batch.policy[:, :2]),
        chosen_then_rejected(batch.reference[:, :2]),
        torch.arange(len(real), device=real.device) < len(real) // 2,
        chosen_then_rejected(batch.policy[:, 2:])[real],
        chosen_then_rejected(batch.reference[:, 2:])[real],
        beta=memory.beta,
        desirable_weight=settings.desirable_weight,
        undesirable_weight=settings.undesirable_weight,
        weight=batch.weight.repeat(2),
    )
    chosen, rejected = (memory.beta * rewards).chunk(2)
    # The mean over examples equals the mean over pairs of the mean of their two examples.
    return Computed(losses.view(2, -1).mean(0), chosen, rejected, {"kl": kl.item()})


OBJECTIVE = Objective(compute)
