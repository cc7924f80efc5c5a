"""What a report shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from semdpo.analysis.semantics import effective_sample_size, semantic_weight
from semdpo.data.records import Curve, EvaluationRow, Pair, PairLoss
from semdpo.errors import DataError
from semdpo.reporting.alpha_sweep import Sweep


def _seen() -> dict[str, str]:
    return {
        "clip": "its text tower measured the drift that set the weights",
        "image_reward": "it labelled the training pairs",
    }


@dataclass(frozen=True, slots=True)
class Published:
    """What of the paper stands beside a run's numbers.

    Attributes:
        model: the rewriter as ``semdpo.reporting.paper`` names it.
        columns: metric → the paper's name of the same scorer.
    """

    model: str
    columns: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ReportData:
    """Everything that a report shows.

    Attributes:
        title: heading of the page.
        evaluation: one row per image; every method on the same prompts and image seeds.
        pairs: the weighed training pairs; may be empty.
        pair_counts: name → count (kept, ties, truncated …), shown as they are.
        curves: training curves; may be empty.
        stages: (name, seconds, rows) in the order in which they ran; may be empty.
        recipe: the recipe's YAML text.
        versions: name → version or hash.
        alpha: strength of the subject's weights, W = exp(−alpha·distance); None where it has none.
        notes: remarks, shown as they are.
        fidelity: metrics that ask whether the image shows what was asked.
        preference: metrics that ask whether people would like the image.
        seen: metric → how its model took part in training, so that it is no independent scorer.
        subject: the method that the page compares …
        baseline: … with this one first; the last two methods stand in where these were not evaluated.
        drift_threshold: τ, beyond which a rewrite has drifted.
        losses: of the training pairs under the subject; may be empty.
        encoder_metric: the metric whose scorer is the encoder that measures drift, None when there is none.
        published: the paper's numbers of the same model, None when it has none.
        sweep: over α, None when none was made.
        pictured: the methods whose images are shown side by side; empty shows all.
        drawn: images that were drawn, for training and evaluation.
        tokens: (what, tokens) that were written or learnt from; may be empty.
        truncated_rewrites: method → its rewrites that met the token budget before they had ended.
        blackened: method → its images that the safety checker blackened; ``evaluation`` holds none of their places.
    """

    title: str
    evaluation: Sequence[EvaluationRow]
    pairs: Sequence[Pair]
    pair_counts: dict[str, int]
    curves: Sequence[Curve]
    stages: Sequence[tuple[str, float, int]]
    recipe: str
    versions: dict[str, str]
    alpha: float | None
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
    shown_methods: Sequence[str] = ()
    drawn: int = 0
    tokens: Sequence[tuple[str, int]] = ()
    truncated_rewrites: Mapping[str, int] = field(default_factory=dict)
    blackened: Mapping[str, int] = field(default_factory=dict)

    @property
    def weighted(self) -> bool:
        """Whether there are pairs, and the subject weights them."""
        return bool(self.pairs) and self.alpha is not None

    @property
    def metrics(self) -> list[str]:
        """Fidelity metrics, then preference metrics."""
        return [*self.fidelity, *self.preference]

    @property
    def held_out(self) -> list[str]:
        """Metrics whose model took no part in training."""
        return [name for name in self.metrics if name not in self.seen]


def weights(data: ReportData) -> NDArray[np.float64]:
    """W of every pair, [pairs], where the subject weights them.

    Raises:
        DataError: a pair has no distance yet, or one outside [0, 2].
    """
    assert data.alpha is not None  # see ReportData.weighted
    try:
        return semantic_weight(_distances(data), data.alpha)
    except ValueError as error:
        raise DataError(str(error)) from error


def _distances(data: ReportData) -> NDArray[np.float64]:
    known = [pair.distance for pair in data.pairs if pair.distance is not None]
    if len(known) < len(data.pairs):
        raise DataError(
            f"{len(data.pairs) - len(known)} pairs have no semantic distance; run `semdpo weigh` on them first"
        )
    return np.array(known, np.float64)


def effective_frame(data: ReportData) -> pd.DataFrame:
    """The effective sample size that each α would leave of the pairs: columns alpha, effective, share."""
    assert data.alpha is not None  # see ReportData.weighted
    distances = _distances(data)
    alphas = np.linspace(0, max(16.0, 1.5 * data.alpha), 65)
    sizes = np.array([effective_sample_size(semantic_weight(distances, alpha)) for alpha in alphas])
    return pd.DataFrame({"alpha": alphas, "effective": sizes, "share": sizes / len(distances)})


def weights_frame(data: ReportData) -> pd.DataFrame:
    """Each pair's distance and weight: columns pair_id, distance, weight."""
    rows = zip(data.pairs, weights(data), strict=True)
    return pd.DataFrame({"pair_id": p.pair_id, "distance": p.distance, "weight": w} for p, w in rows)
