"""Plots of the weights: their distribution, the sweep over α, and the two propositions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from semdpo.analysis.semantics import effective_sample_size
from semdpo.reporting.alpha_sweep import Sweep
from semdpo.reporting.data import ReportData, effective_frame, weights
from semdpo.reporting.formats import number, p_value
from semdpo.reporting.labels import method_label, metric_label
from semdpo.reporting.propositions import FilterBound
from semdpo.reporting.style import COLOURS, INK, style


def weighing(data: ReportData) -> Figure:
    """The distribution of the pairs' weights, and the effective sample size over α."""
    assert data.alpha is not None  # see ReportData.weighted
    figure = Figure(figsize=(10, 3.1))
    left, right = figure.subplots(1, 2, width_ratios=(2, 1))
    _spread(left, weights(data), data.alpha, " / p" if data.budgeted else "")
    kept = effective_frame(data)
    right.plot(kept["alpha"], 100 * kept["share"], color=COLOURS["sem_dpo"], linewidth=2)
    right.plot([data.alpha], [100 * effective_sample_size(weights(data)) / len(data.pairs)], "o", color=INK)
    right.set_ylim(0, 105)
    right.set_xlabel("α")
    right.set_title("effective sample size, % of pairs")
    return figure


def histogram(w: NDArray[np.float64], alpha: float, factor: str = "") -> Figure:
    """A histogram of weights, with their mean; ``factor`` says what they were multiplied with."""
    figure = Figure(figsize=(10, 3.1))
    _spread(figure.subplots(), w, alpha, factor)
    return figure


def _spread(axes: Any, w: NDArray[np.float64], alpha: float, factor: str) -> None:
    most = max(1.0, float(w.max()))  # above 1 where the data have their own weights
    axes.hist(w, bins=np.linspace(0, most, 41).tolist(), color=COLOURS["sem_dpo"], alpha=0.85, edgecolor="white")
    axes.axvline(float(w.mean()), color=INK, linewidth=1.4)
    axes.text(
        float(w.mean()),
        1.02,
        f"mean {w.mean():.2f} · {effective_sample_size(w):.0f} effective of {w.size} pairs",
        transform=axes.get_xaxis_transform(),
        ha="left" if w.mean() < 0.25 * most else "right" if w.mean() > 0.75 * most else "center",
        va="bottom",
        color=INK,
    )
    axes.set_xlim(0, most)
    axes.set_xlabel(f"weight W = exp(−{alpha:g} · distance between prompt and chosen rewrite){factor}")
    axes.set_ylabel("pairs")
    axes.grid(axis="x", visible=False)


def trade_off(sweep: Sweep) -> Figure:
    """The paper's figure 5: fidelity and preference over α, and one against the other."""
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


def _over_alpha(axes: Any, sweep: Sweep, name: str, colour: str) -> None:
    places = range(len(sweep.alphas))
    means = [sweep.means[method, name] for method in sweep.alphas]
    axes.fill_between(list(places), [e.low for e in means], [e.high for e in means], color=colour, alpha=0.15)
    axes.plot(list(places), [e.mean for e in means], color=colour, marker="o", markersize=5)
    at = list(sweep.alphas).index(sweep.choice.setting)
    axes.plot([at], [means[at].mean], marker="o", markersize=11, markerfacecolor="none", color=INK)
    axes.set_xticks(list(places), [f"{alpha:g}" for alpha in sweep.alphas.values()])
    axes.set_xlabel("α (circled: chosen)")
    axes.set_title(metric_label(name))


def _against(axes: Any, sweep: Sweep) -> None:
    x = [sweep.means[method, sweep.fidelity].mean for method in sweep.alphas]
    y = [sweep.means[method, sweep.preference].mean for method in sweep.alphas]
    axes.plot(x, y, color="#9aa1ac", linewidth=0.8)
    axes.scatter(x, y, color="#009E73", zorder=3)
    for left, up, alpha in zip(x, y, sweep.alphas.values(), strict=True):
        axes.annotate(f"{alpha:g}", (left, up), xytext=(4, 4), textcoords="offset points", fontsize=8.5)
    axes.set_xlabel(metric_label(sweep.fidelity))
    axes.set_ylabel(metric_label(sweep.preference))
    axes.margins(0.15)
    axes.set_title("preference over fidelity")
    if sweep.correlation is not None:
        r, p = sweep.correlation
        axes.set_title(f"r = {number(r, 2)}, p = {p_value(p)}")


def bound_figure(bound: FilterBound) -> Figure:
    """Both sides of Proposition 1 over τ."""
    with style():
        figure = Figure(figsize=(10, 3.4))
        axes = figure.subplots()
        frame = bound.frame
        axes.plot(frame["tau"], frame["ours"], color=COLOURS["sem_dpo"], linewidth=2, label="corrected bound")
        axes.plot(
            frame["tau"], frame["paper"], color=COLOURS["dpo"], linewidth=1.5, linestyle="--", label="the paper's bound"
        )
        axes.plot(frame["tau"], frame["measured"], color=INK, linewidth=2, label="measured deviation")
        if bound.alpha > 0 and np.log(2) / bound.alpha <= 1:
            limit = float(np.log(2) / bound.alpha)
            axes.axvline(limit, color="#9aa1ac", linewidth=1, linestyle=(0, (2, 2)))
            axes.annotate(
                "the paper's bound holds from here on", (limit, 1), xycoords=("data", "axes fraction"), xytext=(4, -10),
                textcoords="offset points", fontsize=9,
            )  # fmt: skip
        axes.set_xlabel("τ: the largest distance that the filter keeps")
        axes.set_ylabel("|L_sem − L_τ|")
        axes.set_xlim(0, 1)
        axes.set_ylim(bottom=0)
        figure.legend(loc="outside upper center", ncols=3)
    return figure


def drift_figure(table: pd.DataFrame) -> Figure:
    """Proposition 2: the two parts end to end, and the total, which is at most their sum."""
    with style():
        figure = Figure(figsize=(10, 0.42 * len(table) + 1.0))
        axes = figure.subplots()
        places = list(range(len(table)))
        axes.barh(places, table["prompt_level"], color="#E69F00", height=0.6, label="prompt level: the rewriter's part")
        axes.barh(
            places, table["generator_level"], left=table["prompt_level"], color="#56B4E9", height=0.6,
            label="generator level ε: the renderer's part",
        )  # fmt: skip
        axes.plot(
            table["total"],
            places,
            linestyle="",
            marker="|",
            markersize=16,
            markeredgewidth=2.5,
            color=INK,
            label="total",
        )
        axes.set_yticks(places, [method_label(str(name)) for name in table.index])
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("length in the encoder's space")
        figure.legend(loc="outside upper center", ncols=3)
    return figure
