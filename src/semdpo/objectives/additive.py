"""The additive baseline (arXiv 2507.20133, appendix D): DPO on the sum of preference and fidelity scores."""

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

    The paper does not define what the coefficient normalises or how ties are handled. Here the coefficient is λ times
    (standard deviation of the preference scores / standard deviation of the fidelity scores) over the whole data set,
    so that λ = 1 weights both equally (see ``coefficient_of``); a tie has loss 0.

    Args:
        policy_first: log π_θ of the rewrite with the higher preference score, summed over tokens, [n].
        policy_second: log π_θ of the other rewrite, [n].
        reference_first: log π_ref of the first rewrite, [n].
        reference_second: log π_ref of the second rewrite, [n].
        beta: strength of the regularisation towards the reference, > 0.
        preference: preference score of the first minus that of the second, [n].
        fidelity: text-fidelity score of the first minus that of the second, [n].
        coefficient: factor of the fidelity difference, ≥ 0; 0 is DPO.
        weight: weight of every pair, ≥ 0, [n]; None is 1.

    Returns:
        Losses, and the rewards of the chosen and rejected rewrites after this decision, each [n].

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
    keep_order = total > 0
    result = dpo(
        policy_first.where(keep_order, policy_second),
        policy_second.where(keep_order, policy_first),
        reference_first.where(keep_order, reference_second),
        reference_second.where(keep_order, reference_first),
        beta=beta,
        weight=weight,
    )
    return result._replace(losses=result.losses * (total != 0))


def coefficient_of(preferences: Tensor, fidelities: Tensor, strength: float) -> float:
    """λ·(standard deviation of the preference scores / standard deviation of the fidelity scores).

    Args:
        preferences: preference scores of all rewrites of the data set, [m].
        fidelities: fidelity scores of the same rewrites, [m].
        strength: λ, ≥ 0.

    Raises:
        ValueError: the fidelity scores are all equal.
    """
    spread = float(wide(fidelities).std())
    if not spread > 0:
        raise ValueError("the fidelity scores are all equal, so they have no effect; use another fidelity scorer")
    return strength * float(wide(preferences).std()) / spread


def constants(settings: AdditiveSettings, data: Data) -> Constants:
    """See ``Objective.constants``: the coefficient, computed from all scores of the data set."""
    preferences, fidelities = (torch.tensor(scores).flatten() for scores in (data.scores, data.fidelities))
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
