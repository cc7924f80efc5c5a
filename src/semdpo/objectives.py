"""What preference training minimises: pure functions of summed log-probabilities, one loss a pair, unreduced."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

IGNORED = -100  # the label of a token that is not learnt: prompt and padding


class PairLosses(NamedTuple):
    """What an objective says of n pairs.

    Attributes:
        losses: one a pair, [n]; the loss of a batch is their sum over n.
        chosen_rewards: β(log π_θ(y_w|x) − log π_ref(y_w|x)), without gradient, [n].
        rejected_rewards: the same of y_l, [n].
    """

    losses: Tensor
    chosen_rewards: Tensor
    rejected_rewards: Tensor


def sequence_logps(logits: Tensor, labels: Tensor) -> Tensor:
    """log π(y|x), summed over the tokens of y.

    Args:
        logits: [n, length, vocabulary].
        labels: the sequence's own tokens, with −100 where a token is not counted, [n, length]; the logits at
            position t are judged by the label at t + 1.

    Returns:
        [n], at least float32.
    """
    targets = labels[:, 1:]
    counted = targets != IGNORED
    rows = _wide(logits[:, :-1])
    picked = rows.gather(-1, targets.masked_fill(~counted, 0).unsqueeze(-1)).squeeze(-1)
    return (picked - rows.logsumexp(-1)).masked_fill(~counted, 0.0).sum(-1)


def dpo(
    policy_chosen: Tensor,
    policy_rejected: Tensor,
    reference_chosen: Tensor,
    reference_rejected: Tensor,
    beta: float,
) -> PairLosses:
    """Direct preference optimisation: ℓ = −log σ(Δ), Δ = β[(log π_θ − log π_ref)(y_w) − (log π_θ − log π_ref)(y_l)].

    Source: Rafailov et al. 2023, arXiv 2305.18290, equation 7.

    Args:
        policy_chosen: log π_θ(y_w|x), [n].
        policy_rejected: log π_θ(y_l|x), [n].
        reference_chosen: log π_ref(y_w|x), [n].
        reference_rejected: log π_ref(y_l|x), [n].
        beta: strength of the tie to the reference, > 0.

    Returns:
        Losses and rewards, at least float32.

    Raises:
        ValueError: beta is not positive, or shapes differ.
    """
    if not beta > 0:
        raise ValueError(f"beta must be positive, not {beta}")
    shapes = {tuple(each.shape) for each in (policy_chosen, policy_rejected, reference_chosen, reference_rejected)}
    if len(shapes) > 1 or policy_chosen.ndim != 1:
        raise ValueError(f"log-probabilities must be four [n] tensors of one length, not {sorted(shapes)}")
    chosen = beta * (_wide(policy_chosen) - _wide(reference_chosen))
    rejected = beta * (_wide(policy_rejected) - _wide(reference_rejected))
    return PairLosses(-F.logsigmoid(chosen - rejected), chosen.detach(), rejected.detach())


def sem_dpo(
    policy_chosen: Tensor,
    policy_rejected: Tensor,
    reference_chosen: Tensor,
    reference_rejected: Tensor,
    beta: float,
    distance: Tensor,
    alpha: float,
) -> PairLosses:
    """Sem-DPO: W·ℓ(Δ) with W = exp(−α·d(x, y_w)); DPO exactly, to the bit, where α = 0.

    Source: arXiv 2507.20133, equations 3 and 4 (whose print lacks the second logarithm of Δ). The weights enter
    after the per-pair loss, and the batch's loss divides by the number of pairs, not by the sum of the weights.

    Args:
        policy_chosen: log π_θ(y_w|x), [n].
        policy_rejected: log π_θ(y_l|x), [n].
        reference_chosen: log π_ref(y_w|x), [n].
        reference_rejected: log π_ref(y_l|x), [n].
        beta: strength of the tie to the reference, > 0.
        distance: cosine distance of prompt and chosen rewrite, in [0, 2], [n].
        alpha: ≥ 0; the paper uses 4.

    Returns:
        Weighted losses, and rewards as in DPO.

    Raises:
        ValueError: as in ``dpo``, or alpha is negative, or a distance is outside [0, 2] or of another shape.
    """
    plain = dpo(policy_chosen, policy_rejected, reference_chosen, reference_rejected, beta)
    weights = weight(distance, alpha).to(plain.losses.dtype)
    if weights.shape != plain.losses.shape:
        raise ValueError(f"distances must be of shape {tuple(plain.losses.shape)}, not {tuple(weights.shape)}")
    return plain._replace(losses=weights * plain.losses)


def weight(distance: Tensor, alpha: float) -> Tensor:
    """W = exp(−α·d), the tensor twin of ``semantics.semantic_weight``.

    Raises:
        ValueError: alpha is negative or not finite, or a distance is outside [0, 2] or not a number.
    """
    if not 0 <= alpha < float("inf"):
        raise ValueError(f"alpha must be a finite number ≥ 0, not {alpha}")
    wide = _wide(distance)
    # Storage in float32 may leave a distance a hair below 0.
    if not bool(((wide >= -1e-6) & (wide <= 2 + 1e-6)).all()):
        raise ValueError("cosine distances must lie in [0, 2]; recompute them with `semdpo weigh`")
    return torch.exp(-alpha * wide.clamp(0.0, 2.0))


def _wide(values: Tensor) -> Tensor:
    """At least float32: sums of log-probabilities near −900 lose whole units in half precision."""
    return values if values.dtype == torch.float64 else values.float()
