"""``semdpo audit``: what a file of pairs will teach, as text, page, numbers and exit code."""

from __future__ import annotations

import json
from collections.abc import Sequence
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
    from semdpo.data.records import Pair


def audit(
    pairs: PairsFile,
    encoder: Annotated[str, typer.Option(help="Measures distances where the pairs have none.")] = defaults.ENCODER,
    alpha: Annotated[float, typer.Option(help="Weights are exp(-alpha * distance).")] = defaults.ALPHA,
    evaluation: Annotated[str | None, typer.Option(help="Prompts that must not be trained on.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page.")] = None,
    json_: Annotated[Path | None, typer.Option("--json", help="Write the numbers.")] = None,
    fail_on: Annotated[
        list[str] | None,
        typer.Option(metavar="CHECK[=SHARE]", help="Exit with 1 when there are any, or more than this share."),
    ] = None,
    context: typer.Context = NOBODY,
) -> None:
    """Say what preference pairs will teach: drift, duplicates, leaks, truncation, ties, length bias."""
    number("--alpha", alpha, 0)
    needed = typed_by_user(context, "encoder")
    if not audit_file(pairs, encoder, alpha, evaluation, html, json_, fail_on or [], encoder_named=needed):
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
    """Prints the audit, and writes it where asked.

    Args:
        pairs: file of columns prompt, chosen, rejected, and distance where they were weighed.
        encoder: measures the distances, where they are not there.
        alpha: strength of the weight, ≥ 0.
        evaluation: file of prompts that must not be trained on.
        page: an HTML file to write.
        numbers: a JSON file to write.
        fail_on: see ``audit.limits``.
        encoder_named: whether the user asked for this encoder, which must then have an effect.

    Returns:
        Whether everything is as the user will have it.

    Raises:
        SemdpoError: a file, option or the encoder cannot be used.
    """
    from semdpo.analysis import audit as checks
    from semdpo.data import tables
    from semdpo.data.pairs import other_scores, pairs_of
    from semdpo.data.prompts import read_prompts

    allowed = checks.limits(fail_on)
    if page is not None and numbers is not None and page.resolve() == numbers.resolve():
        raise ConfigError(f"--html and --json name one file, {page}; name another for one of them")
    if page is not None:
        extras.require(report="--html")
    for each in (page, numbers):
        if each is not None:
            disk.refuse_unwritable(each)
            output.refuse_inputs(each, (pairs, evaluation))
    table = tables.read_table(pairs)
    rows = pairs_of(table)
    held = [] if evaluation is None else read_prompts(evaluation)
    if encoder_named:
        _refuse_unused(rows, encoder, pairs)
    found = checks.audit(_weighed(rows, encoder), alpha, held)
    failed = checks.failures(found, allowed)
    from semdpo.reporting import audit_page as shown

    show(shown.as_text(found, failed).removesuffix("\n"))
    if note := other_scores(table).note:
        say(f"{pairs}: {note}")
    if page is not None:
        output.write(page, shown.as_page(found, _title(Path(pairs)), failed).encode())
    if numbers is not None:
        output.write(numbers, json.dumps(shown.as_numbers(found, failed), indent=1).encode())
    return not failed


def _title(pairs: Path) -> str:
    """A file by its name; a stage's folder with that of its run."""
    return f"{pairs.resolve().parent.name}/{pairs.name}" if pairs.is_dir() else pairs.name


def _weighed(rows: Sequence[Pair], encoder: str) -> Sequence[Pair]:
    if all(each.distance is not None for each in rows):
        return rows
    from semdpo.analysis.drift import weigh
    from semdpo.engine import fingerprint
    from semdpo.engine.providers import own_models

    fingerprint.model(encoder)  # an unknown name is told before torch is imported
    model = own_models().encoder(encoder)
    with bar("measuring drift") as progress:
        return weigh(rows, model, defaults.TEXTS_AT_A_TIME, encoder, progress)


def _refuse_unused(rows: Sequence[Pair], encoder: str, pairs: str) -> None:
    """An encoder that was asked for must be the one whose distances are shown."""
    from semdpo.models.registry import lasting

    own = {each.encoder for each in rows}
    if all(each.distance is not None for each in rows) and own != {lasting(encoder)}:
        raise ConfigError(
            f"{pairs} has its distances already, and --encoder {encoder} has no effect on them; leave it out, or "
            "measure them again with `semdpo weigh`"
        )
