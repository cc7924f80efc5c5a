"""The plots of an audit's page."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from semdpo.analysis.audit import Audit
from semdpo.reporting.style import COLOURS, INK, style, to_svg
from semdpo.reporting.weight_plots import histogram


def draw(audit: Audit) -> dict[str, str]:
    """The plots as ``<svg>`` elements, by name; ``margins`` only where the pairs have scores.

    Args:
        audit: the audit.
    """
    with style():
        figures = {
            "distances": distances(audit.distances, audit.alpha),
            "weights": histogram(audit.weights, audit.alpha, audit.times_own),
        }
        if audit.margins.size:
            figures["margins"] = margins(audit.margins)
    return {name: to_svg(figure, name) for name, figure in figures.items()}


def distances(d: NDArray[np.float64], alpha: float) -> Figure:
    """A histogram of the distances, and the weight at each distance as a line."""
    figure = Figure(figsize=(10, 3.1))
    axes = figure.subplots()
    end = max(0.1, float(d.max()) * 1.02)
    axes.hist(d, bins=np.linspace(0, end, 41).tolist(), color=COLOURS["dpo"], alpha=0.8, edgecolor="white")
    axes.set_xlim(0, end)
    axes.set_xlabel("distance between prompt and chosen (0: same meaning)")
    axes.set_ylabel("pairs")
    axes.grid(axis="x", visible=False)
    weight = axes.twinx()
    x = np.linspace(0, end, 200)
    weight.plot(x, np.exp(-alpha * x), color=COLOURS["sem_dpo"], linewidth=1.8)
    weight.set_ylim(0, 1.02)
    weight.set_ylabel(f"weight at alpha {alpha:g}", color=INK)
    weight.grid(visible=False)
    return figure


def margins(m: NDArray[np.float64]) -> Figure:
    """A histogram of the margins: score of the chosen minus score of the rejected."""
    figure = Figure(figsize=(10, 2.6))
    axes = figure.subplots()
    axes.hist(m, bins=41, color=COLOURS["sft"], alpha=0.8, edgecolor="white")
    axes.axvline(0, color=INK, linewidth=1)
    axes.set_xlabel("score of the chosen minus score of the rejected")
    axes.set_ylabel("pairs")
    axes.grid(axis="x", visible=False)
    return figure
