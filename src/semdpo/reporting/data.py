"""What a report shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from semdpo.errors import DataError
from semdpo.records import Curve, EvaluationRow, Pair, PairLoss
from semdpo.reporting.sweep import Sweep
from semdpo.semantics import semantic_weight


def _seen() -> dict[str, str]:
    return {
        "clip": "its text tower measured the drift that set the weights",
        "image_reward": "it labelled the training pairs",
    }


@dataclass(frozen=True, slots=True)
class Published:
    """What of the paper stands beside a run's numbers.

    Attributes:
        model: the rewriter as ``semdpo.paper`` names it.
        columns: metric → the paper's name of the same judge.
    """

    model: str
    columns: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ReportData:
    """Everything that a report shows.

    Attributes:
        title: heading of the page.
        evaluation: one row per picture; every method on the same prompts and image seeds.
        pairs: the weighed training pairs; may be empty.
        pair_counts: name → count (kept, ties, truncated …), shown as they are.
        curves: training curves; may be empty.
        stages: (name, seconds, rows) in the order in which they ran; may be empty.
        recipe: the recipe's YAML text.
        versions: name → version or hash.
        alpha: strength of the weights, W = exp(−alpha·distance).
        notes: remarks, shown as they are.
        fidelity: metrics that ask whether the picture shows what was asked.
        preference: metrics that ask whether people would like the picture.
        seen: metric → how its model took part in training, so that it is no independent judge.
        subject: the method that the page compares …
        baseline: … with this one first; the last two methods stand in where these were not evaluated.
        drift_threshold: τ, beyond which a rewrite has drifted.
        losses: of the training pairs under the subject; may be empty.
        encoder_metric: the metric whose judge is the encoder that measures drift, None when there is none.
        published: the paper's numbers of the same model, None when it has none.
        sweep: over α, None when none was made.
        pictured: the methods whose pictures are shown side by side; empty shows all.
    """

    title: str
    evaluation: Sequence[EvaluationRow]
    pairs: Sequence[Pair]
    pair_counts: dict[str, int]
    curves: Sequence[Curve]
    stages: Sequence[tuple[str, float, int]]
    recipe: str
    versions: dict[str, str]
    alpha: float
    notes: Sequence[str]
    fidelity: Sequence[str]
    preference: Sequence[str]
    seen: dict[str, str] = field(default_factory=_seen)
    subject: str = "sem_dpo"
    baseline: str = "dpo"
    drift_threshold: float = 0.2
    losses: Sequence[PairLoss] = ()
    encoder_metric: str | None = None
    published: Published | None = None
    sweep: Sweep | None = None
    pictured: Sequence[str] = ()

    @property
    def metrics(self) -> list[str]:
        """Fidelity metrics, then preference metrics."""
        return [*self.fidelity, *self.preference]

    @property
    def held_out(self) -> list[str]:
        """Metrics whose model took no part in training."""
        return [name for name in self.metrics if name not in self.seen]


def weights(data: ReportData) -> NDArray[np.float64]:
    """W of every pair, [pairs].

    Raises:
        DataError: a pair has no distance yet, or one outside [0, 2].
    """
    distances = [pair.distance for pair in data.pairs if pair.distance is not None]
    if len(distances) < len(data.pairs):
        raise DataError(
            f"{len(data.pairs) - len(distances)} pairs have no semantic distance; run `semdpo weigh` on them first"
        )
    try:
        return semantic_weight(distances, data.alpha)
    except ValueError as error:
        raise DataError(str(error)) from error
