"""The types that all objectives share: their inputs, their results, and checks of the inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

Constants = Mapping[str, float]  # what an objective computes once from the whole data set
State = Mapping[str, float]  # what an objective keeps from one batch to the next


class PairLosses(NamedTuple):
    """The result of a formula for n pairs.

    Attributes:
        losses: loss of every pair with weights applied, [n]; a batch's loss is their sum divided by n.
        chosen_rewards: implicit rewards of y_w, without gradient, [n].
        rejected_rewards: implicit rewards of y_l, without gradient, [n].
    """

    losses: Tensor
    chosen_rewards: Tensor
    rejected_rewards: Tensor


@dataclass(frozen=True, slots=True)
class Batch:
    """The input of an objective: n pairs of all processes together.

    Attributes:
        policy: log π_θ of every pair's completions, summed over tokens, [n, k]: chosen, rejected, and completions of
            other prompts where the objective needs them; only the chosen in fine-tuning.
        reference: log π_ref of the same completions, [n, k]; zeros where the objective has no reference.
        lengths: tokens of chosen and rejected, [n, k].
        mean_tokens: mean number of tokens of the chosen completions in the whole step.
        weight: the data's own weight of every pair, [n].
        distance: cosine distances between prompt and chosen, [n].
        preference: preference score of the chosen minus that of the rejected, [n].
        fidelity: text-fidelity score of the chosen minus that of the rejected, [n].
        real: whether a row is real, [n]; False for rows that only pad the last process's share.
    """

    policy: Tensor
    reference: Tensor
    lengths: Tensor
    mean_tokens: float
    weight: Tensor
    distance: Tensor
    preference: Tensor
    fidelity: Tensor
    real: Tensor

    @property
    def pairs(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """log π_θ(y_w|x), log π_θ(y_l|x), log π_ref(y_w|x) and log π_ref(y_l|x), each [n]."""
        return self.policy[:, 0], self.policy[:, 1], self.reference[:, 0], self.reference[:, 1]


@dataclass(frozen=True, slots=True)
class Data:
    """The columns of the whole data set from which an objective computes its constants before training.

    Attributes:
        distances: cosine distance between prompt and chosen of every pair.
        scores: preference scores of chosen and rejected of every pair.
        fidelities: text-fidelity scores of chosen and rejected of every pair.
    """

    distances: Sequence[float]
    scores: Sequence[tuple[float, float]] = ()
    fidelities: Sequence[tuple[float, float]] = ()


@dataclass(frozen=True, slots=True)
class Memory:
    """What an objective needs in addition to a batch.

    Attributes:
        beta: strength of the regularisation towards the reference.
        constants: result of ``Objective.constants`` for the whole data set.
        state: state after the previous batch; empty before the first.
        generator: random generator; it depends on the seed and the step only.
        first: whether no update has changed the policy yet, so that policy and reference are the same model.
    """

    beta: float
    constants: Constants = field(default_factory=dict)
    state: State = field(default_factory=dict)
    generator: torch.Generator | None = None
    first: bool = False


@dataclass(frozen=True, slots=True)
class Computed:
    """The result of an objective for a batch of n pairs.

    Attributes:
        losses: loss of every pair with weights applied, [n].
        chosen_rewards: implicit rewards of y_w, [n].
        rejected_rewards: implicit rewards of y_l, [n].
        logged: values that this objective logs in addition to those of all objectives; includes its state.
        state: state after this batch.
    """

    losses: Tensor
    chosen_rewards: Tensor
    rejected_rewards: Tensor
    logged: Mapping[str, float] = field(default_factory=dict)
    state: State = field(default_factory=dict)


def of_pairs(result: PairLosses) -> Computed:
    """The result of a formula as the result of an objective without a state."""
    return Computed(result.losses, result.chosen_rewards, result.rejected_rewards)


def no_constants(_settings: Any, _data: Data) -> Constants:
    """``Objective.constants`` of an objective that needs nothing from the whole data set."""
    return {}


def weight_one(_settings: Any, distance: Tensor, _constants: Constants) -> Tensor:
    """``Objective.pair_weight`` of an objective that does not weight pairs."""
    return torch.ones_like(distance)


class Start(NamedTuple):
    """The known loss before the first update, while policy and reference are the same model.

    Attributes:
        loss: loss of a pair of weight 1.
        slope: largest change of the loss when one log-probability changes by 1 nat.
    """

    loss: float
    slope: float


@dataclass(frozen=True, slots=True)
class Objective:
    """An objective. Its file has its formula and an instance of this class, called ``OBJECTIVE``.

    The class of its settings, which loads without torch, declares its needs: a reference, distances, whole batches.

    Attributes:
        compute: computes the losses of a batch from the settings and the memory.
        constants: computes the constants once from the whole data set; raises ``ValueError`` for unsuitable data.
        pair_weight: computes the objective's own weight of every pair from the distances, [n]; it is reported, and
            summed where a batch's loss is divided by its weights.
        state_names: names of the values in its state; all are logged, so that a resumed training reads them there.
        start: computes the loss of every pair before the first update from β; None where it depends on the texts.
    """

    compute: Callable[[Batch, Any, Memory], Computed]
    constants: Callable[[Any, Data], Constants] = no_constants
    pair_weight: Callable[[Any, Tensor, Constants], Tensor] = weight_one
    state_names: tuple[str, ...] = ()
    start: Callable[[float], Start] | None = None


def wide(values: Tensor) -> Tensor:
    """The values in float32 or wider: in half precision, sums of log-probabilities near −900 lose whole nats."""
    return values if values.element_size() > 4 else values.float()


def positive(name: str, value: float) -> None:
    """Refuses a setting that is not a finite number above 0.

    Args:
        name: name of the setting, for the message.
        value: its value.

    Raises:
        ValueError: the value is not a finite number above 0.
    """
    if not 0 < value < float("inf"):
        raise ValueError(f"{name} must be positive, not {value}")


def same_shape(*tensors: Tensor) -> None:
    """Refuses log-probabilities of different shapes.

    Raises:
        ValueError: the tensors are not all [n] with the same n.
    """
    shapes = {tuple(tensor.shape) for tensor in tensors}
    if len(shapes) > 1 or tensors[0].ndim != 1:
        raise ValueError(f"log-probabilities must be [n] tensors of one length, not {sorted(shapes)}")


def weighted(losses: Tensor, weight: Tensor | None) -> Tensor:
    """Losses times weights; a weight of 1 leaves a loss unchanged to the bit.

    Args:
        losses: loss of every pair, [n].
        weight: weight of every pair, ≥ 0, [n]; None is 1.

    Raises:
        ValueError: the weights have another shape, or a weight is negative or not finite.
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
        ValueError: the shapes differ.
    """
    same_shape(policy_chosen, policy_rejected, reference_chosen, reference_rejected)
    return wide(policy_chosen) - wide(reference_chosen), wide(policy_rejected) - wide(reference_rejected)
