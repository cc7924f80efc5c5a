"""β-DPO (Wu et al. 2024, arXiv 2407.08639): β adapts to each batch, and outlier pairs are left out."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from semdpo.objectives.base import Batch, Computed, Memory, Objective, log_ratio_gap, positive, weighted
from semdpo.recipe.objectives import BetaDPOSettings

MOMENTUM = 0.9
LOWEST_BETA = 1e-3


class GapState(NamedTuple):
    """Running mean and standard deviation of the gap (log π_θ − log π_ref)(y_w) − (log π_θ − log π_ref)(y_l)."""

    mean: float = 0.0
    std: float = 0.0


class BetaDPOLosses(NamedTuple):
    """The result of β-DPO for n pairs.

    Attributes:
        losses: loss of every pair with weights applied, [n]; the batch's loss is the mean over the ``kept`` pairs.
        chosen_rewards: implicit rewards of y_w with the base β, without gradient, [n].
        rejected_rewards: implicit rewards of y_l with the base β, without gradient, [n].
        kept: sorted indices of the pairs that are trained on.
        beta: the β of the whole batch.
        state: state after this batch.
    """

    losses: Tensor
    chosen_rewards: Tensor
    rejected_rewards: Tensor
    kept: Tensor
    beta: float
    state: GapState


def beta_dpo(
    policy_chosen: Tensor,
    policy_rejected: Tensor,
    reference_chosen: Tensor,
    reference_rejected: Tensor,
    *,
    beta: float,
    sensitivity: float,
    share: float,
    state: GapState,
    generator: torch.Generator | None = None,
    kept: Tensor | None = None,
    weight: Tensor | None = None,
) -> BetaDPOLosses:
    """−log σ(β_batch·g), β_batch = max(β(1 + a(mean of g over the kept − m)), 10⁻³), g the gap without β.

    First the state is updated, m ← 0.9 m + 0.1 mean(g), s ← 0.9 s + 0.1 std(g) (equations 7 to 9, unbiased deviation);
    then ``share``·n pairs are sampled without replacement with weights exp(−½((g − m)/s)²) (equation 10). Where the
    official code fails (policy equal to reference at the first step, one pair, no pair to sample, all weights
    zero), all pairs are kept and β is unchanged.

    Args:
        policy_chosen: log π_θ(y_w|x), summed over tokens, [n]: the whole batch, of all processes.
        policy_rejected: log π_θ(y_l|x), [n].
        reference_chosen: log π_ref(y_w|x), [n].
        reference_rejected: log π_ref(y_l|x), [n].
        beta: base β, > 0.
        sensitivity: a, > 0; upstream uses 0.6.
        share: ρ, the share of pairs to keep, in (0, 1]; upstream uses 0.8.
        state: state before this batch; evaluation must not change it.
        generator: random generator that samples the kept pairs.
        kept: indices of the kept pairs, where they were sampled elsewhere.
        weight: weight of every pair, ≥ 0, [n]; None is 1.

    Returns:
        Losses of all pairs, the indices of the kept pairs, and the new state.

    Raises:
        ValueError: a setting is out of range, the shapes differ, or a weight is negative or not finite.

    Source:
        junkangwu/beta-DPO, ``get_batch_metrics`` and ``preference_loss``.

    Example:
        >>> zeros = torch.zeros(2)
        >>> four = torch.tensor([1.0, 3.0]), zeros, zeros, zeros
        >>> result = beta_dpo(*four, beta=0.1, sensitivity=0.6, share=1.0, state=GapState())
        >>> round(result.state.mean, 3), round(result.state.std, 3)
        (0.2, 0.141)
    """
    positive("beta", beta)
    positive("sensitivity", sensitivity)
    if not 0 < share <= 1:
        raise ValueError(f"share must lie in (0, 1], not {share}")
    chosen, rejected = log_ratio_gap(policy_chosen, policy_rejected, reference_chosen, reference_rejected)
    gap = chosen - rejected
    fixed = gap.detach()
    everything = torch.arange(len(gap), device=gap.device)
    used = beta
    if len(gap) < 2:
        kept = everything
    else:
        state = GapState(
            MOMENTUM * state.mean + (1 - MOMENTUM) * float(fixed.mean()),
            MOMENTUM * state.std + (1 - MOMENTUM) * float(fixed.std()),
        )
        kept = _sample(fixed, state, share, generator) if kept is None else kept
        if kept is None:
            kept = everything
        else:
            used = max(beta * (1 + sensitivity * (float(fixed[kept].mean()) - state.mean)), LOWEST_BETA)
    losses = weighted(-F.logsigmoid(used * gap), weight)
    return BetaDPOLosses(losses, beta * chosen.detach(), beta * rejected.detach(), kept, used, state)


def _sample(gap: Tensor, state: GapState, share: float, generator: torch.Generator | None) -> Tensor | None:
    """Indices of the pairs to keep; None where sampling is not possible."""
    count = int(len(gap) * share)
    if count == 0 or state.std == 0:
        return None
    chances = torch.exp(-0.5 * ((gap.double() - state.mean) / state.std) ** 2).cpu()
    if int((chances > 0).sum()) < count:
        return None
    return torch.multinomial(chances, count, replacement=False, generator=generator).sort().values.to(gap.device)


def compute(batch: Batch, settings: BetaDPOSettings, memory: Memory) -> Computed:
    """See ``Objective.compute``; padding rows are ignored."""
    real = batch.real.nonzero().squeeze(-1)
    four = batch.pairs
    if memory.first:  # the gaps are rounding errors now, which must not decide which pairs are kept
        policy, reference = four[:2], four[2:]
        unmoved = (r + (p - p.detach()) for p, r in zip(policy, reference, strict=True))
        four = (next(unmoved), next(unmoved), *reference)
    result = beta_dpo(
        *(values[real] for values in four),
        beta=memory.beta,
        sensitivity=settings.sensitivity,
        share=settings.share,
        state=GapState(memory.state.get("gap_mean", 0.0), memory.state.get("gap_std", 0.0)),
        generator=memory.generator,
        weight=batch.weight[real],
    )
    # The caller divides the sum over all pairs by their number; this factor makes that the mean over the kept pairs.
    factor = torch.zeros_like(result.losses)
    factor[result.kept] = len(real) / len(result.kept)

    def spread(values: Tensor) -> Tensor:
        return torch.zeros(len(batch.real), dtype=values.dtype, device=values.device).index_copy(0, real, values)

    state = {"gap_mean": result.state.mean, "gap_std": result.state.std}
    return Computed(
        spread(result.losses * factor),
        spread(result.chosen_rewards),
        spread(result.rejected_rewards),
        {"beta": result.beta, "kept_share": len(result.kept) / len(real)} | state,
        state,
    )


OBJECTIVE = Objective(compute, state_names=("gap_mean", "gap_std"))
