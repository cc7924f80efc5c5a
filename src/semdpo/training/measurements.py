"""What is measured in the steps since the last log entry, before their updates."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch
from torch import Tensor

from semdpo.analysis.semantics import effective_sample_size
from semdpo.objectives.base import Computed
from semdpo.training.batches import MicroBatch
from semdpo.training.criterion import Criterion, reference_of


class Measurements:
    """Sums over micro-batches; ``entry`` gives the means over the steps and starts again.

    Args:
        criterion: what is minimised; it decides what can be measured.
    """

    def __init__(self, criterion: Criterion) -> None:
        self._criterion = criterion
        self._sums: dict[str, float] = {}
        self._logged: dict[str, float] = {}
        self._weights: list[float] = []
        self._steps: set[int] = set()
        self._tokens, self._began = 0, 0.0
        self.names: list[str] = []  # of the last micro-batch, for errors

    def __bool__(self) -> bool:
        """Whether there is anything to log."""
        return bool(self._sums)

    def add(self, computed: Computed, logps: Tensor, batch: MicroBatch, loss: float, step: int) -> None:
        """Adds a micro-batch.

        Args:
            computed: its losses and rewards.
            logps: log π_θ of its completions, [n, k], without gradient.
            batch: its pairs.
            loss: its part of the step's loss.
            step: the number of updates before it.
        """
        if not self._began:
            self._began = time.monotonic()
        real = torch.tensor(batch.real)
        share = float(real.sum()) / batch.rows

        def mean(values: Tensor) -> float:
            return share * float(values.cpu()[real].float().mean()) if share else 0.0

        measured = {"loss": loss}
        if self._criterion.objective.needs_rejected:
            margin = computed.chosen_rewards - computed.rejected_rewards
            weights = self._criterion.weights(batch.examples)
            measured |= {
                "reward_margin": mean(margin),
                "reward_accuracy": mean(margin > 0),
                "mean_weight": mean(weights),
            }
            if batch.reference[0]:
                change = logps - reference_of(batch, logps)
                measured |= {"chosen_logp_change": mean(change[:, 0]), "rejected_logp_change": mean(change[:, 1])}
            self._weights += weights[real].tolist()
        measured["tokens"] = float(sum(group.tokens for group in batch.groups))
        lengths = [len(example.group.completions[0]) for example in batch.examples]
        measured["completion_length"] = mean(torch.tensor(lengths))
        self.names = [example.name for example in batch.examples]
        self._steps.add(step)
        for name, value in measured.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._logged = dict(computed.logged)
        self._tokens += int(measured["tokens"])

    def entry(self) -> dict[str, float]:
        """The means over the steps since the last entry; the objective's own values are those of the last step."""
        speed = self._tokens / max(time.monotonic() - self._began, 1e-6)
        found = {name: value / len(self._steps) for name, value in self._sums.items()} | self._logged
        if self._weights:
            found["effective_sample_size"] = effective_sample_size(self._weights)
        self._sums, self._logged, self._weights, self._steps = {}, {}, [], set()
        return found | {"tokens_per_second": round(speed, 1)}


def some_of(names: Sequence[str]) -> str:
    """The first names, for an error; an ellipsis stands for the others."""
    distinct = list(dict.fromkeys(names))
    return ", ".join(distinct[:5]) + (" …" if len(distinct) > 5 else "")
