"""The data of a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from semdpo.analysis.semantics import effective_sample_size, semantic_weight
from semdpo.data.records import Curve, EvaluationRow, Pair, PairLoss
from semdpo.errors import DataError
from semdpo.recipe.variants import Variant
from semdpo.reporting.alpha_sweep import Sweep
from semdpo.reporting.atoms import AtomData
from semdpo.reporting.benchmarks import BenchmarkData
from semdpo.reporting.labels import EXTRAS, FACTS, method_label, variant_label

if TYPE_CHECKING:
    from semdpo.reporting.rounds import RoundData
    from semdpo.reporting.simulated_study import SimulatedStudy


DRIFT = "drift of the chosen rewrite"


def _seen() -> dict[str, str]:
    return {
        "clip": "its text tower measured the drift that set the weights",
        "image_reward": "it labelled the training pairs",
    }


@dataclass(frozen=True, slots=True)
class Published:
    """Where to find the paper's numbers for a run.

    Attributes:
        model: the rewriter's name in ``semdpo.reporting.paper``.
        columns: metric → the paper's name for the same scorer.
    """

    model: str
    columns: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ReportData:
    """All data that a report shows.

    Attributes:
        title: heading of the page.
        evaluation: one row per image; every method has the same prompts and image seeds.
        pairs: the training pairs with their distances; may be empty.
        pair_counts: name → count (kept, ties, truncated …), shown unchanged.
        curves: training curves; may be empty.
        stages: (name, seconds, rows) of every stage in the order in which they ran; may be empty.
        recipe: the recipe's YAML text.
        versions: name → version or hash.
        alpha: strength of the subject's weights, W = exp(−alpha·distance); None where it has no weights.
        notes: remarks, shown unchanged.
        fidelity: names of the metrics for whether the image shows what the user asked for.
        preference: names of the metrics for whether people would like the image.
        seen: metric → how its model took part in training, which makes it a scorer that is not independent.
        subject: the method that the page compares with the others; the last method where it was not evaluated.
        baseline: the method that the subject is compared with first; another one where it was not evaluated.
        drift_threshold: τ, the distance from which on a rewrite counts as drifted.
        losses: losses of the training pairs under the subject; may be empty.
        encoder_metric: the metric whose scorer is the encoder that measures drift; None where there is none.
        published: where to find the paper's numbers; None where the paper has none for this run.
        sweep: the sweep over α; None where there is none.
        shown_methods: the methods whose images are shown side by side; empty shows all.
        rendered: number of images that were rendered, for training and evaluation.
        tokens: (description, number of tokens) of what was sampled or trained on; may be empty.
        truncated_rewrites: method → number of its rewrites that were truncated at the token budget.
        blackened: method → number of its images that the safety checker blackened; ``evaluation`` has no row with
            their prompt and image seed.
        unrendered: method → number of its images that could not be rendered, which are left out in the same way.
        facts: the world in whose words prompts and rewrites are written, so that their facts are compared: ``tiny``, or
            None.
        variants: the methods that write with another decoding than the method that they belong to, or were trained in a
            later round of it. They have rows of their own in the tables of means, and are in no comparison with others.
        study: a study with simulated raters, or why the images gave none; None where none was asked for.
        weighed_by: what a pair's distance is, of which its weight is W = exp(−alpha·distance).
        atoms: which facts of the prompts the images show and the rewrites state; None where none were asked for.
        rounds: the rounds of the methods that were trained in several; empty where there is one.
        benchmarks: the same methods on published sets of prompts; may be empty.
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
    rendered: int = 0
    tokens: Sequence[tuple[str, int]] = ()
    truncated_rewrites: Mapping[str, int] = field(default_factory=dict)
    blackened: Mapping[str, int] = field(default_factory=dict)
    unrendered: Mapping[str, int] = field(default_factory=dict)
    facts: str | None = None
    variants: Mapping[str, Variant] = field(default_factory=dict)
    study: SimulatedStudy | str | None = None
    atoms: AtomData | None = None
    weighed_by: str = DRIFT
    rounds: Sequence[RoundData] = ()
    benchmarks: Sequence[BenchmarkData] = ()

    @property
    def weighted(self) -> bool:
        """Whether there are pairs, and the subject's objective weights them."""
        return bool(self.pairs) and self.alpha is not None

    @property
    def budgeted(self) -> bool:
        """Whether the run had a render budget, so that every pair has the weight 1/p of its own."""
        return any(pair.weight is not None for pair in self.pairs)

    @property
    def metrics(self) -> list[str]:
        """Fidelity metrics, then preference metrics."""
        return [*self.fidelity, *self.preference]

    @property
    def facts_columns(self) -> tuple[str, ...]:
        """The columns about facts; empty where facts cannot be read."""
        return FACTS if self.facts else ()

    @property
    def extras(self) -> tuple[str, ...]:
        """The report's own columns, in addition to the metrics."""
        return (*EXTRAS, *self.facts_columns)

    def label(self, method: str) -> str:
        """The display name of a method, also of one with another decoding."""
        variant = self.variants.get(method)
        return method_label(method) if variant is None else variant_label(variant.method, variant.name)

    @property
    def held_out(self) -> list[str]:
        """Metrics whose model took no part in training."""
        return [name for name in self.metrics if name not in self.seen]


def weights(data: ReportData) -> NDArray[np.float64]:
    """The weight of every pair, [pairs]; only where ``data.weighted``: W, or W/p under a render budget.

    Raises:
        DataError: a pair has no distance, or one outside [0, 2].
    """
    assert data.alpha is not None  # see ReportData.weighted
    try:
        return semantic_weight(_distances(data), data.alpha) * own_weights(data.pairs)
    except ValueError as error:
        raise DataError(str(error)) from error


def own_weights(pairs: Sequence[Pair]) -> NDArray[np.float64]:
    """What multiplies every pair's W: 1/p under a render budget, or else 1, [pairs]."""
    return np.array([pair.own_weight for pair in pairs], np.float64)


def _distances(data: ReportData) -> NDArray[np.float64]:
    distances = [pair.distance for pair in data.pairs if pair.distance is not None]
    if len(distances) < len(data.pairs):
        raise DataError(
            f"{len(data.pairs) - len(distances)} pairs have no semantic distance; run `semdpo weigh` on them first"
        )
    return np.array(distances, np.float64)


def effective_frame(data: ReportData) -> pd.DataFrame:
    """The effective sample size of the pairs at every α: columns alpha, effective, share."""
    assert data.alpha is not None  # see ReportData.weighted
    distances, own = _distances(data), own_weights(data.pairs)
    alphas = np.linspace(0, max(16.0, 1.5 * data.alpha), 65)
    sizes = np.array([effective_sample_size(semantic_weight(distances, alpha) * own) for alpha in alphas])
    return pd.DataFrame({"alpha": alphas, "effective": sizes, "share": sizes / len(distances)})


def weights_frame(data: ReportData) -> pd.DataFrame:
    """Every pair's distance and weight: columns pair_id, distance, weight."""
    rows = zip(data.pairs, weights(data), strict=True)
    return pd.DataFrame({"pair_id": p.pair_id, "distance": p.distance, "weight": w} for p, w in rows)
