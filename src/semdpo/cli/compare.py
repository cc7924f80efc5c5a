"""``semdpo compare``: two rewriters on the same prompts, by their words alone."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from semdpo import disk
from semdpo.cli import output
from semdpo.cli.closing import aligned
from semdpo.cli.options import named_as_options, number
from semdpo.progress import bar, show

if TYPE_CHECKING:
    from semdpo.reporting.compare import Comparison, Side

LABELS = {
    "drift": "drift",
    "tokens": "tokens",
    "words_added": "content words added",
    "words_dropped": "content words dropped",
    "likelihood": "log-likelihood per token",
}


def compare(
    a: Annotated[str, typer.Argument(help="A rewriter: a folder or a name.")],
    b: Annotated[str, typer.Argument(help="Another; differences are B - A.")],
    prompts: Annotated[str, typer.Argument(help="Prompts: txt (one a line), jsonl, json, csv, tsv or parquet.")],
    encoder: Annotated[
        str | None,
        typer.Option(help="Any CLIP or sentence-transformers model; the one that weighed the pairs when not given."),
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(
            help="The rewriter that says how likely the rewrites are; each says it of the other's when not given."
        ),
    ] = None,
    max_new_tokens: Annotated[
        int | None, typer.Option(help="Budget of a rewrite; that of the longest one learnt by either when not given.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Take this many prompts, from the top; all when not given.")] = None,
    examples: Annotated[int, typer.Option(help="Prompts to show, those whose drift differs most.")] = 5,
    json_: Annotated[Path | None, typer.Option("--json", help="Write the numbers and all rewrites.")] = None,
) -> None:
    """Compare two rewriters without rendering: drift, length, word changes, likelihood, paired intervals."""
    number("--examples", examples, 0)
    for option, value in (("--limit", limit), ("--max-new-tokens", max_new_tokens)):
        if value is not None:
            number(option, value, 1)
    if json_ is not None:
        disk.refuse_unwritable(json_)
        output.refuse_inputs(json_, [prompts, a, b, encoder, reference])
    from semdpo.data.prompts import read_prompts

    asked = read_prompts(prompts)[:limit]
    from semdpo.reporting.compare import compare

    with named_as_options("max_new_tokens"), bar("comparing") as progress:
        found = compare(
            asked, a, b, encoder=encoder, reference=reference, max_new_tokens=max_new_tokens, progress=progress
        )
    show(_as_text(found, examples))
    if json_ is not None:
        output.write(json_, json.dumps(_as_numbers(found), indent=1, ensure_ascii=False).encode())


def _as_text(found: Comparison, examples: int) -> str:
    parts = [
        f"A: {found.a.name}\nB: {found.b.name}",
        f"{_table(found)}\n{_remarks(found)}",
        *(_example(found, place) for place in found.examples(examples)),
    ]
    return "\n\n".join(parts)


def _table(found: Comparison) -> str:
    from semdpo.reporting.formats import decimals, number, signed

    rows = [["mean over prompts", "A", "B", "B − A", "95% interval"]]
    for name, measure in found.measures.items():
        places = decimals(max(each.high - each.low for each in (measure.a, measure.b)) / 2)
        difference = ("–", "–") if measure.difference is None else signed(measure.difference)
        rows.append([LABELS[name], number(measure.a.mean, places), number(measure.b.mean, places), *difference])
    return aligned(rows)


def _remarks(found: Comparison) -> str:
    """What the table is of, and whatever went wrong with single rewrites."""
    reader = "the other rewriter" if found.reference is None else found.reference
    sentences = [
        f"{len(found.prompts):,} prompts, {found.same:,} with the same rewrite by both. Drift is measured by "
        f"{found.encoder} (0: means the same), likelihood under {reader}.",
    ]
    if any(measure.difference is None for measure in found.measures.values()):
        sentences.append("The two have different tokens, so their likelihoods cannot be compared; give --reference.")
    for letter, side in (("A", found.a), ("B", found.b)):
        sentences += _wrong(letter, side)
    return "\n".join(sentences)


def _wrong(letter: str, side: Side) -> list[str]:
    truncated, unread, empty = sum(side.truncated), sum(side.unread), sum(not text for text in side.rewrites)
    return [
        *([f"{letter}: {truncated} rewrites were truncated; raise --max-new-tokens."] if truncated else []),
        *(
            [f"{letter}: {unread} rewrites are longer than the encoder reads, which read their beginning."]
            if unread
            else []
        ),
        *([f"{letter}: {empty} rewrites are empty."] if empty else []),
    ]


def _example(found: Comparison, place: int) -> str:
    sides = [
        f"  {letter} ({side.values['drift'][place]:.3f}): {side.rewrites[place]}"
        for letter, side in (("A", found.a), ("B", found.b))
    ]
    return "\n".join([found.prompts[place], *sides])


def _as_numbers(found: Comparison) -> dict[str, Any]:
    """Everything, for other programs: the measures, and a row for each prompt."""

    def row(side: Side, place: int) -> dict[str, Any]:
        values = {name: column[place] for name, column in side.values.items()}
        return {
            "rewrite": side.rewrites[place],
            "truncated": side.truncated[place],
            "unread": side.unread[place],
            **values,
        }

    return {
        "a": found.a.name,
        "b": found.b.name,
        "encoder": found.encoder,
        "reference": found.reference,
        "prompts": len(found.prompts),
        "same": found.same,
        "measures": {name: asdict(measure) for name, measure in found.measures.items()},
        "rows": [
            {"prompt": prompt, "a": row(found.a, place), "b": row(found.b, place)}
            for place, prompt in enumerate(found.prompts)
        ],
    }
