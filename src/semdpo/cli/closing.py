"""What a command shows at its end: how a training went, and how the methods of a run compare."""

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

DEMO = Path("runs/tiny/train/sem_dpo")  # the rewriter that `semdpo optimize` uses when --model is not given
TINY_PROMPT = "a red ball in the desert"  # all of its words are known to the tiny world's encoder

# Curve → its name in the summary, and its number of decimal places.
SHOWN = {
    "loss": ("loss", 4),
    "reward_accuracy": ("reward accuracy", 2),
    "reward_margin": ("reward margin", 4),
    "effective_sample_size": ("effective sample size of the update", 1),
}


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """A table as plain text: the first column is aligned to the left, all others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    )


def training_summary(curves: Sequence[Curve], held_out: str | None = None, count: int = 0) -> str:
    """The first and the last value of a training's main curves; an objective without rewards has only the loss.

    Each value is measured on the pairs of one update, just before that update.

    Args:
        curves: The points of one training's curves.
        held_out: The file of the held-out pairs that were evaluated at the end; None if there were none.
        count: The number of these held-out pairs.
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
    return f"{aligned(rows)}\n{held_out} ({pairs}, evaluation only): {', '.join(measured)}"


def run_closing(folder: Path, recipe: Recipe) -> str:
    """The main results of a run as a table, the address of its report, and a command to try next.

    Args:
        folder: The run's folder; its report is already written.
        recipe: The run's recipe.
    """
    report = (folder / "report").resolve()
    lines = ["", _results(report / "tables/results.csv", recipe), "", f"report: {(report / 'index.html').as_uri()}"]
    if recipe.report.subject in recipe.train.methods:
        trained = [each.trained for each in recipe.later_rounds if each.method == recipe.report.subject]
        last = folder / (trained or [f"train/{recipe.report.subject}"])[-1]
        lines.append(f"next:   {optimize_command(last, recipe.drift.encoder)}")
    return "\n".join(lines)


def _results(path: Path, recipe: Recipe) -> str:
    """A table of methods by metrics and drift, from the report's own table; the user's prompt comes first.

    Where the report compares facts, drift and facts have a table of their own, so that both fit a terminal.
    """
    from semdpo.reporting.formats import decimals, number
    from semdpo.reporting.labels import EXTRAS, FACTS, method_label, metric_label, variant_label

    rows = [row for row in csv.DictReader(io.StringIO(path.read_text("utf-8"))) if row["source"] == "all"]
    labels = {row["method"]: method_label(row["method"]) for row in rows}
    labels |= {name: variant_label(v.method, v.name) for name, v in recipe.secondary.items() if name in labels}
    hidden = {"average", *EXTRAS} - {"drift"}
    metrics = [name for name in dict.fromkeys(row["metric"] for row in rows) if name not in hidden]
    means = {(row["method"], row["metric"]): float(row["mean"]) for row in rows}
    # Each metric has as many digits as its widest interval justifies, as in the report.
    places = {
        name: decimals(max(float(row["high"]) - float(row["low"]) for row in rows if row["metric"] == name) / 2)
        for name in metrics
    }
    about_words = [name for name in metrics if name in ("drift", *FACTS)]
    groups, note = [metrics], "Higher is better, except drift: 0 means the same."
    if len(about_words) > 1:
        groups = [[name for name in metrics if name not in about_words], about_words]
        note = "Scores: higher is better. Drift and shares of rewrites: lower is closer to the prompt."
    tables = [
        aligned(
            [
                ["method", *map(metric_label, group)],
                *([label, *(number(means[m, name], places[name]) for name in group)] for m, label in labels.items()),
            ]
        )
        for group in groups
    ]
    return "\n\n".join(tables) + f"\nMeans over {rows[0]['prompts']} held-out prompts. {note}"


def optimize_command(model: Path, encoder: str) -> str:
    """The command that rewrites a prompt with a trained rewriter.

    Args:
        model: The rewriter's folder.
        encoder: The name of the encoder that measures its drift; a tiny one knows few words.
    """
    prompt = TINY_PROMPT if encoder.startswith("tiny:") else "your prompt"
    option = "" if model == DEMO else f" --model {shlex.quote(str(model))}"
    return f"semdpo optimize {shlex.quote(prompt)}{option}"
