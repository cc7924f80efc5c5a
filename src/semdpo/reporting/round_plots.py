"""The figure of the rounds: drift, fidelity, preference and length of each method, from the start on."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from semdpo.reporting.compute import Tables
from semdpo.reporting.data import ReportData
from semdpo.reporting.labels import USER, method_label, metric_label
from semdpo.reporting.rounds import SFT
from semdpo.reporting.style import MARKERS, colours


def rounds_figure(data: ReportData, tables: Tables) -> Figure:
    """One panel for each column; round 0 is the rewriter that the first round starts from."""
    shown = ["drift", *(_first(data, names) for names in (data.fidelity, data.preference) if names), "tokens"]
    figure = Figure(figsize=(10, 3.1))
    for axes, name in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
        axes.set_title(metric_label(name))
        axes.set_xlabel("round")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.margins(0.08, 0.15)
        _lines(axes, data, tables, name)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=min(5, len(labels)))
    return figure


def _first(data: ReportData, names: Any) -> str:
    """The first scorer that took no part in training; the first one where all did."""
    return str(next((name for name in names if name in data.held_out), names[0]))


def _lines(axes: Any, data: ReportData, tables: Tables, name: str) -> None:
    palette = colours(tables.methods)
    if USER in tables.methods:
        axes.axhline(
            tables.means[USER, name].mean, color=palette[USER], linestyle="--", linewidth=1.2, label=method_label(USER)
        )
    start = [SFT] if SFT in tables.methods else []
    for i, method in enumerate(dict.fromkeys(each.method for each in data.rounds)):
        places = [each for each in data.rounds if each.method == method]
        means = [tables.means[at, name] for at in [*start, *(each.evaluated for each in places)]]
        axes.errorbar(
            [*([0] if start else []), *(each.number for each in places)],
            [e.mean for e in means],
            yerr=[[e.mean - e.low for e in means], [e.high - e.mean for e in means]],
            marker=MARKERS[i % len(MARKERS)],
            color=palette[method],
            markersize=6,
            linewidth=1.4,
            elinewidth=1.1,
            capsize=2.5,
            label=method_label(method),
        )
