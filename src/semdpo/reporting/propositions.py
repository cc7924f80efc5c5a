"""The two sides of the paper's two propositions, measured on a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from semdpo.analysis.bounds import (
    UNIT,
    Drift,
    drift_of_cosines,
    filter_deviation,
    paper_bound_applies,
    paper_filter_bound,
    smooth_filter_bound,
)
from semdpo.reporting.data import ReportData, own_weights

TAUS = tuple(float(tau) for tau in np.linspace(0, 1, 41))


@dataclass(frozen=True, slots=True)
class FilterBound:
    """Proposition 1: the smooth weight compared with a hard filter at every τ.

    Attributes:
        alpha: strength of the weight.
        max_loss: M, the largest loss of a training pair under the trained rewriter.
        frame: columns tau, measured, ours, paper, paper_applies.
    """

    alpha: float
    max_loss: float
    frame: pd.DataFrame


def filter_bound(data: ReportData) -> FilterBound | None:
    """Proposition 1 on the subject's training pairs; None where their losses were not measured.

    Under a render budget, its two means are estimates for all pairs: each pair that was kept counts 1/p times.
    """
    if not data.losses or data.alpha is None:
        return None
    losses, distances = ([getattr(row, name) for row in data.losses] for name in ("loss", "distance"))
    top, alpha = max(losses), data.alpha
    counted = own_weights(data.pairs) if data.budgeted else None  # losses and pairs have the same order
    rows = [
        {
            "tau": tau,
            "measured": filter_deviation(losses, distances, alpha, tau, counted),
            "ours": smooth_filter_bound(alpha, tau, top),
            "paper": paper_filter_bound(alpha, tau, top),
            "paper_applies": paper_bound_applies(alpha, tau),
        }
        for tau in TAUS
    ]
    return FilterBound(alpha, top, pd.DataFrame(rows))


def drift_table(data: ReportData, methods: Sequence[str]) -> pd.DataFrame | None:
    """Proposition 2: total, prompt-level and generator-level drift per method; None where it was not measured.

    Columns: total, prompt_level, generator_level (means over images), generator_95 (95th percentile of ε), and slack
    (mean of the two parts minus the total).
    """
    if data.encoder_metric not in data.metrics or any(row.consistency is None for row in data.evaluation):
        return None
    if not gives_cosines(data):
        return None
    rows = {}
    for method in methods:
        drift = _drift(data, method)
        rows[method] = {
            "total": drift.total.mean(),
            "prompt_level": drift.prompt_level.mean(),
            "generator_level": drift.generator_level.mean(),
            "generator_95": np.quantile(drift.generator_level, 0.95),
            "slack": (drift.prompt_level + drift.generator_level - drift.total).mean(),
        }
    return pd.DataFrame(rows).T.astype(float)


def gives_cosines(data: ReportData) -> bool:
    """Whether the encoder's scores of images are cosines, from which Proposition 2's lengths can be computed."""
    scores = [row.metrics[str(data.encoder_metric)] for row in data.evaluation]
    return all(abs(score) <= 1 + UNIT for score in scores)


def _drift(data: ReportData, method: str) -> Drift:
    rows = [row for row in data.evaluation if row.method == method]
    return drift_of_cosines(
        [1 - row.distance for row in rows],
        [row.metrics[str(data.encoder_metric)] for row in rows],
        [float(row.consistency or 0.0) for row in rows],
    )
