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
