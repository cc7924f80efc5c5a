"""What a command shows when its long work is done: how a training went, and how the methods of a run compare."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from semdpo.data.records import Curve

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


def training_summary(curves: Sequence[Curve]) -> str:
    """The first and the last value of a training's main curves; an objective without rewards has the loss alone.

    A value is of one update's pairs, before that update.

    Args:
        curves: of one training, in the order of their steps.
    """
    rows = [("", "first update", "last update")]
    for name, (label, places) in SHOWN.items():
        values = [curve.value for curve in sorted(curves, key=lambda curve: curve.step) if curve.name == name]
        if values:
            rows.append((label, f"{values[0]:.{places}f}", f"{values[-1]:.{places}f}"))
    return aligned(rows)
