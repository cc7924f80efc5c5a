"""``semdpo report``: the page of a run, or of a table of scored images that some other program made."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from semdpo import disk, extras
from semdpo.cli.options import NOBODY, refuse_without_effect, typed_by_user
from semdpo.errors import ConfigError, DataError, did_you_mean
from semdpo.progress import bar, say
from semdpo.recipe import defaults

if TYPE_CHECKING:
    from semdpo.data.records import EvaluationRow
    from semdpo.data.tables import Table

MOST_TOKENS = 10**9
MOST_SEED = 2**63 - 1
NEEDED = ("method", "prompt", "rewrite", "tokens", "distance")


def report(
    what: Annotated[
        Path, typer.Argument(help="A run's folder, or a table of scored images: csv, tsv, jsonl, json, parquet.")
    ],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Of a table's report: its folder.")] = None,
    fidelity: Annotated[list[str] | None, typer.Option(help="A table's metric: shows what was asked.")] = None,
    preference: Annotated[list[str] | None, typer.Option(help="A table's metric: people would like it.")] = None,
    seen: Annotated[list[str] | None, typer.Option(help="Metrics whose scorers took part in training.")] = None,
    subject: Annotated[str, typer.Option(help="The method of a table that is compared ...")] = defaults.SUBJECT,
    baseline: Annotated[str, typer.Option(help="... with this one first.")] = defaults.BASELINE,
    title: Annotated[str, typer.Option(help="Of a table's report.")] = defaults.TITLE,
    context: typer.Context = NOBODY,
) -> None:
    """Write the report of a finished run again, or of a table that some other program made."""
    extras.require(report="the report")
    if disk.is_dir(what):
        named = ("out", "fidelity", "preference", "seen", "subject", "baseline", "title")
        own = {f"--{name}": typed_by_user(context, name) for name in named}
        refuse_without_effect(own, "on a run's report, which its recipe describes")
        from semdpo import pipeline

        pipeline.run(pipeline.recipe_of(what), what, only="report")
        return
    if out is None or not (fidelity or preference):
        raise ConfigError(
            "the report of a table needs --out FOLDER and its metrics: --fidelity NAME, --preference NAME"
        )
    report_file(str(what), out, fidelity or [], preference or [], seen or [], subject, baseline, title)


def report_file(
    file: str,
    out: Path,
    fidelity: Sequence[str],
    preference: Sequence[str],
    seen: Sequence[str],
    subject: str,
    baseline: str,
    title: str,
) -> Path:
    """Writes a report of a file's rows.

    Args:
        file: jsonl, csv or parquet, one row per image: method, prompt, rewrite, tokens, distance and a column for
            each metric; image_seed (0 when absent), source (the file's name when absent). A run's own
            ``report/evaluation.csv`` is such a file.
        out: the report's folder.
        fidelity: metrics that ask whether the image shows what was asked.
        preference: metrics that ask whether people would like it.
        seen: those of them whose scorers took part in training.
        subject: the method that is compared …
        baseline: … with this one first.
        title: of the page.

    Returns:
        The page.

    Raises:
        ConfigError: a scorer or method is named that the file or the options do not have.
        DataError: a column is missing, a prompt empty, a number absent or not finite, or methods cannot be paired; the
            rows are named. Nothing is written then.
    """
    from semdpo.data import tables
    from semdpo.recipe.schema import NOT_METRICS
    from semdpo.reporting.report import ReportData, write_report

    if unknown := set(seen) - {*fidelity, *preference}:
        name = min(unknown)
        raise ConfigError(
            f"--seen names '{name}', which is none of the metrics{did_you_mean(name, [*fidelity, *preference])}"
        )
    if subject == baseline:
        raise ConfigError(f"--subject and --baseline are both '{subject}'; name two methods to compare")
    disk.refuse_unwritable(out, folder=True)
    if out.resolve() in Path(file).resolve().parents:
        raise ConfigError(f"{file} lies in the folder that the report would be written into; choose another --out")
    metrics = [*fidelity, *preference]
    if taken := [name for name in metrics if name in NOT_METRICS]:
        raise ConfigError(f"'{taken[0]}' is no metric, for every report has its own column of that name; rename yours")
    if twice := [name for name in metrics if metrics.count(name) > 1]:
        raise ConfigError(f"the metric '{twice[0]}' is named twice; it asks one of the two questions, not both")
    rows = _rows(tables.read_table(file), metrics)
    methods = {row.method for row in rows}
    for option, name in (("--subject", subject), ("--baseline", baseline)):
        if name not in methods:
            raise ConfigError(f"{file} has no method '{name}'{did_you_mean(name, methods)}; give {option}")
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
        notes=[f"From {Path(file).name}, {len(rows)} rows."],
        fidelity=list(fidelity),
        preference=list(preference),
        seen=dict.fromkeys(seen, "it took part in training"),
        subject=subject,
        baseline=baseline,
    )
    page = out / "index.html"
    before = page.exists()
    with bar("report: plotting"):
        write_report(data, page)
    say(f"report: {page}{' (replaced)' if before else ''}")
    return page


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
    lost = [row for row, value in zip(table.rows, values, strict=True) if value is None]
    if lost:
        raise DataError(
            f"{table.file}: '{name}' is missing in {len(lost)} rows ({', '.join(lost[:3])}); fill it or remove the rows"
        )
    return [float(value) for value in values if value is not None]
