"""From log-probabilities and an objective's settings to one loss a pair: where data and formulas meet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from torch import Tensor

from semdpo import objectives
from semdpo.analysis.semantics import automatic_alpha
from semdpo.errors import DataError
from semdpo.objectives import GapState, PairLosses
from semdpo.recipe.objectives import (
    AdditiveObjective,
    BetaDPOObjective,
    DPOObjective,
    KTOObjective,
    ObjectiveConfig,
    ORPOObjective,
    SemDPOObjective,
    SFTObjective,
)
from semdpo.training.batches import Example, MicroBatch

START = GapState()  # of β-DPO, before the first batch


@dataclass(frozen=True, slots=True)
class Judged:
    """What an objective says of n pairs.

    Attributes:
        losses: weights applied, [n].
        chosen_rewards: [n].
        rejected_rewards: [n].
        more: what this objective logs beside what all do.
        state: β-DPO's, after this batch.
    """

    losses: Tensor
    chosen_rewards: Tensor
    rejected_rewards: Tensor
    more: dict[str, float] = field(default_factory=dict)
    state: GapState = START


@dataclass(frozen=True, slots=True)
class Memory:
    """What objectives keep between batches, or know of the whole data set.

    Attributes:
        coefficient: of the additive baseline.
        state: of β-DPO.
        generator: of β-DPO's draws.
        first: no update has moved the policy yet, so that policy and reference are one model.
    """

    coefficient: float = 0.0
    state: GapState = START
    generator: torch.Generator | None = None
    first: bool = False


class _Four(NamedTuple):
    """log π of chosen and rejected, under the policy and under the reference; each [n]."""

    policy_chosen: Tensor
    policy_rejected: Tensor
    reference_chosen: Tensor
    reference_rejected: Tensor


def settled(objective: SemDPOObjective, distances: Sequence[float]) -> SemDPOObjective:
    """The objective with a number for ``alpha``, where the data were to choose it.

    Args:
        objective: with a number, or ``auto``.
        distances: of all pairs, [n].

    Raises:
        DataError: no alpha does what is asked.
    """
    if objective.alpha != "auto":
        return objective
    try:
        return objective.model_copy(update={"alpha": automatic_alpha(distances, objective.kept_share)})
    except ValueError as error:
        raise DataError(f"alpha: auto: {error}") from error


def weights_of(examples: Sequence[Example], objective: ObjectiveConfig) -> Tensor:
    """Each pair's weight: the data's own, times W where the objective is Sem-DPO, [n] float64."""
    own = torch.tensor([each.weight for each in examples], dtype=torch.float64)
    if isinstance(objective, SemDPOObjective):
        distances = torch.tensor([each.distance for each in examples], dtype=torch.float64)
        return own * objectives.semantic_weight(distances, float(objective.alpha))
    return own


def judge(objective: ObjectiveConfig, beta: float, logps: Tensor, batch: MicroBatch, memory: Memory) -> Judged:
    """The losses of a micro-batch.

    Args:
        objective: which, and its settings.
        beta: strength of the tie to the reference.
        logps: log π_θ of each group's completions, [n, k].
        batch: the pairs.
        memory: from the batches before.
    """
    weight = _column(batch, "weight", logps)
    nll = objectives.sft(logps[:, 0], mean_tokens=batch.tokens / batch.rows, weight=weight)
    if isinstance(objective, SFTObjective):
        zeros = torch.zeros_like(nll)
        return Judged(nll, zeros, zeros)
    reference = reference_of(batch, logps)
    four = _Four(logps[:, 0], logps[:, 1], reference[:, 0], reference[:, 1])
    match objective:
        case DPOObjective():
            found = _pairs(objectives.dpo(*four, beta=beta, weight=weight))
        case SemDPOObjective(alpha=alpha):
            distance = _column(batch, "distance", logps)
            found = _pairs(objectives.sem_dpo(*four, beta=beta, distance=distance, alpha=float(alpha), weight=weight))
        case AdditiveObjective():
            found = _additive(four, beta, batch, memory.coefficient, weight)
        case ORPOObjective(odds_weight=odds_weight):
            found = _orpo(four, batch, odds_weight, weight)
        case BetaDPOObjective():
            found = _beta_dpo(objective, beta, four, batch, memory, weight)
        case KTOObjective():
            found = _kto(objective, beta, logps, reference, batch, weight)
    return replace(found, losses=found.losses + objective.nll_coef * nll) if objective.nll_coef else found


def reference_of(batch: MicroBatch, logps: Tensor) -> Tensor:
    """log π_ref of each group's completions, [n, k]; zeros where the objective has no reference.

    Args:
        batch: the pairs.
        logps: log π_θ, [n, k]; gives type and device.
    """
    if not batch.reference[0]:
        return torch.zeros_like(logps)
    return torch.tensor(batch.reference, dtype=logps.dtype, device=logps.device)


def _column(batch: MicroBatch, name: str, like: Tensor) -> Tensor:
    return torch.tensor([getattr(each, name) for each in batch.examples], dtype=like.dtype, device=like.device)


def _pairs(found: PairLosses) -> Judged:
    return Judged(found.losses, found.chosen_rewards, found.rejected_rewards)


def _additive(four: _Four, beta: float, batch: MicroBatch, coefficient: float, weight: Tensor) -> Judged:
    preference, fidelity = (_column(batch, name, weight) for name in ("preference", "fidelity"))
    return _pairs(
        objectives.additive(
            *four, beta=beta, preference=preference, fidelity=fidelity, coefficient=coefficient, weight=weight
        )
    )


def _orpo(four: _Four, batch: MicroBatch, odds_weight: float, weight: Tensor) -> Judged:
    counts = torch.tensor([[len(c) for c in each.group.completions] for each in batch.examples], device=weight.device)
    nll = objectives.sft(four.policy_chosen, mean_tokens=batch.tokens / batch.rows)
    chosen, rejected = four.policy_chosen / counts[:, 0], four.policy_rejected / counts[:, 1]
    return _pairs(objectives.orpo(chosen, rejected, nll=nll, odds_weight=odds_weight, weight=weight))


def _beta_dpo(
    objective: BetaDPOObjective, beta: float, four: _Four, batch: MicroBatch, memory: Memory, weight: Tensor
) -> Judged:
    real = torch.tensor(batch.real, device=weight.device).nonzero().squeeze(-1)  # what fills up must not be counted
    if memory.first:  # whatever the gaps are now is rounding, which must not decide who is learnt from
        chosen, rejected = four.reference_chosen, four.reference_rejected
        four = _Four(
            chosen + (four.policy_chosen - four.policy_chosen.detach()),
            rejected + (four.policy_rejected - four.policy_rejected.detach()),
            chosen,
            rejected,
        )
    found = objectives.beta_dpo(
        *(each[real] for each in four),
        beta=beta,
        sensitivity=objective.sensitivity,
        share=objective.share,
        state=memory.state,
        generator=memory.generator,
        weight=weight[real],
    )
    # The mean over the kept, in a sum over all that is divided by all.
    kept = torch.zeros_like(found.losses)
    kept[found.kept] = len(real) / len(found.kept)

    def spread(values: Tensor) -> Tensor:
        return torch.zeros(len(batch.real), dtype=values.dtype, device=values.device).index_copy(0, real, values)

    more = {"beta": found.beta, "kept_share": len(found.kept) / len(real)}
    more |= {"gap_mean": found.state.mean, "gap_std": found.state.std}
    return Judged(
        spread(found.losses * kept), spread(found.chosen_rewards), spread(found.rejected_rewards), more, found.state
    )


def _kto(
    objective: KTOObjective, beta: float, logps: Tensor, reference: Tensor, batch: MicroBatch, weight: Tensor
) -> Judged:
    real = torch.tensor(batch.real, device=weight.device).repeat(2)

    def chosen_then_rejected(columns: Tensor) -> Tensor:
        return columns.T.reshape(-1)

    losses, rewards, kl = objectives.kto(
        chosen_then_rejected(logps[:, :2]),
        chosen_then_rejected(reference[:, :2]),
        torch.arange(len(real), device=weight.device) < len(real) // 2,
        chosen_then_rejected(logps[:, 2:])[real],
        chosen_then_rejected(reference[:, 2:])[real],
        beta=beta,
        desirable_weight=objective.desirable_weight,
        undesirable_weight=objective.undesirable_weight,
        weight=weight.repeat(2),
    )
    chosen, rejected = (beta * rewards).chunk(2)
    # The mean over examples is the mean over pairs of their two examples' mean.
    return Judged(losses.view(2, -1).mean(0), chosen, rejected, {"kl": kl.item()})
