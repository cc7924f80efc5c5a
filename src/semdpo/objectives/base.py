"""What all objectives share: what they see, what they give back, and the checks of their inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

Constants = Mapping[str, float]  # what an objective knows of the whole data set
State = Mapping[str, float]  # what it keeps from one batch to the next


class PairLosses(NamedTuple):
    """What a formula says of n pairs.

    Attributes:
        losses: one a pair, with weights applied, [n]; a batch's loss is their sum over n.
        chosen_rewards: implicit reward of y_w, without gradient, [n].
        rejected_rewards: the same of y_l, [n].
    """

    losses: Tensor
    chosen_rewards: Tensor
    rejected_rewards: Tensor


@dataclass(frozen=True, slots=True)
class Batch:
    """What an objective sees of n pairs, of all processes together.

    Attributes:
        policy: log π_θ of each pair's completions, summed over tokens, [n, k]: of the chosen, of the rejected, and,
            where the objective asks for them, of completions of other prompts. Of the chosen alone in fine-tuning.
        reference: log π_ref of the same, [n, k]; zeros where the objective has no reference.
        lengths: tokens of chosen and rejected, [n, k].
        mean_tokens: how many tokens the chosen of the whole step have on average.
        weight: the data's own weight of each pair, [n].
        distance: cosine distance of prompt and chosen, [n].
        preference: preference score of the chosen minus that of the rejected, [n].
        fidelity: the same of the text-fidelity score, [n].
        real: False for rows that only fill up the last process, [n].
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
    """What an objective may ask of the whole data set, before training.

    Attributes:
        distances: of prompt and chosen, of every pair.
        scores: preference scores of chosen and rejected, of every pair.
        fidelities: their text-fidelity scores.
    """

    distances: Sequence[float]
    scores: Sequence[tuple[float, float]] = ()
    fidelities: Sequence[tuple[float, float]] = ()


@dataclass(frozen=True, slots=True)
class Memory:
    """What an objective needs beside a batch.

    Attributes:
        beta: strength of the tie to the reference.
        constants: of the whole data set, as ``Objective.constants`` gave them.
        state: after the batch before; empty before the first.
        generator: of random draws; it depends on the seed and the step only.
        first: no update has moved the policy yet, so that policy and reference are one model.
    """

    beta: float
    constants: Constants = field(default_factory=dict)
    state: State = field(default_factory=dict)
    generator: torch.Generator | None = None
    first: bool = False


@dataclass(frozen=True, slots=True)
class Computed:
    """What an objective says of a batch of n pairs.

    Attributes:
        losses: weights applied, [n].
        chosen_rewards: implicit rewards, [n].
        rejected_rewards: [n].
        logged: what this objective logs beside what all do; its state is always among it.
        state: after this batch.
    """

    losses: Tensor
    chosen_rewards: Tensor
    rejected_rewards: Tensor
    logged: Mapping[str, float] = field(default_factory=dict)
    state: State = field(default_factory=dict)


def of_pairs(found: PairLosses) -> Computed:
    """A formula's result, of an objective without a state."""
    return Computed(found.losses, found.chosen_rewards, found.rejected_rewards)


def no_constants(_settings: Any, _data: Data) -> Constants:
    """For an objective that asks nothing of the whole data set."""
    return {}


def weight_one(_settings: Any, distance: Tensor, _constants: Constants) -> Tensor:
    """For an objective that does not weight pairs."""
    return torch.ones_like(distance)


class Start(NamedTuple):
    """What is known of a loss before the first update, while policy and reference are one model.

    Attributes:
        loss: of a pair of weight 1.
        slope: the most by which a nat more or less of one log-probability changes it.
    """

    loss: float
    slope: float


@dataclass(frozen=True, slots=True)
class Objective:
    """An objective: one file has its formula and one of these, called ``OBJECTIVE``.

    What it needs (a reference, distances, whole batches) is said by its settings' class, which loads without torch.

    Attributes:
        compute: the losses of a batch, from its settings and memory.
        constants: what is computed once, of the whole data set; raises ``ValueError`` where the data do not allow it.
        pair_weight: the weight that the objective itself gives each pair, of distances [n]; reported, and summed up
            where a batch is divided by its weights.
        state_names: of the values in its state, all of which it logs, so that a resumed training finds them in its log.
        start: the loss of every pair before the first update, of β; None where it depends on the texts.
    """

    compute: Callable[[Batch, Any, Memory], Computed]
    constants: Callable[[Any, Data], Constants] = no_constants
    pair_weight: Callable[[Any, Tensor, Constants], Tensor] = weight_one
    state_names: tuple[str, ...] = ()
    start: Callable[[float], Start] | None = None


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
