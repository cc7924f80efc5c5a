"""The plots of a report, one function per figure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from semdpo.analysis.statistics import Estimate
from semdpo.data.records import Curve
from semdpo.reporting.compute import Tables
from semdpo.reporting.data import ReportData
from semdpo.reporting.labels import method_label, metric_label
from semdpo.reporting.propositions import drift_table, filter_bound
from semdpo.reporting.round_plots import rounds_figure
from semdpo.reporting.style import INK, MARKERS, TIE, colours, style
from semdpo.reporting.weight_plots import bound_figure, drift_figure, trade_off, weighing


def draw_all(data: ReportData, tables: Tables) -> dict[str, Figure]:
    """All figures for which there are data, by name."""
    with style():  # matplotlib reads most of its settings when a figure is created
        return _draw(data, tables)


def _draw(data: ReportData, tables: Tables) -> dict[str, Figure]:
    figures: dict[str, Figure] = {}
    if data.fidelity and data.preference:
        figures["scatter"] = scatter(data, tables)
        if len(tables.sets) > 1:
            figures["landscape"] = landscape(data, tables)
    if tables.others:
        figures["duels"] = duels(data, tables)
    figures["lengths"] = lengths(tables)
    if data.weighted:
        figures["weights"] = weighing(data)
    if (bound := filter_bound(data)) is not None:
        figures["bound"] = bound_figure(bound)
    if (parts := drift_table(data, tables.methods)) is not None:
        figures["drift"] = drift_figure(parts)
    if data.rounds:
        figures["rounds"] = rounds_figure(data, tables)
    if data.sweep is not None:
        figures["sweep"] = trade_off(data.sweep)
    if first := [curve for curve in data.curves if curve.method not in data.variants]:  # of the first round
        figures["curves"] = training(first, tables.methods)
    if data.stages:
        figures["cost"] = cost(data.stages)
    return figures


def scatter(data: ReportData, tables: Tables) -> Figure:
    """Fidelity and preference of every method, by independent scorers and by scorers that took part in training."""
    panels = [
        ("Independent scorers", _first(data.fidelity, data, False), _first(data.preference, data, False)),
        ("Scorers used in training", _first(data.fidelity, data, True), _first(data.preference, data, True)),
    ]
    shown = [(title, x, y) for title, x, y in panels if x and y]
    if not shown:
        shown = [("Scorers", data.fidelity[0], data.preference[0])]
    figure = Figure(figsize=(10, 4.2))
    for axes, (title, x, y) in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
        axes.set_title(title)
        axes.set_xlabel(f"{metric_label(x)}: shows what was asked →")
        axes.set_ylabel(f"{metric_label(y)}: people like it →")
        axes.margins(0.1)
        _crosses(axes, tables.methods, tables.means, x, y)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=min(5, len(labels)))
    return figure


def landscape(data: ReportData, tables: Tables) -> Figure:
    """Fidelity and preference per set (the paper's figures 3 and 6), by independent scorers where there are any."""
    x, y = (_first(names, data, False) or names[0] for names in (data.fidelity, data.preference))
    rows = -(-len(tables.sets) // 3)
    figure = Figure(figsize=(10, 3.3 * rows + 0.4))
    grid = figure.subplots(rows, 3, squeeze=False).ravel()
    for axes, one_set in zip(grid, tables.sets, strict=False):
        axes.set_title(f"{one_set.source} ({one_set.prompts} prompts)")
        axes.set_xlabel(f"{metric_label(x)}: shows what was asked →", fontsize=9)
        axes.set_ylabel(f"{metric_label(y)}: people like it →", fontsize=9)
        axes.margins(0.1)
        axes.tick_params(labelsize=8.5)
        _crosses(axes, tables.methods, one_set.means, x, y)
    for axes in grid[len(tables.sets) :]:
        axes.set_visible(False)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=min(6, len(labels)))
    return figure


def _first(names: Sequence[str], data: ReportData, seen: bool) -> str | None:
    return next((name for name in names if (name in data.seen) is seen), None)


def _crosses(axes: Any, methods: Sequence[str], means: dict[tuple[str, str], Estimate], x: str, y: str) -> None:
    palette = colours(methods)
    for i, method in enumerate(methods):
        across, up = means[method, x], means[method, y]
        axes.errorbar(
            across.mean,
            up.mean,
            xerr=[[across.mean - across.low], [across.high - across.mean]],
            yerr=[[up.mean - up.low], [up.high - up.mean]],
            fmt=MARKERS[i % len(MARKERS)],
            color=palette[method],
            markersize=8,
            elinewidth=1.4,
            capsize=2.5,
            label=method_label(method),
        )


def duels(data: ReportData, tables: Tables) -> Figure:
    """Wins, ties and losses of the subject against every other method, one bar per metric."""
    names, others, palette = data.metrics, tables.others, colours(tables.methods)
    subject = str(tables.subject)
    figure = Figure(figsize=(10, (0.34 * len(names) + 0.75) * len(others) + 0.3))
    for axes, other in zip(figure.subplots(len(others), 1, squeeze=False)[:, 0], others, strict=True):
        axes.set_title(f"{method_label(subject)} against {method_label(other)}")
        for row, name in enumerate(names):
            duel = tables.duels[other, name]
            total = duel.wins + duel.ties + duel.losses
            parts = ((duel.wins, palette[subject]), (duel.ties, TIE), (duel.losses, palette[other]))
            left = 0.0
            for count, colour in parts:
                width = 100 * count / total
                axes.barh(row, width, left=left, color=colour, height=0.72, edgecolor="white")
                if width >= 5:
                    ink = INK if colour == TIE else "white"
                    axes.text(left + width / 2, row, str(count), ha="center", va="center", color=ink, fontsize=9)
                left += width
            text = f"{100 * duel.share:.0f}% [{100 * duel.low:.0f}, {100 * duel.high:.0f}]"
            axes.text(101, row, text, va="center", fontsize=9, color=INK)
        axes.set_yticks(range(len(names)), [metric_label(name) for name in names])
        axes.invert_yaxis()
        axes.set_xlim(0, 100)
        axes.set_xticks([0, 25, 50, 75, 100], ["0", "25", "50%", "75", "100"])
        axes.axvline(50, color=INK, linewidth=0.8, linestyle=(0, (2, 2)), zorder=0)
        axes.grid(False)
        axes.spines["left"].set_visible(False)
    return figure


def lengths(tables: Tables) -> Figure:
    """Box plots of the rewrites' tokens per method: quartiles, and whiskers from the 5th to the 95th percentile."""
    palette, tokens = colours(tables.methods), tables.values["tokens"]
    figure = Figure(figsize=(10, 0.36 * len(tables.methods) + 0.9))
    axes = figure.subplots()
    boxes = axes.boxplot(
        [tokens[method].to_numpy() for method in tables.methods],
        orientation="horizontal",
        whis=(5, 95),
        widths=0.6,
        patch_artist=True,
        tick_labels=[method_label(method) for method in tables.methods],
        medianprops={"color": INK, "linewidth": 1.6},
        flierprops={"marker": ".", "markersize": 3, "markeredgecolor": "#9aa1ac"},
    )
    for box, method in zip(boxes["boxes"], tables.methods, strict=True):
        box.set(facecolor=palette[method], alpha=0.75, edgecolor=INK)
    axes.invert_yaxis()
    axes.set_xlabel("tokens of the rewriter's tokenizer")
    axes.grid(axis="y", visible=False)
    return figure


PANELS = (
    ("loss", "Loss"),
    ("reward_margin", "Reward margin"),
    ("reward_accuracy", "Reward accuracy"),
    ("chosen_logp_change", "Change of log p (chosen)"),
    ("rejected_logp_change", "Change of log p (rejected)"),
)


def training(curves: Sequence[Curve], methods: Sequence[str]) -> Figure:
    """Training curves; supervised and preference training have separate panels, because their losses are unlike."""
    tuned = {curve.method for curve in curves if curve.name == "reward_margin"}
    panels: list[tuple[str, str, Callable[[str], bool]]] = [
        (name, title, lambda method: method in tuned)
        for name, title in PANELS
        if any(curve.name == name and curve.method in tuned for curve in curves)
    ]
    if any(curve.name == "loss" and curve.method not in tuned for curve in curves):
        panels.append(("loss", "Loss of supervised fine-tuning", lambda method: method not in tuned))
    names = list(dict.fromkeys([*methods, *(curve.method for curve in curves)]))
    rows = -(-len(panels) // 3) or 1
    figure = Figure(figsize=(10, 2.7 * rows))
    grid = figure.subplots(rows, 3, squeeze=False).ravel()
    for axes, (name, title, shows) in zip(grid, panels, strict=False):
        axes.set_title(title)
        axes.set_xlabel("step", fontsize=9)
        _lines(axes, [curve for curve in curves if curve.name == name and shows(curve.method)], names)
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    return figure


def _lines(axes: Any, curves: Sequence[Curve], methods: Sequence[str]) -> None:
    palette = colours(methods)
    for method in methods:
        points = sorted((c.step, c.value) for c in curves if c.method == method)
        if not points:
            continue
        steps, values = np.array(points, np.float64).T
        window = max(1, len(values) // 12)
        if window > 1:
            axes.plot(steps, values, color=palette[method], alpha=0.22, linewidth=0.8)
        # The mean over a centred window that shrinks at both ends; zero padding would bend the ends towards 0.
        smooth = [values[max(0, i - window // 2) : i + window // 2 + 1].mean() for i in range(len(values))]
        axes.plot(steps, smooth, color=palette[method], linewidth=1.8, label=method_label(method))
    axes.tick_params(labelsize=8.5)
    axes.legend(fontsize=8.5, handlelength=1.2)


def cost(stages: Sequence[tuple[str, float, int]]) -> Figure:
    """Seconds of each stage."""
    figure = Figure(figsize=(10, 0.3 * len(stages) + 0.7))
    axes = figure.subplots()
    seconds = [float(stage[1]) for stage in stages]
    axes.barh(range(len(stages)), seconds, color="#7c8aa0", height=0.7)
    for row, value in enumerate(seconds):
        axes.annotate(
            f"{value:.1f} s",
            (value, row),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
        )
    axes.set_yticks(range(len(stages)), [stage[0] for stage in stages])
    axes.invert_yaxis()
    axes.set_xlabel("seconds")
    axes.margins(x=0.1)
    axes.grid(axis="y", visible=False)
    return figure
