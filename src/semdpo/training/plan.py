"""The micro-batches of a whole training, known before it begins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch.utils.data import Dataset

from semdpo.recipe.objectives import ObjectiveSettings
from semdpo.training.batches import Example, MicroBatch, draw_batches, mismatched, split
from semdpo.training.criterion import Criterion
from semdpo.training.guard import refuse_beyond_positions
from semdpo.training.packing import Group
from semdpo.training.precision import autocast
from semdpo.training.reference import reference_logps

Extra = tuple[Group, tuple[float, ...]]  # a prompt with completions of other prompts, and log π_ref of each completion


class Plan(list[MicroBatch], Dataset[MicroBatch]):  # type: ignore[misc]
    """Micro-batches in the order in which they are computed, as a torch data set."""


def only(rows: list[MicroBatch]) -> MicroBatch:
    """The collate function of data loaders: a batch of one micro-batch becomes that micro-batch."""
    return rows[0]


@dataclass(frozen=True, slots=True)
class Planner:
    """Plans the micro-batches of a training from settings that are the same for all steps.

    Attributes:
        criterion: the objective with its constants.
        everything: all training examples.
        batch_size: number of examples per update.
        parts: number of micro-batches per update.
        size: number of examples per micro-batch, over all processes.
        order_seed: seed of the order of examples.
        can_pack: whether ``prepare.prepare`` accepted the model for packing.
        precision: precision in which the policy computes.
    """

    criterion: Criterion
    everything: tuple[Example, ...]
    batch_size: int
    parts: int
    size: int
    order_seed: int
    can_pack: bool
    precision: str

    def training(self, model: Any, epochs: int, steps: int | None) -> list[list[MicroBatch]]:
        """The micro-batches of every step.

        Args:
            model: the starting model, which computes log π_ref of completions of other prompts.
            epochs: number of passes over all examples.
            steps: number of updates after which the training ends; None ends with the last pass.
        """
        return self._of_steps(self._ordered(self.everything, epochs)[:steps], model)

    @property
    def steps_of_epoch(self) -> int:
        """The number of updates in one pass over all examples."""
        return len(self._ordered(self.everything, 1))

    def once(self, examples: Sequence[Example], model: Any) -> Plan:
        """The micro-batches of an evaluation: every example once."""
        return Plan([batch for step in self._of_steps(self._ordered(examples, 1), model) for batch in step])

    def _ordered(self, examples: Sequence[Example], epochs: int) -> list[list[Example]]:
        rows = draw_batches([example.group.tokens for example in examples], self.batch_size, epochs, self.order_seed)
        return [[examples[row] for row in step] for step in rows]

    def _of_steps(self, steps: Sequence[Sequence[Example]], model: Any) -> list[list[MicroBatch]]:
        needed = self.criterion.objective.needs_other_prompts
        extra = self._of_other_prompts(steps, model) if needed else [None] * len(steps)
        return [self._of_step(examples, more) for examples, more in zip(steps, extra, strict=True)]

    def _of_other_prompts(self, steps: Sequence[Sequence[Example]], model: Any) -> list[list[Extra] | None]:
        """Every example's prompt with completions of other prompts, and their log π_ref."""
        groups = [group for examples in steps for group in mismatched(examples, self.everything)]
        refuse_beyond_positions(groups, model)
        with autocast(self.precision, model):  # as the policy computes
            pairs = iter(zip(groups, reference_logps(model, groups, self.can_pack), strict=True))
        return [[next(pairs) for _ in examples] for examples in steps]

    def _of_step(self, examples: Sequence[Example], extra: list[Extra] | None) -> list[MicroBatch]:
        tokens = sum(len(example.group.completions[0]) for example in examples)
        weight = float(self.criterion.weights(examples).sum())
        batches = []
        for places, real in split(examples, self.parts, self.size):
            chosen = [examples[k] for k in places]
            more: list[Extra] = [(Group((), ()), ()) if extra is None else extra[k] for k in places]
            packed = tuple(
                Group(example.group.prompt, example.group.completions + other.completions)
                for example, (other, _) in zip(chosen, more, strict=True)
            )
            reference = tuple(example.reference + values for example, (_, values) in zip(chosen, more, strict=True))
            batches.append(MicroBatch(tuple(chosen), tuple(real), packed, reference, len(examples), tokens, weight))
        return batches


def longest_of(objective: ObjectiveSettings, groups: Sequence[Group]) -> int:
    """The number of tokens of the longest sequence that the model will read.

    Args:
        objective: settings of the objective.
        groups: groups of all examples, at least one.
    """
    if objective.needs_other_prompts:  # any prompt may be followed by any other's completion
        lengths = [len(completion) for group in groups for completion in group.completions]
        return max(len(group.prompt) for group in groups) + max(lengths)
    return max(group.longest for group in groups)
