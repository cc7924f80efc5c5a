"""An audit as text, as numbers and as one page that opens from disk."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semdpo import extras
from semdpo.analysis.audit import Audit, Check
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

    Raises:
        ConfigError: the extra ``report`` is not installed; text and numbers need nothing of it.
    """
    extras.require(report="a page")
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    from semdpo.reporting.audit_plots import draw

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, auto_reload=False
    )
    template = resources.files("semdpo.reporting").joinpath("audit.html.j2").read_text("utf-8")
    page: str = environment.from_string(template).render(
        found=found,
        source=source,
        failed={each.name for each in failed},
        plots={name: Markup(plot) for name, plot in draw(found).items()},
    )
    return page


def _short(text: str) -> str:
    text = printable(text)  # a line end within a text would look like another pair
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"
