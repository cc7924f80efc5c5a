"""An objective with its constants, applied to micro-batches."""

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
    """An objective with the constants of a data set.

    Attributes:
        objective: settings of the objective.
        beta: strength of the regularisation towards the reference.
        constants: the constants that the objective computed from the whole data set.
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
            logps: log π_θ of every group's completions, [n, k].
            batch: the micro-batch.
            state: the objective's state after the previous batch; None is the empty state.
            generator: random generator of the objective.
            first: whether no update has changed the policy yet.
        """
        memory = Memory(self.beta, self.constants, state or {}, generator, first)
        return apply(self.objective, _batch(logps, batch), memory)

    def weights(self, examples: Sequence[Example]) -> Tensor:
        """Every pair's weight: the data's own weight times the objective's weight, [n], float64."""
        given = torch.tensor([example.weight for example in examples], dtype=torch.float64)
        distances = torch.tensor([example.distance for example in examples], dtype=torch.float64)
        return given * objective_of(self.objective).pair_weight(self.objective, distances, self.constants)

    @property
    def start(self) -> Start | None:
        """The loss of a pair of weight 1 before the first update; None where it is not known."""
        start = objective_of(self.objective).start
        return None if start is None or self.objective.nll_coef else start(self.beta)


def criterion_for(objective: ObjectiveSettings, beta: float, data: Data) -> Criterion:
    """The criterion of an objective, with its constants computed from the whole data set.

    Args:
        objective: settings of the objective.
        beta: strength of the regularisation towards the reference, unless the objective's settings have one.
        data: the columns of all training examples.

    Raises:
        DataError: the data are unsuitable, such as fidelity scores that are all equal.
    """
    try:
        constants = objective_of(objective).constants(objective, data)
    except ValueError as error:
        raise DataError(f"{objective.name}: {error}") from error
    return Criterion(objective, objective.beta or beta, constants)


def data_of(examples: Sequence[Example]) -> Data:
    """The columns of all examples, from which an objective computes its constants."""
    return Data(
        [example.distance for example in examples],
        [example.scores for example in examples],
        [example.fidelities for example in examples],
    )


def reference_of(batch: MicroBatch, logps: Tensor) -> Tensor:
    """log π_ref of every group's completions, [n, k]; zeros where the objective has no reference.

    Args:
        batch: the micro-batch.
        logps: log π_θ of the same completions, [n, k]; the result has its type and device.
    """
    if not batch.reference[0]:
        return torch.zeros_like(logps)
    return torch.tensor(batch.reference, dtype=logps.dtype, device=logps.device)


def _batch(logps: Tensor, batch: MicroBatch) -> Batch:
    def column(name: str) -> Tensor:
        values = [getattr(example, name) for example in batch.examples]
        return torch.tensor(values, dtype=logps.dtype, device=logps.device)

    lengths = [[len(completion) for completion in example.group.completions] for example in batch.examples]
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
