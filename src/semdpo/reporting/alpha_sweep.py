"""A sweep over α: what each does to fidelity and preference (the paper's figure 5), and which one the rule picks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from semdpo.analysis.selection import Choice, choose
from semdpo.analysis.statistics import Difference, Estimate, mean_interval, prompt_means
from semdpo.data.records import EvaluationRow


@dataclass(frozen=True, slots=True)
class Sweep:
    """The numbers of a sweep, on tuning prompts.

    Attributes:
        alphas: method → α, in the order of the recipe.
        fidelity: name of the metric.
        preference: name of the metric.
        floor: the method that fidelity must not fall below.
        means: (method or floor, metric or ``drift``) → mean over prompts with its interval.
        choice: the α that the rule picks, and what it rests on.
        correlation: Pearson's r of fidelity and preference over the α, and its p; None for fewer than three, or
            where one of them does not move.
        effective: method → share of the pairs that its weights leave as effective sample size.
        prompts: number of tuning prompts.
    """

    alphas: dict[str, float]
    fidelity: str
    preference: str
    floor: str
    means: dict[tuple[str, str], Estimate]
    choice: Choice
    correlation: tuple[float, float] | None
    effective: dict[str, float]
    prompts: int

    @property
    def chosen(self) -> float:
        """The picked α."""
        return self.alphas[self.choice.setting]


def compute_sweep(
    rows: Sequence[EvaluationRow],
    alphas: Mapping[str, float],
    fidelity: str,
    preference: str,
    floor: str,
    effective: Mapping[str, float],
) -> Sweep:
    """The numbers of a sweep.

    Args:
        rows: one per image, of the floor and of every α.
        alphas: method → α.
        fidelity: the metric of faithfulness.
        preference: the metric of liking.
        floor: the method that fidelity must not fall below.
        effective: method → effective sample size of its weights over the number of pairs.

    Raises:
        DataError: rows are missing, not numbers, or cannot be paired.
    """
    frame = pd.DataFrame(
        {"method": r.method, "prompt_id": r.prompt_id, "image_seed": r.image_seed, "drift": r.distance} | r.metrics
        for r in rows
    )
    values = {name: prompt_means(frame, name) for name in (fidelity, preference, "drift")}
    names = list(alphas)
    means = {(m, name): mean_interval(table[m]) for name, table in values.items() for m in (floor, *names)}
    choice = choose(values[fidelity][names], values[preference][names], values[fidelity][floor].to_numpy())
    x, y = ([means[m, name].mean for m in names] for name in (fidelity, preference))
    return Sweep(
        alphas=dict(alphas),
        fidelity=fidelity,
        preference=preference,
        floor=floor,
        means=means,
        choice=choice,
        correlation=_pearson(x, y),
        effective=dict(effective),
        prompts=len(values[fidelity]),
    )


def _pearson(x: Sequence[float], y: Sequence[float]) -> tuple[float, float] | None:
    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    found = stats.pearsonr(x, y)
    return float(found.statistic), float(found.pvalue)


def sweep_frame(sweep: Sweep) -> pd.DataFrame:
    """``sweep.csv``: one row for each α."""
    rows = []
    for method, alpha in sweep.alphas.items():
        found: Difference = sweep.choice.differences[method]
        row: dict[str, object] = {"alpha": alpha, "effective_share": sweep.effective[method]}
        for name in (sweep.fidelity, sweep.preference, "drift"):
            e = sweep.means[method, name]
            row |= {name: e.mean, f"{name}_low": e.low, f"{name}_high": e.high}
        row |= {"minus_floor": found.mean, "minus_floor_low": found.low, "minus_floor_high": found.high}
        rows.append(row | {"above_floor": sweep.choice.above_floor[method], "chosen": method == sweep.choice.setting})
    return pd.DataFrame(rows)
