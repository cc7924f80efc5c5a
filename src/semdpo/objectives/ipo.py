"""Identity preference optimisation (Azar et al. 2023, arXiv 2310.12036): a squared loss towards a fixed gap."""

from __future__ import annotations

from torch import Tensor

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
from semdpo.recipe.objectives import IPOSettings


def ipo(
    policy_chosen_mean: Tensor,
    policy_rejected_mean: Tensor,
    reference_chosen_mean: Tensor,
    reference_rejected_mean: Tensor,
    *,
    beta: float,
    weight: Tensor | None = None,
) -> PairLosses:
    """(h − 1/(2τ))², h = (log π_θ − log π_ref)(y_w|x) − (log π_θ − log π_ref)(y_l|x), with τ = β (equation 17).

    The log-probabilities are means over tokens. The paper does not specify this, but with sums the loss depends on the
    texts' lengths; its authors confirmed to the authors of TRL that they used the mean.

    Args:
        policy_chosen_mean: log π_θ(y_w|x) as the mean over tokens, [n].
        policy_rejected_mean: log π_θ(y_l|x), likewise, [n].
        reference_chosen_mean: log π_ref(y_w|x), likewise, [n].
        reference_rejected_mean: log π_ref(y_l|x), likewise, [n].
        beta: the paper's τ, strength of the regularisation towards the reference, > 0.
        weight: weight of every pair, ≥ 0, [n]; None is 1.

    Returns:
        Losses, and rewards β(log π_θ − log π_ref) per token, at least float32.

    Raises:
        ValueError: beta is not positive, the shapes differ, or a weight is negative or not finite.

    Source:
        huggingface/trl, ``DPOTrainer`` with ``loss_type="ipo"``, since version 0.9 per token.

    Example:
        >>> zeros = torch.zeros(2)
        >>> ipo(torch.tensor([0.0, 5.0]), zeros, zeros, zeros, beta=0.1).losses
        tensor([25.,  0.])
    """
    positive("beta", beta)
    chosen, rejected = log_ratio_gap(
        policy_chosen_mean, policy_rejected_mean, reference_chosen_mean, reference_rejected_mean
    )
    losses = (chosen - rejected - 1 / (2 * beta)).square()
    return PairLosses(weighted(losses, weight), beta * chosen.detach(), beta * rejected.detach())


def compute(batch: Batch, _settings: IPOSettings, memory: Memory) -> Computed:
    """See ``Objective.compute``."""
    policy, reference = batch.policy / batch.lengths, batch.reference / batch.lengths
    return of_pairs(ipo(*policy.unbind(1), *reference.unbind(1), beta=memory.beta, weight=batch.weight))


def start(beta: float) -> Start:
    """See ``Objective.start``: h is 0, and a change of h by 1 nat changes the loss by at most 1/β + 1."""
    return Start(loss=1 / (4 * beta**2), slope=1 / beta + 1)


OBJECTIVE = Objective(compute, start=start)
