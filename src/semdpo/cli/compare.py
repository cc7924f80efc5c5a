"""``semdpo compare``: two rewriters on the same prompts, compared by their words alone."""

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
    a: Annotated[str, typer.Argument(help="The first rewriter: a folder or a name.")],
    b: Annotated[str, typer.Argument(help="The second rewriter; differences are B - A.")],
    prompts: Annotated[str, typer.Argument(help="File of prompts: txt (one a line), jsonl, json, csv, tsv, parquet.")],
    encoder: Annotated[
        str | None,
        typer.Option(help="The text encoder; by default, the one that measured the drift of the training pairs."),
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(
            help="The rewriter that gives the likelihoods; by default, each gives those of the other's rewrites."
        ),
    ] = None,
    max_new_tokens: Annotated[
        int | None, typer.Option(help="Most tokens of a rewrite; by default, those of the longest rewrite in training.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Compare on the first N prompts only.", metavar="N")] = None,
    examples: Annotated[int, typer.Option(help="Number of examples; those whose drift differs most are shown.")] = 5,
    json_: Annotated[Path | None, typer.Option("--json", help="Write the numbers and all rewrites as JSON.")] = None,
) -> None:
    """Compare two rewriters without rendering. Measures drift, length, word changes and likelihood, paired."""
    number("--examples", examples, 0)
    for option, value in (("--limit", limit), ("--max-new-tokens", max_new_tokens)):
        if value is not None:
            number(option, value, 1)
    if json_ is not None:
        disk.refuse_unwritable(json_)
        output.refuse_inputs(json_, [prompts, a, b, encoder, reference])
    from semdpo.data.prompts import read_prompts

    texts = read_prompts(prompts)[:limit]
    from semdpo.reporting.compare import compare

    with named_as_options("max_new_tokens"), bar("comparing") as progress:
        comparison = compare(
            texts, a, b, encoder=encoder, reference=reference, max_new_tokens=max_new_tokens, progress=progress
        )
    show(_as_text(comparison, examples))
    if json_ is not None:
        output.write(json_, json.dumps(_as_numbers(comparison), indent=1, ensure_ascii=False).encode())


def _as_text(comparison: Comparison, examples: int) -> str:
    parts = [
        f"A: {comparison.a.name}\nB: {comparison.b.name}",
        f"{_table(comparison)}\n{_remarks(comparison)}",
        *(_example(comparison, place) for place in comparison.examples(examples)),
    ]
    return "\n\n".join(parts)


def _table(comparison: Comparison) -> str:
    from semdpo.reporting.formats import decimals, number, signed

    rows = [["mean over prompts", "A", "B", "B − A", "95% interval"]]
    for name, measure in comparison.measures.items():
        places = decimals(max(mean.high - mean.low for mean in (measure.a, measure.b)) / 2)
        difference = ("–", "–") if measure.difference is None else signed(measure.difference)
        rows.append([LABELS[name], number(measure.a.mean, places), number(measure.b.mean, places), *difference])
    return aligned(rows)


def _remarks(comparison: Comparison) -> str:
    """What the table compares, and what went wrong with single rewrites."""
    reader = "the other rewriter" if comparison.reference is None else comparison.reference
    sentences = [
        f"{len(comparison.prompts):,} prompts, {comparison.same:,} with the same rewrite by both. Drift is measured by "
        f"{comparison.encoder} (0: means the same), likelihood under {reader}.",
    ]
    if any(measure.difference is None for measure in comparison.measures.values()):
        sentences.append("The tokenizers of A and B differ, so their likelihoods cannot be compared; give --reference.")
    for letter, side in (("A", comparison.a), ("B", comparison.b)):
        sentences += _wrong(letter, side)
    return "\n".join(sentences)


def _wrong(letter: str, side: Side) -> list[str]:
    truncated, unread, empty = sum(side.truncated), sum(side.unread), sum(not text for text in side.rewrites)
    return [
        *([f"{letter}: {truncated} rewrites were truncated; raise --max-new-tokens."] if truncated else []),
        *(
            [f"{letter}: {unread} rewrites are longer than the encoder reads; it read only their beginnings."]
            if unread
            else []
        ),
        *([f"{letter}: {empty} rewrites are empty."] if empty else []),
    ]


def _example(comparison: Comparison, place: int) -> str:
    sides = [
        f"  {letter} ({side.values['drift'][place]:.3f}): {side.rewrites[place]}"
        for letter, side in (("A", comparison.a), ("B", comparison.b))
    ]
    return "\n".join([comparison.prompts[place], *sides])


def _as_numbers(comparison: Comparison) -> dict[str, Any]:
    """The whole comparison for other programs: the measures, and a row for each prompt."""

    def row(side: Side, place: int) -> dict[str, Any]:
        values = {name: column[place] for name, column in side.values.items()}
        return {
            "rewrite": side.rewrites[place],
            "truncated": side.truncated[place],
            "unread": side.unread[place],
            **values,
        }

    return {
        "a": comparison.a.name,
        "b": comparison.b.name,
        "encoder": comparison.encoder,
        "reference": comparison.reference,
        "prompts": len(comparison.prompts),
        "same": comparison.same,
        "measures": {name: asdict(measure) for name, measure in comparison.measures.items()},
        "rows": [
            {"prompt": prompt, "a": row(comparison.a, place), "b": row(comparison.b, place)}
            for place, prompt in enumerate(comparison.prompts)
        ],
    }
