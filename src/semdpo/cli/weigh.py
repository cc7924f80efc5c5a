"""``semdpo weigh``: a file of pairs with the drift of every chosen text."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from semdpo import disk
from semdpo.cli import output
from semdpo.cli.options import PairsFile, number
from semdpo.progress import bar, say, show
from semdpo.recipe import defaults

if TYPE_CHECKING:
    from semdpo.analysis.drift import Drift


def weigh(
    pairs: PairsFile,
    out: Annotated[Path, typer.Option("--out", "-o", help="Where to write them: .jsonl, .csv, .tsv or .parquet.")],
    encoder: Annotated[str, typer.Option(help="Any CLIP or sentence-transformers model.")] = defaults.ENCODER,
    alpha: Annotated[float, typer.Option(help="For the summary: weights are exp(-alpha * distance).")] = defaults.ALPHA,
    batch_size: Annotated[int, typer.Option(help="Texts at a time.")] = defaults.TEXTS_AT_A_TIME,
) -> None:
    """Measure how far the chosen texts of preference pairs drift from their prompts."""
    number("--alpha", alpha, 0)
    number("--batch-size", batch_size, 1)
    weigh_file(pairs, out, encoder, alpha, batch_size)


def weigh_file(pairs: str, out: Path, encoder: str, alpha: float, batch_size: int) -> None:
    """Writes a file of pairs with their distances; all of the user's other columns are kept.

    Args:
        pairs: file of columns prompt, chosen, rejected.
        out: file to write; its suffix says how.
        encoder: name of the frozen encoder.
        alpha: for the summary that is printed, ≥ 0.
        batch_size: texts at a time, ≥ 1.

    Raises:
        SemdpoError: the file or the encoder cannot be used, or the encoder does not know the words.
    """
    from semdpo.analysis.drift import measure, refuse_unknown_words, with_drift
    from semdpo.data import tables, writers
    from semdpo.data.pairs import other_scores, pairs_of, refuse_own_columns, user_columns, write_pairs
    from semdpo.engine import fingerprint
    from semdpo.engine.providers import own_models
    from semdpo.models.registry import lasting

    writers.check_suffix(out)
    disk.refuse_unwritable(out)
    output.refuse_inputs(out, [pairs])
    table = tables.read_table(pairs)
    rows = pairs_of(table)
    refuse_own_columns(table)
    writers.encoded(out.suffix.lower(), user_columns(table.columns), source=table.columns)  # before hours are spent
    known = fingerprint.model(encoder)  # an unknown name is told before torch is imported
    model = own_models().encoder(encoder)
    with bar("measuring drift") as progress:
        drift = measure(rows, model, batch_size, progress)
    refuse_unknown_words(drift.unknown, encoder)
    before = out.exists()
    write_pairs(out, with_drift(rows, drift, lasting(encoder), known), table.columns)
    if before:
        say(f"replaced {out}")
    if any(row.distance is not None for row in rows):
        say(f"{pairs} has distances; those in {out} are measured again, by {encoder}")
    if note := other_scores(table).note:
        say(f"{pairs}: {note}")
    show(f"{len(rows)} pairs → {out}")
    _show_summary(drift, alpha)


def _show_summary(drift: Drift, alpha: float) -> None:
    from semdpo.analysis.semantics import effective_sample_size, semantic_weight

    weights = semantic_weight(drift.distance, alpha)
    unknown = "not told by this encoder" if drift.unknown is None else f"{drift.unknown:.1%}"
    show(f"distance of prompt and chosen: mean {drift.distance.mean():.3f}, largest {drift.distance.max():.3f}")
    show(f"weight at alpha {alpha:g}: mean {weights.mean():.3f}")
    show(f"effective sample size: {effective_sample_size(weights):.0f} of {len(weights)}")
    show(f"unknown words: {unknown}; pairs longer than the encoder reads: {int(drift.truncated.sum())}")
