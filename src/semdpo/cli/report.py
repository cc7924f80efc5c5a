"""``semdpo report``: the report of a run, or of a table of scored images from another program."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from semdpo import disk, extras
from semdpo.cli.options import NOBODY, refuse_without_effect, typed_by_user
from semdpo.errors import ConfigError, DataError, did_you_mean
from semdpo.progress import bar, say
from semdpo.recipe import defaults
from semdpo.texts import given_twice

if TYPE_CHECKING:
    from semdpo.data.records import EvaluationRow
    from semdpo.data.tables import Table
    from semdpo.recipe.variants import Variant

MOST_TOKENS = 10**9
MOST_SEED = 2**63 - 1
TINY = "tiny"  # the world whose words the report can read
NEEDED = ("method", "prompt", "rewrite", "tokens", "distance")


def report(
    what: Annotated[
        Path, typer.Argument(help="A run's folder, or a table of scored images: csv, tsv, jsonl, json, parquet.")
    ],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="For a table: the report's folder.")] = None,
    fidelity: Annotated[
        list[str] | None, typer.Option(help="For a table: metric of whether the image shows the prompt; repeatable.")
    ] = None,
    preference: Annotated[
        list[str] | None, typer.Option(help="For a table: metric of whether people would like the image; repeatable.")
    ] = None,
    seen: Annotated[
        list[str] | None, typer.Option(help="For a table: metric whose scorer took part in training; repeatable.")
    ] = None,
    subject: Annotated[str, typer.Option(help="For a table: the method to compare ...")] = defaults.SUBJECT,
    baseline: Annotated[
        str, typer.Option(help="... with this method first, then with all others.")
    ] = defaults.BASELINE,
    title: Annotated[str, typer.Option(help="For a table: the report's title.")] = defaults.TITLE,
    facts: Annotated[
        str | None,
        typer.Option(help="For a table: 'tiny' compares the facts of texts in the tiny world's words.", metavar="tiny"),
    ] = None,
    also: Annotated[
        list[str] | None,
        typer.Option(
            help="For a table: NAME of a second decoding, whose methods METHOD_NAME are not compared; repeatable."
        ),
    ] = None,
    context: typer.Context = NOBODY,
) -> None:
    """Write the report of a run or of a table. The table of scored images may come from any program."""
    extras.require(report="the report")
    if disk.is_dir(what) or disk.address(what):
        names = ("out", "fidelity", "preference", "seen", "subject", "baseline", "title", "facts", "also")
        typed = {f"--{name}": typed_by_user(context, name) for name in names}
        refuse_without_effect(typed, "on a run's report, which its recipe describes")
        from semdpo import pipeline

        pipeline.run(pipeline.recipe_of(what), what, only="report")
        return
    if out is None or not (fidelity or preference):
        raise ConfigError(
            "the report of a table needs --out FOLDER and its metrics: --fidelity NAME, --preference NAME"
        )
    report_file(
        str(what), out, fidelity or [], preference or [], seen or [], subject, baseline, title, facts, also or []
    )


def report_file(
    file: str,
    out: Path,
    fidelity: Sequence[str],
    preference: Sequence[str],
    seen: Sequence[str],
    subject: str,
    baseline: str,
    title: str,
    facts: str | None = None,
    also: Sequence[str] = (),
) -> Path:
    """Writes a report of a file's rows.

    Args:
        file: The table: jsonl, csv or parquet with one row per image. Its columns are method, prompt, rewrite, tokens,
            distance and one for each metric; image_seed (0 if absent) and source (the file's name if absent). A run's
            own ``report/evaluation.csv`` is such a table.
        out: The report's folder.
        fidelity: The metrics of whether the image shows what the prompt asks for.
        preference: The metrics of whether people would like the image.
        seen: Those of the metrics whose scorers took part in training.
        subject: The method that is compared with all others.
        baseline: The method that it is compared with first.
        title: The title of the page.
        facts: ``tiny`` compares the facts of prompts and rewrites that are in the tiny world's words; None does not.
        also: The names of further decodings. A method ``METHOD_NAME`` is then METHOD with another decoding: it has its
            own rows in the tables of means, and is in no comparison.

    Returns:
        The page's path.

    Raises:
        ConfigError: An option names a metric or a method that the table does not have, or names one twice, or names
            an unknown world.
        DataError: A column is missing, a prompt is empty, a number is absent or not finite, or methods cannot be
            paired; the rows are named. Nothing is written then.
    """
    from semdpo.data import tables
    from semdpo.reporting.facts import notes
    from semdpo.reporting.report import ReportData, write_report

    if facts not in (None, TINY):
        raise ConfigError(f"--facts is '{facts}'; it must be '{TINY}', the only world whose words can be read")
    if subject == baseline:
        raise ConfigError(f"--subject and --baseline are both '{subject}'; name two methods to compare")
    disk.refuse_unwritable(out, folder=True)
    if Path(os.path.realpath(out)) in Path(os.path.realpath(file)).parents:
        raise ConfigError(f"{file} lies in the folder that the report would be written into; choose another --out")
    metrics = _metrics(fidelity, preference, seen)
    rows = _rows(tables.read_table(file), metrics)
    methods = {row.method for row in rows}
    for option, name in (("--subject", subject), ("--baseline", baseline)):
        if name not in methods:
            raise ConfigError(f"{file} has no method '{name}'{did_you_mean(name, methods)}; give {option}")
    added = _variants(methods, also)
    if unfit := [name for name in (subject, baseline) if name in added]:
        raise ConfigError(f"'{unfit[0]}' is a method with another decoding, which is not compared; name another one")
    data = ReportData(
        title=title,
        evaluation=rows,
        pairs=[],
        pair_counts={},
        curves=[],
        stages=[],
        recipe="",
        versions={},
        alpha=None,
        notes=[f"From {Path(file).name}, {len(rows)} rows.", *(notes(rows) if facts else [])],
        fidelity=list(fidelity),
        preference=list(preference),
        seen=dict.fromkeys(seen, "it took part in training"),
        subject=subject,
        baseline=baseline,
        facts=facts,
        variants=added,
    )
    page = out / "index.html"
    existed = page.exists()
    with bar("report: plotting"):
        write_report(data, page)
    say(f"report: {page}{' (replaced)' if existed else ''}")
    return page


def _variants(methods: Collection[str], also: Sequence[str]) -> dict[str, Variant]:
    """The methods of a table that are other methods with a further decoding.

    Raises:
        ConfigError: There is none for a name.
    """
    from semdpo.recipe.variants import Variant

    possible = {f"{method}_{name}": Variant(method, name) for name in also for method in methods}
    found = {own: variant for own, variant in possible.items() if own in methods and variant.method not in possible}
    for name in also:
        if name not in {variant.name for variant in found.values()}:
            raise ConfigError(f"--also names '{name}', but the table has no method such as '{min(methods)}_{name}'")
    return found


def _metrics(fidelity: Sequence[str], preference: Sequence[str], seen: Sequence[str]) -> list[str]:
    """All metrics that the options name.

    Raises:
        ConfigError: One of them is named twice or has a column's name, or ``seen`` names none of them.
    """
    from semdpo.recipe.schema import NOT_METRICS

    metrics = [*fidelity, *preference]
    if unknown := set(seen) - set(metrics):
        name = min(unknown)
        raise ConfigError(f"--seen names '{name}', which is none of the metrics{did_you_mean(name, metrics)}")
    if taken := [name for name in metrics if name in NOT_METRICS]:
        raise ConfigError(f"'{taken[0]}' cannot be a metric's name, because the report has such a column; rename it")
    if twice := given_twice(metrics):
        raise ConfigError(f"the metric '{twice}' is given twice; give it once, as --fidelity or as --preference")
    return metrics


def _rows(table: Table, metrics: Sequence[str]) -> list[EvaluationRow]:
    from semdpo.data.pairs import COSINE
    from semdpo.data.records import EvaluationRow, content_id

    for name in (*NEEDED, *metrics):
        table.column(name, f"; a row needs {', '.join(NEEDED)} and its metrics")
    prompts, methods = table.texts("prompt"), table.texts("method")
    count = len(prompts)
    rewrites = table.texts("rewrite", empty=True)
    scores = {name: _numbers(table, name, booleans=True) for name in metrics}
    distances = _numbers(table, "distance")
    low, high = COSINE
    for row, value in zip(table.rows, distances, strict=True):
        if not low <= value <= high:
            raise DataError(f"{table.file}, {row}: 'distance' is {value:g}; it must be a cosine distance, from 0 to 2")
    tokens = table.whole_numbers("tokens", MOST_TOKENS)
    seeds = table.whole_numbers("image_seed", MOST_SEED) if "image_seed" in table.columns else [0] * count
    sources = table.texts("source") if "source" in table.columns else [Path(table.file).stem] * count
    return [
        EvaluationRow(
            method=methods[i],
            prompt_id=content_id(prompts[i]),
            prompt=prompts[i],
            source=sources[i],
            image_seed=seeds[i],
            rewrite=rewrites[i],
            tokens=tokens[i],
            distance=distances[i],
            truncated=str(table.columns["truncated"][i]).lower() == "true" if "truncated" in table.columns else False,
            metrics={name: scores[name][i] for name in metrics},
            image=None,
        )
        for i in range(count)
    ]


def _numbers(table: Table, name: str, *, booleans: bool = False) -> list[float]:
    values = table.numbers(name, booleans=booleans)
    missing = [row for row, value in zip(table.rows, values, strict=True) if value is None]
    if missing:
        raise DataError(
            f"{table.file}: '{name}' is missing in {len(missing)} rows ({', '.join(missing[:3])}); fill it in, or "
            "remove the rows"
        )
    return [float(value) for value in values if value is not None]
