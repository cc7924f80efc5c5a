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

Extra = tuple[Group, tuple[float, ...]]  # a prompt with completions of others, and log π_ref of each


class Plan(list[MicroBatch], Dataset[MicroBatch]):  # type: ignore[misc]
    """Micro-batches in the order in which they are computed, as torch takes them."""


def only(rows: list[MicroBatch]) -> MicroBatch:
    """A data loader's batch of one micro-batch is that micro-batch."""
    return rows[0]


@dataclass(frozen=True, slots=True)
class Planner:
    """What is the same for all steps.

    Attributes:
        criterion: what is minimised.
        everything: all examples that are learnt.
        batch_size: examples of one update.
        parts: micro-batches of one update.
        size: examples of one micro-batch, of all processes together.
        order_seed: of the order of examples.
        can_pack: what ``prepare.prepare`` said of the model.
        precision: in which the policy computes.
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
            model: as it starts; the reference of completions of other prompts is asked of it.
            epochs: passes over all examples.
            steps: after which the last pass ends; None ends with the pass.
        """
        return self._of_steps(self._drawn(self.everything, epochs)[:steps], model)

    @property
    def steps_of_epoch(self) -> int:
        """Updates of one pass over all examples."""
        return len(self._drawn(self.everything, 1))

    def once(self, examples: Sequence[Example], model: Any) -> Plan:
        """Examples as evaluation takes them: each once."""
        return Plan([each for step in self._of_steps(self._drawn(examples, 1), model) for each in step])

    def _drawn(self, examples: Sequence[Example], epochs: int) -> list[list[Example]]:
        rows = draw_batches([each.group.tokens for each in examples], self.batch_size, epochs, self.order_seed)
        return [[examples[row] for row in step] for step in rows]

    def _of_steps(self, steps: Sequence[Sequence[Example]], model: Any) -> list[list[MicroBatch]]:
        needed = self.criterion.objective.needs_other_prompts
        extra = self._of_other_prompts(steps, model) if needed else [None] * len(steps)
        return [self._of_step(examples, more) for examples, more in zip(steps, extra, strict=True)]

    def _of_other_prompts(self, steps: Sequence[Sequence[Example]], model: Any) -> list[list[Extra] | None]:
        """Each example's prompt with completions of other prompts, and what the reference says of them."""
        groups = [group for examples in steps for group in mismatched(examples, self.everything)]
        refuse_beyond_positions(groups, model)
        with autocast(self.precision, model):  # as the policy computes
            known = iter(zip(groups, reference_logps(model, groups, self.can_pack), strict=True))
        return [[next(known) for _ in examples] for examples in steps]

    def _of_step(self, examples: Sequence[Example], extra: list[Extra] | None) -> list[MicroBatch]:
        tokens = sum(len(each.group.completions[0]) for each in examples)
        weight = float(self.criterion.weights(examples).sum())
        found = []
        for places, real in split(examples, self.parts, self.size):
            chosen = [examples[k] for k in places]
            more: list[Extra] = [(Group((), ()), ()) if extra is None else extra[k] for k in places]
            packed = tuple(
                Group(each.group.prompt, each.group.completions + other.completions)
                for each, (other, _) in zip(chosen, more, strict=True)
            )
            reference = tuple(each.reference + values for each, (_, values) in zip(chosen, more, strict=True))
            found.append(MicroBatch(tuple(chosen), tuple(real), packed, reference, len(examples), tokens, weight))
        return found


def longest_of(objective: ObjectiveSettings, groups: Sequence[Group]) -> int:
    """Tokens of the longest sequence that the model will read.

    Args:
        objective: what is minimised.
        groups: of all examples, at least one.
    """
    if objective.needs_other_prompts:  # any prompt may be followed by any other's completion
        texts = [len(each) for group in groups for each in group.completions]
        return max(len(group.prompt) for group in groups) + max(texts)
    return max(group.longest for group in groups)
