"""``semdpo weigh``: measures the drift of every chosen text in a file of pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from semdpo import disk
from semdpo.cli import output
from semdpo.cli.options import NOBODY, PairsFile, number, typed_by_user
from semdpo.errors import DataError
from semdpo.progress import bar, say, show
from semdpo.recipe import defaults

if TYPE_CHECKING:
    from semdpo.analysis.drift import Drift
    from semdpo.data.records import Pair


def weigh(
    pairs: PairsFile,
    out: Annotated[Path, typer.Option("--out", "-o", help="The file to write: .jsonl, .csv, .tsv or .parquet.")],
    encoder: Annotated[
        str, typer.Option(help="The text encoder: any CLIP or sentence-transformers model.")
    ] = defaults.ENCODER,
    alpha: Annotated[
        float,
        typer.Option(
            help="Also write the column weight = exp(-alpha * distance), for other trainers.",
            show_default=f"{defaults.ALPHA:g}, in the summary only",
        ),
    ] = defaults.ALPHA,
    batch_size: Annotated[int, typer.Option(help="Texts encoded at a time.")] = defaults.TEXTS_AT_A_TIME,
    context: typer.Context = NOBODY,
) -> None:
    """Measure how far chosen texts drift from their prompts. All columns of the pairs are kept."""
    number("--alpha", alpha, 0)
    number("--batch-size", batch_size, 1)
    weigh_file(pairs, out, encoder, alpha if typed_by_user(context, "alpha") else None, batch_size)


def weigh_file(pairs: str, out: Path, encoder: str, alpha: float | None, batch_size: int) -> None:
    """Writes a file of pairs with their distances; all of the user's other columns are kept.

    Args:
        pairs: The file of pairs, with the columns prompt, chosen and rejected.
        out: The file to write; its suffix names the format.
        encoder: The name of the frozen text encoder.
        alpha: The strength α ≥ 0 of the column ``weight``, which is written too. With None it is not written, and
            the summary shows the weights at the default α.
        batch_size: The number of texts encoded at a time, ≥ 1.

    Raises:
        SemdpoError: The file or the encoder cannot be used, the encoder does not know the words, or ``alpha`` is given
            and the file has weights of the user's own.
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
    earlier = _alpha_of_weights(rows)
    if alpha is not None and earlier is None and any(row.weight is not None for row in rows):
        raise DataError(
            f"{pairs} has a column 'weight' of its own, which --alpha would overwrite; leave --alpha out, or rename "
            "the column"
        )
    writers.encoded(out.suffix.lower(), user_columns(table.columns), source=table.columns)  # before hours are spent
    content = fingerprint.model(encoder)  # refuses an unknown name before torch is imported
    model = own_models().encoder(encoder)
    with bar("measuring drift") as progress:
        drift = measure(rows, model, batch_size, progress)
    refuse_unknown_words(drift.unknown, encoder)
    existed = out.exists()
    measured = with_drift(rows, drift, lasting(encoder), content)
    write_pairs(out, _with_weights(measured, alpha) if alpha is not None or earlier else measured, table.columns)
    if existed:
        say(f"replaced {out}")
    if any(row.distance is not None for row in rows):
        say(f"{pairs} already has distances; those in {out} were measured again, by {encoder}")
    if earlier and alpha is None:
        say(f"{pairs} has weights of alpha {earlier:.3g}, which {out} does not; give --alpha to write them again")
    if note := other_scores(table).note:
        say(f"{pairs}: {note}")
    show(f"{len(rows)} pairs → {out}")
    _show_summary(drift, alpha)


def _alpha_of_weights(pairs: Sequence[Pair]) -> float | None:
    """The α with which an earlier ``weigh`` wrote the pairs' weights; None where these are the user's, or absent."""
    from semdpo.analysis.semantics import alpha_of_weights

    weighted = [(pair.weight, pair.distance) for pair in pairs if pair.weight is not None and pair.distance is not None]
    return alpha_of_weights(*zip(*weighted, strict=True)) if weighted and len(weighted) == len(pairs) else None


def _with_weights(pairs: Sequence[Pair], alpha: float | None) -> list[Pair]:
    """The pairs with weight exp(−α·distance), or without a weight where alpha is None."""
    from semdpo.analysis.semantics import semantic_weight

    if alpha is None:
        return [replace(pair, weight=None) for pair in pairs]
    weights = semantic_weight([pair.distance or 0.0 for pair in pairs], alpha)
    return [replace(pair, weight=float(weight)) for pair, weight in zip(pairs, weights, strict=True)]


def _show_summary(drift: Drift, alpha: float | None) -> None:
    from semdpo.analysis.semantics import effective_sample_size, semantic_weight

    strength = defaults.ALPHA if alpha is None else alpha
    weights = semantic_weight(drift.distance, strength)
    unknown = "not reported by this encoder" if drift.unknown is None else f"{drift.unknown:.1%}"
    show(f"distance of prompt and chosen: mean {drift.distance.mean():.3f}, largest {drift.distance.max():.3f}")
    show(f"weight at alpha {strength:g}: mean {weights.mean():.3f}")
    show(f"effective sample size: {effective_sample_size(weights):.0f} of {len(weights)}")
    show(f"unknown words: {unknown}; pairs longer than the encoder reads: {int(drift.truncated.sum())}")
    if alpha is not None:
        show(
            f"wrote weight = exp(-{alpha:g} * distance), for trainers that read a weight, such as TRL's; sem_dpo "
            "computes its own from the distance"
        )
