"""What a command shows when its long work is done: how a training went, and how the methods of a run compare."""

from __future__ import annotations

import csv
import io
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from semdpo.data.records import Curve
    from semdpo.recipe.schema import Recipe

DEMO = Path("runs/tiny/train/sem_dpo")  # the rewriter that `semdpo optimize` takes when none is named
TINY_PROMPT = "a red ball in the desert"  # of words that the embedded world's encoder knows

# Curve → how people call it, and its decimal places.
SHOWN = {
    "loss": ("loss", 4),
    "reward_accuracy": ("reward accuracy", 2),
    "reward_margin": ("reward margin", 4),
    "effective_sample_size": ("effective sample size of the update", 1),
}


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells as plain text: the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    )


def training_summary(curves: Sequence[Curve], held_out: str | None = None, count: int = 0) -> str:
    """The first and the last value of a training's main curves; an objective without rewards has the loss alone.

    A value is of one update's pairs, before that update.

    Args:
        curves: of one training.
        held_out: the file of the pairs that were evaluated at the end; None where there were none.
        count: how many these are.
    """
    values: dict[str, list[float]] = {}
    for curve in sorted(curves, key=lambda curve: curve.step):
        values.setdefault(curve.name, []).append(curve.value)
    rows = [("", "first update", "last update")]
    for name, (label, places) in SHOWN.items():
        if name in values:
            rows.append((label, f"{values[name][0]:.{places}f}", f"{values[name][-1]:.{places}f}"))
    if held_out is None:
        return aligned(rows)
    measured = [
        f"{label} {values[f'eval_{name}'][-1]:.{places}f}"
        for name, (label, places) in SHOWN.items()
        if f"eval_{name}" in values
    ]
    pairs = f"{count:,} pair{'' if count == 1 else 's'}"
    return f"{aligned(rows)}\n{held_out} ({pairs}, not learnt): {', '.join(measured)}"


def run_closing(folder: Path, recipe: Recipe) -> str:
    """The main results of a run as a table, where its page is, and what to try next.

    Args:
        folder: of the run, whose report is written.
        recipe: of the run.
    """
    report = (folder / "report").resolve()
    lines = ["", _results(report / "tables/results.csv"), "", f"report: {(report / 'index.html').as_uri()}"]
    if recipe.report.subject in recipe.train.methods:
        lines.append(f"next:   {_optimize(folder / 'train' / recipe.report.subject, recipe)}")
    return "\n".join(lines)


def _results(path: Path) -> str:
    """Method by metric, the user's own prompt first, from the table that the report wrote; with the drift."""
    from semdpo.reporting.formats import decimals, number
    from semdpo.reporting.labels import EXTRAS, method_label, metric_label

    rows = [row for row in csv.DictReader(io.StringIO(path.read_text("utf-8"))) if row["source"] == "all"]
    methods = list(dict.fromkeys(row["method"] for row in rows))
    hidden = {"average", *EXTRAS} - {"drift"}
    metrics = [name for name in dict.fromkeys(row["metric"] for row in rows) if name not in hidden]
    means = {(row["method"], row["metric"]): float(row["mean"]) for row in rows}
    # Of a metric's values as many digits as its widest interval allows, as on the page.
    places = {
        name: decimals(max(float(row["high"]) - float(row["low"]) for row in rows if row["metric"] == name) / 2)
        for name in metrics
    }
    table = [["method", *map(metric_label, metrics)]]
    table += [
        [method_label(method), *(number(means[method, name], places[name]) for name in metrics)] for method in methods
    ]
    about = (
        f"Means over {rows[0]['prompts']} held-out prompts; higher is better, but drift is 0 for an unchanged meaning."
    )
    return f"{aligned(table)}\n{about}"


def _optimize(model: Path, recipe: Recipe) -> str:
    """A command that uses what was trained."""
    prompt = TINY_PROMPT if recipe.drift.encoder.startswith("tiny:") else "your prompt"
    named = "" if model == DEMO else f" --model {shlex.quote(str(model))}"
    return f"semdpo optimize {shlex.quote(prompt)}{named}"
