"""A sweep over α: fidelity and preference at every value (the paper's figure 5), and the value that the rule picks."""

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
        fidelity: name of the fidelity metric.
        preference: name of the preference metric.
        floor: name of the method whose fidelity sets the floor.
        means: (method or floor, metric or ``drift``) → mean over prompts with its 95% confidence interval.
        choice: the value of α that the rule picks, and why.
        correlation: Pearson's r between fidelity and preference over the values of α, and its p-value; None for fewer
            than three values, or where one of the two is constant.
        effective: method → effective sample size of its weights as a share of the pairs, in [0, 1].
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
        rows: evaluated images of the floor and of every α, one row per image.
        alphas: method → α.
        fidelity: name of the fidelity metric.
        preference: name of the preference metric.
        floor: name of the method whose fidelity sets the floor.
        effective: method → effective sample size of its weights divided by the number of pairs.

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
    result = stats.pearsonr(x, y)
    return float(result.statistic), float(result.pvalue)


def sweep_frame(sweep: Sweep) -> pd.DataFrame:
    """The sweep as a table: one row per α."""
    rows = []
    for method, alpha in sweep.alphas.items():
        difference: Difference = sweep.choice.differences[method]
        row: dict[str, object] = {"alpha": alpha, "effective_share": sweep.effective[method]}
        for name in (sweep.fidelity, sweep.preference, "drift"):
            e = sweep.means[method, name]
            row |= {name: e.mean, f"{name}_low": e.low, f"{name}_high": e.high}
        row |= {"minus_floor": difference.mean, "minus_floor_low": difference.low, "minus_floor_high": difference.high}
        rows.append(row | {"above_floor": sweep.choice.above_floor[method], "chosen": method == sweep.choice.setting})
    return pd.DataFrame(rows)
