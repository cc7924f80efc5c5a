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

SHOWN = 100  # characters of a text on a terminal


def as_text(audit: Audit, failed: Sequence[Check]) -> str:
    """The audit for a terminal.

    Args:
        audit: the audit.
        failed: the checks that exceed what ``--fail-on`` allows.
    """
    d, w = audit.distances, audit.weights
    lower, median, upper = np.quantile(d, [0.25, 0.5, 0.75])
    lines = [
        f"{audit.pairs} pairs; at alpha {audit.alpha:g} their effective sample size is {audit.effective:.0f}",
        f"distance to the chosen: median {median:.3f}, quartiles {lower:.3f} and {upper:.3f}, maximum {d.max():.3f}",
        f"weight{audit.times_own}: mean {w.mean():.3f}",
    ]
    if audit.margins.size:
        lines.append(f"margin of the scores: median {np.median(audit.margins):.3g}")
    lines.append("")
    width = max(len(check.name) for check in audit.checks)
    failed_names = {check.name for check in failed}
    for check in audit.checks:
        count = f"{'?':>7}       " if check.count is None else f"{check.count:>7} ({check.share:>4.0%})"
        mark = "FAILS" if check.name in failed_names else "     "
        lines.append(f"{mark} {check.name:<{width}} {count}  {check.question}; {check.remark}")
    for title, rows in (("lowest weights", audit.lightest(5)), ("highest weights", audit.heaviest(5))):
        lines += ["", f"{title}:"]
        lines += [f"  W {weight:.3f}  {_short(pair.prompt)}  ->  {_short(pair.chosen)}" for pair, weight in rows]
    return "\n".join(lines) + "\n"


def as_numbers(audit: Audit, failed: Sequence[Check]) -> dict[str, Any]:
    """The audit for another program, ready for JSON.

    Args:
        audit: the audit.
        failed: the checks that exceed what ``--fail-on`` allows.
    """
    return {
        "pairs": audit.pairs,
        "alpha": audit.alpha,
        "effective_sample_size": audit.effective,
        "mean_weight": float(audit.weights.mean()),
        "distance": _quantiles(audit.distances),
        "margin": _quantiles(audit.margins) if audit.margins.size else None,
        "checks": {
            check.name: {
                "count": check.count,
                "total": check.total,
                "share": check.share,
                "examples": list(check.examples),
            }
            for check in audit.checks
        },
        "failed": [check.name for check in failed],
    }


def _quantiles(values: NDArray[np.float64]) -> dict[str, float]:
    return {f"{q:g}": float(np.quantile(values, q)) for q in (0, 0.25, 0.5, 0.75, 1)}


def as_page(audit: Audit, source: str, failed: Sequence[Check]) -> str:
    """The audit for a browser: HTML that loads no other file; every text of the pairs is escaped.

    Args:
        audit: the audit.
        source: name of the pairs, for the title.
        failed: the checks that exceed what ``--fail-on`` allows.

    Raises:
        ConfigError: the extra ``report`` is not installed; text and numbers do not need it.
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
        audit=audit,
        source=source,
        failed={check.name for check in failed},
        plots={name: Markup(plot) for name, plot in draw(audit).items()},
    )
    return page


def _short(text: str) -> str:
    text = printable(text)  # a line break within a text would look like another pair
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"
