"""``semdpo weigh``: measures the drift of every chosen text in a file of pairs."""

from __future__ import annotations

import math
from array import array
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
    from semdpo.data.tables import Table


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
    from semdpo.analysis.drift import measure_pieces, refuse_unknown_words, with_drift
    from semdpo.data.pairs import TYPES, columns_of, other_scores, pairs_of
    from semdpo.data.pieces import read_pieces
    from semdpo.data.writers import check_suffix, written
    from semdpo.engine import fingerprint
    from semdpo.engine.providers import own_models
    from semdpo.models import unread
    from semdpo.models.registry import lasting

    check_suffix(out)
    disk.refuse_unwritable(out)
    output.refuse_inputs(out, [pairs])
    # The types of a parquet file's columns are those of a parquet file that is read, or of all values.
    table = read_pieces(pairs, whole=_is_parquet(out) and not _is_parquet(pairs))
    scores = other_scores(table)
    seen = _Seen()
    for piece in table:
        seen.add(piece, pairs_of(piece, scores), out.suffix.lower())
    earlier = seen.alpha()
    if alpha is not None and earlier is None and seen.has_weights:
        raise DataError(
            f"{pairs} has a column 'weight' of its own, which --alpha would overwrite; leave --alpha out, or rename "
            "the column"
        )
    content = fingerprint.model(encoder)  # refuses an unknown name before torch is imported
    model = own_models().encoder(encoder)
    existed, summary = out.exists(), _Summary()
    with bar("measuring drift") as progress, written(out, TYPES, seen.texts) as write:
        rows = (pairs_of(piece, scores) for piece in table)
        for piece, (part, drift) in zip(
            table, measure_pieces(rows, table.rows, model, batch_size, progress), strict=True
        ):
            measured = with_drift(part, drift, lasting(encoder), content)
            if alpha is not None or earlier:
                measured = _with_weights(measured, alpha)
            summary.add(drift, measured if alpha is None else ())
            write(columns_of(measured, piece.columns, seen.own_ids), piece.columns)
        refuse_unknown_words(summary.unknown, encoder)
    if existed:
        say(f"replaced {out}")
    if seen.has_distances:
        say(f"{pairs} already has distances; those in {out} were measured again, by {encoder}")
    if earlier and alpha is None:
        say(f"{pairs} has weights of alpha {earlier:.3g}, which {out} does not; give --alpha to write them again")
    if scores.note:
        say(f"{pairs}: {scores.note}")
    show(f"{table.rows} pairs → {out}")
    summary.show(alpha)
    if remark := unread.sentence(summary.truncated, table.rows, "pairs have a text", encoder):
        say(remark)


def _is_parquet(path: str | Path) -> bool:
    return Path(path).suffix.lower() == ".parquet" and not disk.is_dir(path)


class _Seen:
    """What must be known of all pairs before the first one is measured, which may take hours."""

    def __init__(self) -> None:
        self.weights, self.distances = array("d"), array("d")  # NaN where a pair has none
        self.has_weights = self.has_distances = self.own_ids = False
        self.texts: set[str] = set()  # the user's columns that hold a text that is no number

    def add(self, table: Table, pairs: Sequence[Pair], suffix: str) -> None:
        """Looks at a piece, and refuses columns that ``weigh`` or a file with this suffix cannot hold."""
        from semdpo.data.pairs import has_own_ids, refuse_own_columns, user_columns
        from semdpo.data.writers import encoded, is_numeric

        refuse_own_columns(table)
        columns = user_columns(table.columns)
        encoded(suffix, columns, source=table.columns)
        self.texts |= {name for name, values in columns.items() if not is_numeric(values)}
        self.own_ids = self.own_ids or has_own_ids(table.columns)
        self.has_weights = self.has_weights or any(pair.weight is not None for pair in pairs)
        self.has_distances = self.has_distances or any(pair.distance is not None for pair in pairs)
        self.weights.extend(math.nan if pair.weight is None else pair.weight for pair in pairs)
        self.distances.extend(math.nan if pair.distance is None else pair.distance for pair in pairs)

    def alpha(self) -> float | None:
        """The α with which an earlier ``weigh`` wrote the weights; None where these are the user's, or absent."""
        from semdpo.analysis.semantics import alpha_of_weights

        if any(map(math.isnan, self.weights)) or any(map(math.isnan, self.distances)):
            return None
        return alpha_of_weights(self.weights, self.distances)


def _with_weights(pairs: Sequence[Pair], alpha: float | None) -> list[Pair]:
    """The pairs with weight exp(−α·distance), or without a weight where alpha is None."""
    from semdpo.analysis.semantics import semantic_weight

    if alpha is None:
        return [replace(pair, weight=None) for pair in pairs]
    weights = semantic_weight([pair.distance or 0.0 for pair in pairs], alpha)
    return [replace(pair, weight=float(weight)) for pair, weight in zip(pairs, weights, strict=True)]


class _Summary:
    """The distances of all pairs, for the lines that the command prints."""

    def __init__(self) -> None:
        self.distances, self.own, self.truncated = array("d"), array("d"), 0
        self.has_own = False
        self.unknown: float | None = None

    def add(self, drift: Drift, pairs: Sequence[Pair]) -> None:
        """Adds a piece; weights of the pairs' own, such as 1/p of a render budget, multiply those that are shown."""
        self.distances.extend(drift.distance)
        self.has_own = self.has_own or any(pair.weight is not None for pair in pairs)
        self.own.extend(pair.own_weight for pair in pairs)
        self.truncated += int(drift.truncated.sum())
        self.unknown = drift.unknown

    def show(self, alpha: float | None) -> None:
        """Prints the lines."""
        import numpy as np

        from semdpo.analysis.semantics import effective_sample_size, semantic_weight

        strength = defaults.ALPHA if alpha is None else alpha
        distances = np.array(self.distances)
        weights, times = semantic_weight(distances, strength), ""
        if self.has_own:
            weights, times = weights * np.array(self.own), ", times the pair's own weight"
        unknown = "not reported by this encoder" if self.unknown is None else f"{self.unknown:.1%}"
        show(f"distance of prompt and chosen: mean {distances.mean():.3f}, largest {distances.max():.3f}")
        show(f"weight at alpha {strength:g}{times}: mean {weights.mean():.3f}")
        show(f"effective sample size: {effective_sample_size(weights):.0f} of {len(weights)}")
        show(f"unknown words: {unknown}; pairs longer than the encoder reads: {self.truncated}")
        if alpha is not None:
            show(
                f"wrote weight = exp(-{alpha:g} * distance), for trainers that read a weight, such as TRL's; sem_dpo "
                "computes its own from the distance"
            )
