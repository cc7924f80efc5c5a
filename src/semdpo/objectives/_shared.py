"""What all objectives share: the form of a result, precision, the checks of their inputs."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class PairLosses(NamedTuple):
    """What an objective says of n pairs.

    Attributes:
        losses: one a pair, with weights applied, [n]; a batch's loss is their sum over n.
        chosen_rewards: implicit reward of y_w, without gradient, [n].
        rejected_rewards: the same of y_l, [n].
    """

    losses: Tensor
    chosen_rewards: Tensor
    rejected_rewards: Tensor


def wide(values: Tensor) -> Tensor:
    """At least float32: sums of log-probabilities near −900 lose whole units in half precision."""
    return values if values.element_size() > 4 else values.float()


def positive(name: str, value: float) -> None:
    """Refuses a setting that is not a number above 0.

    Raises:
        ValueError: with its name.
    """
    if not 0 < value < float("inf"):
        raise ValueError(f"{name} must be positive, not {value}")


def same_shape(*tensors: Tensor) -> None:
    """Refuses log-probabilities that do not belong together.

    Raises:
        ValueError: they are not [n] tensors of one length.
    """
    shapes = {tuple(each.shape) for each in tensors}
    if len(shapes) > 1 or tensors[0].ndim != 1:
        raise ValueError(f"log-probabilities must be [n] tensors of one length, not {sorted(shapes)}")


def weighted(losses: Tensor, weight: Tensor | None) -> Tensor:
    """Losses times the data's own weights; a weight of 1 changes no bit.

    Raises:
        ValueError: the weights have another shape, or one is negative or not finite.
    """
    if weight is None:
        return losses
    if weight.shape != losses.shape:
        raise ValueError(f"weights must be of shape {tuple(losses.shape)}, not {tuple(weight.shape)}")
    if not bool(((weight >= 0) & weight.isfinite()).all()):
        raise ValueError("weights must be finite numbers ≥ 0")
    return weight.to(losses.dtype) * losses


def log_ratio_gap(
    policy_chosen: Tensor, policy_rejected: Tensor, reference_chosen: Tensor, reference_rejected: Tensor
) -> tuple[Tensor, Tensor]:
    """log π_θ − log π_ref of y_w and of y_l, each [n], at least float32.

    Raises:
        ValueError: shapes differ.
    """
    same_shape(policy_chosen, policy_rejected, reference_chosen, reference_rejected)
    return wide(policy_chosen) - wide(reference_chosen), wide(policy_rejected) - wide(reference_rejected)
