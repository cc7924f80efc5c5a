"""A sweep over α: what each does to fidelity and preference (the paper's figure 5), and which one the rule picks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy import stats

from semdpo.records import EvaluationRow
from semdpo.reporting.data import method_label, metric_label
from semdpo.reporting.plots import COLOURS, INK, style
from semdpo.selection import Choice, choose
from semdpo.statistics import Difference, Estimate, mean_interval, prompt_means


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
        rows: one per picture, of the floor and of every α.
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


def trade_off(sweep: Sweep) -> Figure:
    """Figure 5: fidelity and preference over α, and one against the other."""
    with style():
        figure = Figure(figsize=(10, 3.6))
        left, middle, right = figure.subplots(1, 3)
        for axes, name, colour in ((left, sweep.fidelity, "#0072B2"), (middle, sweep.preference, "#D55E00")):
            _over_alpha(axes, sweep, name, colour)
        floor = sweep.means[sweep.floor, sweep.fidelity].mean
        left.axhline(floor, color=COLOURS["human"], linewidth=1, linestyle=(0, (4, 3)))
        left.annotate(
            method_label(sweep.floor), (1, floor), xycoords=("axes fraction", "data"), ha="right", va="bottom",
            fontsize=8.5, color=COLOURS["human"],
        )  # fmt: skip
        _against(right, sweep)
    return figure


def _over_alpha(axes: object, sweep: Sweep, name: str, colour: str) -> None:
    from matplotlib.axes import Axes

    assert isinstance(axes, Axes)
    places = range(len(sweep.alphas))
    means = [sweep.means[method, name] for method in sweep.alphas]
    axes.fill_between(list(places), [e.low for e in means], [e.high for e in means], color=colour, alpha=0.15)
    axes.plot(list(places), [e.mean for e in means], color=colour, marker="o", markersize=5)
    at = list(sweep.alphas).index(sweep.choice.setting)
    axes.plot([at], [means[at].mean], marker="o", markersize=11, markerfacecolor="none", color=INK)
    axes.set_xticks(list(places), [f"{alpha:g}" for alpha in sweep.alphas.values()])
    axes.set_xlabel("α (circled: chosen)")
    axes.set_title(metric_label(name))


def _against(axes: object, sweep: Sweep) -> None:
    from matplotlib.axes import Axes

    assert isinstance(axes, Axes)
    x = [sweep.means[method, sweep.fidelity].mean for method in sweep.alphas]
    y = [sweep.means[method, sweep.preference].mean for method in sweep.alphas]
    axes.plot(x, y, color="#9aa1ac", linewidth=0.8)
    axes.scatter(x, y, color="#009E73", zorder=3)
    for left, up, alpha in zip(x, y, sweep.alphas.values(), strict=True):
        axes.annotate(f"{alpha:g}", (left, up), xytext=(4, 4), textcoords="offset points", fontsize=8.5)
    axes.set_xlabel(metric_label(sweep.fidelity))
    axes.set_ylabel(metric_label(sweep.preference))
    axes.margins(0.15)
    said = "" if sweep.correlation is None else f": r = {sweep.correlation[0]:.2f}, p = {sweep.correlation[1]:.3f}"
    axes.set_title(f"over α{said}")
