"""β-DPO (Wu et al. 2024, arXiv 2407.08639): β follows the batch's quality, and outliers are left out."""

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
    """What β-DPO says of n pairs.

    Attributes:
        losses: one a pair, weights applied, of all pairs, [n]; the batch's loss is the mean over those ``kept``.
        chosen_rewards: with the base β, without gradient, [n].
        rejected_rewards: the same of y_l, [n].
        kept: indices of the pairs that are learnt from, sorted.
        beta: that was used for the whole batch.
        state: after this batch.
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

    First the state moves, m ← 0.9 m + 0.1 mean(g), s ← 0.9 s + 0.1 std(g) (equations 7 to 9, unbiased deviation);
    then ``share``·n pairs are drawn without replacement with weights exp(−½((g − m)/s)²) (equation 10). Where the
    official code fails (policy equal to reference at the first step, one pair, nothing to draw, all weights
    zero), all pairs are kept and β stays as it is.

    Args:
        policy_chosen: log π_θ(y_w|x), summed over tokens, [n]: the whole batch, of all processes.
        policy_rejected: log π_θ(y_l|x), [n].
        reference_chosen: log π_ref(y_w|x), [n].
        reference_rejected: log π_ref(y_l|x), [n].
        beta: base strength, > 0.
        sensitivity: a, > 0; upstream uses 0.6.
        share: ρ in (0, 1]; upstream uses 0.8.
        state: before this batch; evaluation must not move it.
        generator: draws the kept pairs.
        kept: indices, when they were drawn elsewhere.
        weight: of each pair, ≥ 0, [n]; None is 1.

    Returns:
        Losses of all pairs, which ones to learn from, and the new state.

    Raises:
        ValueError: a setting is out of range, shapes differ, or the weights do not fit.

    Source:
        junkangwu/beta-DPO, ``get_batch_metrics`` and ``preference_loss``.

    Example:
        >>> zeros = torch.zeros(2)
        >>> four = torch.tensor([1.0, 3.0]), zeros, zeros, zeros
        >>> found = beta_dpo(*four, beta=0.1, sensitivity=0.6, share=1.0, state=GapState())
        >>> round(found.state.mean, 3), round(found.state.std, 3)
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
        kept = _draw(fixed, state, share, generator) if kept is None else kept
        if kept is None:
            kept = everything
        else:
            used = max(beta * (1 + sensitivity * (float(fixed[kept].mean()) - state.mean)), LOWEST_BETA)
    losses = weighted(-F.logsigmoid(used * gap), weight)
    return BetaDPOLosses(losses, beta * chosen.detach(), beta * rejected.detach(), kept, used, state)


def _draw(gap: Tensor, state: GapState, share: float, generator: torch.Generator | None) -> Tensor | None:
    """Indices to keep; None where the draw has no meaning."""
    wanted = int(len(gap) * share)
    if wanted == 0 or state.std == 0:
        return None
    chances = torch.exp(-0.5 * ((gap.double() - state.mean) / state.std) ** 2).cpu()
    if int((chances > 0).sum()) < wanted:
        return None
    return torch.multinomial(chances, wanted, replacement=False, generator=generator).sort().values.to(gap.device)


def compute(batch: Batch, settings: BetaDPOSettings, memory: Memory) -> Computed:
    """See ``Objective.compute``; rows that only fill up are counted nowhere."""
    real = batch.real.nonzero().squeeze(-1)
    four = batch.pairs
    if memory.first:  # whatever the gaps are now is rounding, which must not decide who is learnt from
        policy, reference = four[:2], four[2:]
        unmoved = (r + (p - p.detach()) for p, r in zip(policy, reference, strict=True))
        four = (next(unmoved), next(unmoved), *reference)
    found = beta_dpo(
        *(each[real] for each in four),
        beta=memory.beta,
        sensitivity=settings.sensitivity,
        share=settings.share,
        state=GapState(memory.state.get("gap_mean", 0.0), memory.state.get("gap_std", 0.0)),
        generator=memory.generator,
        weight=batch.weight[real],
    )
    # The mean over the kept, in a sum over all that is divided by all.
    kept = torch.zeros_like(found.losses)
    kept[found.kept] = len(real) / len(found.kept)

    def spread(values: Tensor) -> Tensor:
        return torch.zeros(len(batch.real), dtype=values.dtype, device=values.device).index_copy(0, real, values)

    state = {"gap_mean": found.state.mean, "gap_std": found.state.std}
    return Computed(
        spread(found.losses * kept),
        spread(found.chosen_rewards),
        spread(found.rejected_rewards),
        {"beta": found.beta, "kept_share": len(found.kept) / len(real)} | state,
        state,
    )


OBJECTIVE = Objective(compute, state_names=("gap_mean", "gap_std"))
