"""An audit as text, as numbers and as one page that opens from disk."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from typing import Any

import numpy as np
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure
from numpy.typing import NDArray

from semdpo.analysis.audit import Audit, Check
from semdpo.reporting.style import COLOURS, INK, style, to_svg
from semdpo.reporting.weight_plots import histogram
from semdpo.texts import printable

SHOWN = 100  # letters of a text on a terminal


def as_text(found: Audit, failed: Sequence[Check]) -> str:
    """For a terminal."""
    d, w = found.distances, found.weights
    quarter, half, most = np.quantile(d, [0.25, 0.5, 0.75])
    lines = [
        f"{len(found.pairs)} pairs; at alpha {found.alpha:g} they teach as much as {found.effective:.0f} equal ones",
        f"distance to the chosen: median {half:.3f}, middle half {quarter:.3f} to {most:.3f}, most {d.max():.3f}",
        f"weight: mean {w.mean():.3f}",
    ]
    if found.margins.size:
        lines.append(f"margin of the scores: median {np.median(found.margins):.3g}")
    lines.append("")
    width = max(len(each.name) for each in found.checks)
    marks = {each.name for each in failed}
    for each in found.checks:
        count = f"{'?':>7}       " if each.count is None else f"{each.count:>7} ({each.share:>4.0%})"
        mark = "FAILS" if each.name in marks else "     "
        lines.append(f"{mark} {each.name:<{width}} {count}  {each.question}; {each.remark}")
    for title, rows in (("silenced most", found.lightest(5)), ("kept most", found.heaviest(5))):
        lines += ["", f"{title}:"]
        lines += [f"  W {weight:.3f}  {_short(pair.prompt)}  ->  {_short(pair.chosen)}" for pair, weight in rows]
    return "\n".join(lines) + "\n"


def as_numbers(found: Audit, failed: Sequence[Check]) -> dict[str, Any]:
    """For another program."""
    return {
        "pairs": len(found.pairs),
        "alpha": found.alpha,
        "effective_sample_size": found.effective,
        "mean_weight": float(found.weights.mean()),
        "distance": _quantiles(found.distances),
        "margin": _quantiles(found.margins) if found.margins.size else None,
        "checks": {
            each.name: {"count": each.count, "total": each.total, "share": each.share, "examples": list(each.examples)}
            for each in found.checks
        },
        "failed": [each.name for each in failed],
    }


def _quantiles(values: NDArray[np.float64]) -> dict[str, float]:
    return {f"{q:g}": float(np.quantile(values, q)) for q in (0, 0.25, 0.5, 0.75, 1)}


def as_page(found: Audit, source: str, failed: Sequence[Check]) -> str:
    """For a browser: HTML that loads nothing from anywhere; every text of the pairs is escaped.

    Args:
        found: the audit.
        source: what the pairs are called.
        failed: the checks that a user will not have.
    """
    with style():
        plots = {"distances": distances(found.distances, found.alpha), "weights": histogram(found.weights, found.alpha)}
        if found.margins.size:
            plots["margins"] = margins(found.margins)
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, auto_reload=False
    )
    template = resources.files("semdpo.reporting").joinpath("audit.html.j2").read_text("utf-8")
    page: str = environment.from_string(template).render(
        found=found,
        source=source,
        failed={each.name for each in failed},
        plots={name: Markup(to_svg(figure, name)) for name, figure in plots.items()},
    )
    return page


def distances(d: NDArray[np.float64], alpha: float) -> Figure:
    """How the distances are spread, and beside them the weight that alpha gives to each."""
    figure = Figure(figsize=(10, 3.1))
    axes = figure.subplots()
    end = max(0.1, float(d.max()) * 1.02)
    axes.hist(d, bins=np.linspace(0, end, 41).tolist(), color=COLOURS["dpo"], alpha=0.8, edgecolor="white")
    axes.set_xlim(0, end)
    axes.set_xlabel("distance of prompt and chosen (0: means the same)")
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
    """How far the scores of chosen and rejected are apart."""
    figure = Figure(figsize=(10, 2.6))
    axes = figure.subplots()
    axes.hist(m, bins=41, color=COLOURS["sft"], alpha=0.8, edgecolor="white")
    axes.axvline(0, color=INK, linewidth=1)
    axes.set_xlabel("score of the chosen minus score of the rejected")
    axes.set_ylabel("pairs")
    axes.grid(axis="x", visible=False)
    return figure


def _short(text: str) -> str:
    text = printable(text)  # a line end within a text would look like another pair
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"
