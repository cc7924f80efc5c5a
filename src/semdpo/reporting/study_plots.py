"""The plots of a study: rates of raters and prompts with the overall interval, strengths, agreement of scorers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from semdpo.analysis.statistics import Estimate
from semdpo.reporting.labels import method_label, metric_label
from semdpo.reporting.style import INK, TIE, colours, style
from semdpo.study.analysis.groups import Groups
from semdpo.study.analysis.results import PairResult, Results

NAMED = 45  # raters or prompts whose names fit below a plot; more have their number
NARROW = 14  # raters or prompts for which a plot is wide enough, so that its title fits


def draw_study(results: Results, *, simulated: bool) -> dict[str, Figure]:
    """All figures for which there are data, by name.

    Args:
        results: the statistics.
        simulated: whether the raters are simulated, which every plot then says.
    """
    who = "simulated raters" if simulated else "raters"
    with style():
        figures = {
            f"rates_{place}": rates(pair, who, results.analysis.level) for place, pair in enumerate(results.primary)
        }
        if fit := results.strengths.get(results.analysis.primary):
            figures["strengths"] = strengths(fit, who)
        if any(results.scorers.values()):
            figures["scorers"] = scorers(results, who)
    return figures


def rates(pair: PairResult, who: str, level: float) -> Figure:
    """The share of votes for the first method: every rater, every prompt, and over both with its interval."""
    figure = Figure(figsize=(10, 3.4))
    widths = [min(NAMED, max(NARROW, len(part.rates))) for part in (pair.raters, pair.prompts)]
    grid: Any = figure.subplots(1, 2, sharey=True, width_ratios=widths)
    colour = colours([pair.first, pair.second])[pair.first]
    for axes, part, what in ((grid[0], pair.raters, who), (grid[1], pair.prompts, "prompts")):
        _bars(axes, part, what, pair, colour, level)
    grid[0].set_ylabel(f"share of votes for {method_label(pair.first)}")
    handles, labels = grid[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3)
    return figure


def _bars(axes: Any, part: Groups, what: str, pair: PairResult, colour: str, level: float) -> None:
    ordered = sorted(part.rates.items(), key=lambda item: (item[1], item[0]))
    axes.set_title(f"{what[0].upper()}{what[1:]} ({len(ordered)})")
    axes.set_xlabel("lowest rate first", fontsize=9)
    axes.axhspan(pair.both.low, pair.both.high, color=TIE, zorder=0, label=f"{level:.0%} interval")
    axes.axhline(pair.both.share, color=INK, linewidth=1.2, label="all votes")
    axes.axhline(0.5, color=INK, linewidth=0.9, linestyle=(0, (2, 2)), label="no difference")
    axes.plot(range(len(ordered)), [rate for _, rate in ordered], "o", color=colour, markersize=5, clip_on=False)
    axes.set_ylim(0, 1)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "25%", "50%", "75%", "100%"])
    axes.set_xlim(-0.6, len(ordered) - 0.4)
    axes.grid(axis="x", visible=False)
    if len(ordered) <= NAMED:
        names = [name if len(name) <= 8 else f"{name[:7]}…" for name, _ in ordered]
        axes.set_xticks(range(len(ordered)), names, rotation=90, fontsize=7.5)
    else:
        axes.set_xticks([])


def strengths(fit: Mapping[str, Estimate], who: str) -> Figure:
    """Bradley–Terry strengths with their intervals."""
    return _intervals(
        [(method_label(name), each) for name, each in fit.items()],
        f"log strength (mean 0) by the votes of {who}",
        [colours(list(fit))[name] for name in fit],
        0.0,
    )


def scorers(results: Results, who: str) -> Figure:
    """The AUC of every scorer against the majority of people."""
    found = [(metric_label(name), each.auc) for name, each in results.scorers.items() if each is not None]
    figure = _intervals(found, f"AUC against the majority of {who} (0.5: chance, 1: always agrees)", ["#7c8aa0"], 0.5)
    figure.axes[0].set_xlim(0, 1.02)
    return figure


def _intervals(rows: Sequence[tuple[str, Estimate]], label: str, palette: Sequence[str], neutral: float) -> Figure:
    figure = Figure(figsize=(10, 0.42 * len(rows) + 1.0))
    axes = figure.subplots()
    for row, (_, each) in enumerate(rows):
        colour = palette[row % len(palette)]
        axes.plot([each.low, each.high], [row, row], color=colour, linewidth=2)
        axes.plot(each.mean, row, "o", color=colour, markersize=7)
    axes.axvline(neutral, color=INK, linewidth=0.9, linestyle=(0, (2, 2)), zorder=0)
    axes.set_yticks(range(len(rows)), [name for name, _ in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel(label)
    axes.grid(axis="y", visible=False)
    return figure
