"""What is minimised: an objective, what it knows of the data, and how it is given a micro-batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from semdpo.errors import DataError
from semdpo.objectives.apply import apply, objective_of
from semdpo.objectives.base import Batch, Computed, Constants, Data, Memory, Start, State
from semdpo.recipe.objectives import ObjectiveSettings
from semdpo.training.batches import Example, MicroBatch


@dataclass(frozen=True, slots=True)
class Criterion:
    """An objective, ready for a data set.

    Attributes:
        objective: which, and its settings.
        beta: strength of the tie to the reference.
        constants: what the objective knows of the whole data set.
    """

    objective: ObjectiveSettings
    beta: float
    constants: Constants = field(default_factory=dict)

    def losses(
        self,
        logps: Tensor,
        batch: MicroBatch,
        state: State | None = None,
        generator: torch.Generator | None = None,
        first: bool = False,
    ) -> Computed:
        """The losses of a micro-batch.

        Args:
            logps: log π_θ of each group's completions, [n, k].
            batch: the pairs.
            state: the objective's, after the batch before; None is none.
            generator: of its random draws.
            first: no update has moved the policy yet.
        """
        memory = Memory(self.beta, self.constants, state or {}, generator, first)
        return apply(self.objective, _batch(logps, batch), memory)

    def weights(self, examples: Sequence[Example]) -> Tensor:
        """Each pair's weight: the data's own, times what the objective gives it, [n] float64."""
        own = torch.tensor([each.weight for each in examples], dtype=torch.float64)
        distances = torch.tensor([each.distance for each in examples], dtype=torch.float64)
        return own * objective_of(self.objective).pair_weight(self.objective, distances, self.constants)

    @property
    def start(self) -> Start | None:
        """What every loss is before the first update, of a pair of weight 1; None where that is not known."""
        known = objective_of(self.objective).start
        return None if known is None or self.objective.nll_coef else known(self.beta)


def criterion_for(objective: ObjectiveSettings, beta: float, data: Data) -> Criterion:
    """The objective with what it asks of the whole data set.

    Args:
        objective: which, and its settings.
        beta: strength of the tie to the reference; the objective's own goes before it.
        data: of all that is learnt.

    Raises:
        DataError: the data do not allow it, such as fidelity scores that are all equal.
    """
    try:
        constants = objective_of(objective).constants(objective, data)
    except ValueError as error:
        raise DataError(f"{objective.name}: {error}") from error
    return Criterion(objective, objective.beta or beta, constants)


def data_of(examples: Sequence[Example]) -> Data:
    """What an objective may ask of all examples together."""
    return Data(
        [each.distance for each in examples], [each.scores for each in examples], [each.fidelities for each in examples]
    )


def reference_of(batch: MicroBatch, logps: Tensor) -> Tensor:
    """log π_ref of each group's completions, [n, k]; zeros where the objective has no reference.

    Args:
        batch: the pairs.
        logps: log π_θ, [n, k]; gives type and device.
    """
    if not batch.reference[0]:
        return torch.zeros_like(logps)
    return torch.tensor(batch.reference, dtype=logps.dtype, device=logps.device)


def _batch(logps: Tensor, batch: MicroBatch) -> Batch:
    def column(name: str) -> Tensor:
        values = [getattr(each, name) for each in batch.examples]
        return torch.tensor(values, dtype=logps.dtype, device=logps.device)

    lengths = [[len(completion) for completion in each.group.completions] for each in batch.examples]
    return Batch(
        policy=logps,
        reference=reference_of(batch, logps),
        lengths=torch.tensor(lengths, device=logps.device),
        mean_tokens=batch.tokens / batch.rows,
        weight=column("weight"),
        distance=column("distance"),
        preference=column("preference"),
        fidelity=column("fidelity"),
        real=torch.tensor(batch.real, device=logps.device),
    )
