"""The additive baseline (arXiv 2507.20133, appendix D): fidelity is added to the reward, then DPO."""

from __future__ import annotations

import torch
from torch import Tensor

from semdpo.objectives.base import (
    Batch,
    Computed,
    Constants,
    Data,
    Memory,
    Objective,
    PairLosses,
    of_pairs,
    same_shape,
    wide,
)
from semdpo.objectives.dpo import dpo
from semdpo.recipe.objectives import AdditiveSettings


def additive(
    policy_first: Tensor,
    policy_second: Tensor,
    reference_first: Tensor,
    reference_second: Tensor,
    *,
    beta: float,
    preference: Tensor,
    fidelity: Tensor,
    coefficient: float,
    weight: Tensor | None = None,
) -> PairLosses:
    """DPO, where the sign of (preference + coefficient·fidelity) decides which rewrite is the chosen one.

    The paper leaves open what the coefficient normalises and what a tie means. The choice made here: the coefficient
    is λ times (deviation of the preference scores / deviation of the fidelity scores) over the whole data set, so
    that λ = 1 gives both the same say (see ``coefficient_of``); a pair whose sums are equal teaches nothing.

    Args:
        policy_first: log π_θ of the rewrite that preference alone chose, summed over tokens, [n].
        policy_second: the same of the other rewrite, [n].
        reference_first: log π_ref of the first, [n].
        reference_second: log π_ref of the second, [n].
        beta: strength of the tie to the reference, > 0.
        preference: preference score of the first minus that of the second, [n].
        fidelity: text-fidelity score of the first minus that of the second, [n].
        coefficient: ≥ 0; 0 is DPO.
        weight: of each pair, ≥ 0, [n]; None is 1.

    Returns:
        Losses, and the rewards of the rewrites that became chosen and rejected.

    Raises:
        ValueError: as in ``dpo``, or the coefficient is negative.

    Example:
        >>> zeros, one = torch.zeros(1), torch.ones(1)
        >>> additive(20 * one, zeros, zeros, zeros, beta=0.1, preference=one, fidelity=-one, coefficient=2.0).losses
        tensor([2.1269])
    """
    if not 0 <= coefficient < float("inf"):
        raise ValueError(f"coefficient must be a finite number ≥ 0, not {coefficient}")
    same_shape(policy_first, preference, fidelity)
    total = wide(preference) + coefficient * wide(fidelity)
    stays = total > 0
    found = dpo(
        policy_first.where(stays, policy_second),
        policy_second.where(stays, policy_first),
        reference_first.where(stays, reference_second),
        reference_second.where(stays, reference_first),
        beta=beta,
        weight=weight,
    )
    return found._replace(losses=found.losses * (total != 0))


def coefficient_of(preferences: Tensor, fidelities: Tensor, strength: float) -> float:
    """λ·(deviation of the preference scores / deviation of the fidelity scores).

    Args:
        preferences: scores of all rewrites of the data set, [m].
        fidelities: theirs, [m].
        strength: λ, ≥ 0.

    Raises:
        ValueError: the fidelity scores are all equal, so that nothing can be added.
    """
    spread = float(wide(fidelities).std())
    if not spread > 0:
        raise ValueError("the fidelity scores are all equal, so that they decide nothing; use another fidelity scorer")
    return strength * float(wide(preferences).std()) / spread


def constants(settings: AdditiveSettings, data: Data) -> Constants:
    """The coefficient, from all scores of the data set."""
    preferences, fidelities = (torch.tensor(each).flatten() for each in (data.scores, data.fidelities))
    return {"coefficient": coefficient_of(preferences, fidelities, settings.strength)}


def compute(batch: Batch, _settings: AdditiveSettings, memory: Memory) -> Computed:
    """See ``Objective.compute``."""
    return of_pairs(
        additive(
            *batch.pairs,
            beta=memory.beta,
            preference=batch.preference,
            fidelity=batch.fidelity,
            coefficient=memory.constants["coefficient"],
            weight=batch.weight,
        )
    )


OBJECTIVE = Objective(compute, constants)
