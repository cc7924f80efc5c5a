"""``semdpo audit``: what a file of pairs will teach a rewriter, as text, page, numbers and exit code."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence, Set
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from semdpo import disk, extras
from semdpo.cli import output
from semdpo.cli.options import NOBODY, PairsFile, number, typed_by_user
from semdpo.errors import ConfigError
from semdpo.progress import bar, say, show
from semdpo.recipe import defaults

if TYPE_CHECKING:
    from semdpo.analysis.audit import Audit
    from semdpo.data.records import Pair


def audit(
    pairs: PairsFile,
    encoder: Annotated[str, typer.Option(help="The text encoder, for pairs without a distance.")] = defaults.ENCODER,
    alpha: Annotated[float, typer.Option(help="Strength of the weights exp(-alpha * distance).")] = defaults.ALPHA,
    evaluation: Annotated[str | None, typer.Option(help="File of prompts that must not be trained on.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write the audit as an HTML page.")] = None,
    json_: Annotated[Path | None, typer.Option("--json", help="Write the numbers as JSON.")] = None,
    fail_on: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CHECK[=SHARE]",
            help="Exit with code 1 if the check finds any, or more than this share.",
        ),
    ] = None,
    context: typer.Context = NOBODY,
) -> None:
    """Report what preference pairs will teach. Checks drift, duplicates, leaks, truncation, ties, length bias."""
    number("--alpha", alpha, 0)
    typed = typed_by_user(context, "encoder")
    if not audit_file(pairs, encoder, alpha, evaluation, html, json_, fail_on or [], encoder_named=typed):
        raise typer.Exit(1)


def audit_file(
    pairs: str,
    encoder: str,
    alpha: float,
    evaluation: str | None,
    page: Path | None,
    numbers: Path | None,
    fail_on: Sequence[str],
    *,
    encoder_named: bool = False,
) -> bool:
    """Prints the audit, and writes it to the files that are given.

    Args:
        pairs: The file of pairs: columns prompt, chosen, rejected, and distance if they were weighed; or the address of
            a run's stage on an object storage.
        encoder: The name of the text encoder that measures the distances, if the pairs have none.
        alpha: The strength of the weight, ≥ 0.
        evaluation: The file of prompts that must not be trained on, if there is one.
        page: The HTML file to write, if any.
        numbers: The JSON file to write, if any.
        fail_on: The checks that must not fail, each with the share of pairs it allows; see ``audit.limits``.
        encoder_named: Whether the user typed the encoder; it is refused then if it would have no effect.

    Returns:
        Whether all checks in ``fail_on`` passed.

    Raises:
        SemdpoError: A file, an option or the encoder cannot be used.
    """
    from semdpo.analysis import audit as checks
    from semdpo.data.pairs import other_scores, pairs_of
    from semdpo.data.pieces import read_pieces
    from semdpo.data.prompts import read_prompts

    allowed = checks.limits(fail_on)
    if (address := disk.address(pairs)) is not None:
        from semdpo.engine.mirror import fetched_stage

        pairs = str(fetched_stage(address))
    if page is not None and numbers is not None and os.path.realpath(page) == os.path.realpath(numbers):
        raise ConfigError(f"--html and --json name the same file, {page}; choose another for one of them")
    if page is not None:
        extras.require(report="--html")
    for path in (page, numbers):
        if path is not None:
            disk.refuse_unwritable(path)
            output.refuse_inputs(path, (pairs, evaluation))
    pieces = read_pieces(pairs)
    scores = other_scores(pieces)
    measured, encoders = True, set[str | None]()
    for rows in (pairs_of(table, scores) for table in pieces):
        measured = measured and all(pair.distance is not None for pair in rows)
        encoders |= {pair.encoder for pair in rows}
    held_out = [] if evaluation is None else read_prompts(evaluation)
    if encoder_named and measured:
        _refuse_unused(encoders, encoder, pairs)
    parts: Iterator[Sequence[Pair]] = (pairs_of(table, scores) for table in pieces)
    weighed = parts if measured else _weighed(parts, pieces.rows, encoder)
    result = checks.audit(chain.from_iterable(weighed), alpha, held_out)
    failed = checks.failures(result, allowed)
    from semdpo.reporting import audit_page as shown

    show(shown.as_text(result, failed).removesuffix("\n"))
    if remark := _unread(result, encoders if measured else {encoder}):
        say(remark)
    if scores.note:
        say(f"{pairs}: {scores.note}")
    if page is not None:
        output.write(page, shown.as_page(result, _title(Path(pairs)), failed).encode())
    if numbers is not None:
        output.write(numbers, json.dumps(shown.as_numbers(result, failed), indent=1).encode())
    return not failed


def _unread(result: Audit, encoders: Set[str | None]) -> str:
    """What it means that many pairs have a text that is longer than their encoder reads; empty for few pairs."""
    from semdpo.models import unread

    check = next(check for check in result.checks if check.name == "truncation")
    only = next(iter(encoders)) if len(encoders) == 1 else None
    return unread.sentence(check.count or 0, check.total, "pairs have a text", only)


def _title(pairs: Path) -> str:
    """The page's title: the file's name, or a stage's folder with its run's name in front."""
    return f"{pairs.resolve().parent.name}/{pairs.name}" if pairs.is_dir() else pairs.name


def _weighed(parts: Iterable[Sequence[Pair]], total: int, encoder: str) -> Iterator[Sequence[Pair]]:
    """The parts of ``total`` pairs with their distances."""
    from semdpo.analysis.drift import measure_pieces, refuse_unknown_words, with_drift
    from semdpo.engine import fingerprint
    from semdpo.engine.providers import own_models

    fingerprint.model(encoder)  # refuses an unknown name before torch is imported
    model = own_models().encoder(encoder)
    unknown = None
    with bar("measuring drift") as progress:
        for part, drift in measure_pieces(parts, total, model, defaults.TEXTS_AT_A_TIME, progress):
            unknown = drift.unknown
            yield with_drift(part, drift)
    refuse_unknown_words(unknown, encoder)


def _refuse_unused(encoders: Set[str | None], encoder: str, pairs: str) -> None:
    """Refuses an encoder that the user typed, if the pairs have another encoder's distances."""
    from semdpo.models.registry import lasting

    if encoders != {lasting(encoder)}:
        raise ConfigError(
            f"{pairs} already has distances, so --encoder {encoder} has no effect; leave it out, or measure the "
            "distances again with `semdpo weigh`"
        )
