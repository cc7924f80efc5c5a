"""``semdpo study analyze``: what the votes of a study say, as a page, tables and plots."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from semdpo import disk, extras
from semdpo.cli import output
from semdpo.cli.options import NOBODY, number, refuse_without_effect, typed_by_user
from semdpo.errors import ConfigError, did_you_mean
from semdpo.progress import say, show

if TYPE_CHECKING:
    from semdpo.reporting.study_page import StudyReport

OF_A_TABLE = ("primary", "test", "level", "resamples", "seed", "first", "max_attention_failures", "simulated", "title")


def analyze(
    what: Annotated[Path, typer.Argument(help="A study's folder, or a table of judgements: csv, jsonl, parquet.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The results' folder; by default, results in the study's.")
    ] = None,
    scores: Annotated[
        Path | None,
        typer.Option(help="A run, or its report/evaluation.csv: compare its automatic scorers with people."),
    ] = None,
    primary: Annotated[str, typer.Option(help="For a table: the question whose result is the study's.")] = "match",
    test: Annotated[
        str, typer.Option(help="For a table: the primary test is over both, raters, prompts or votes.")
    ] = "both",
    level: Annotated[float, typer.Option(help="For a table: the level of intervals.")] = 0.95,
    resamples: Annotated[int, typer.Option(help="For a table: resamples of the bootstrap.")] = 4000,
    seed: Annotated[int, typer.Option(help="For a table: seed of the bootstrap.")] = 0,
    first: Annotated[
        list[str] | None, typer.Option(help="For a table: a method that shares are of; repeatable.")
    ] = None,
    max_attention_failures: Annotated[
        float, typer.Option(help="For a table: exclude raters who fail a larger share of attention checks.")
    ] = 1.0,
    simulated: Annotated[bool, typer.Option("--simulated", help="For a table: the raters are simulated.")] = False,
    title: Annotated[str, typer.Option(help="For a table: the page's title.")] = "",
    context: typer.Context = NOBODY,
) -> None:
    """Analyse the votes of a study. The plan of a study says how; options say it for a table without a plan."""
    extras.require(study="the analysis of a study", report="the page of a study")
    from semdpo.reporting import study_sources
    from semdpo.reporting.study_page import TESTS, write_study
    from semdpo.study.design import Analysis, Exclusion

    if disk.is_dir(what):
        typed = {f"--{name.replace('_', '-')}": typed_by_user(context, name) for name in OF_A_TABLE}
        refuse_without_effect(typed, "on a study, whose plan says how it is analysed")
        folder = out or what / "results"
        disk.refuse_unwritable(folder, folder=True)
        report = study_sources.of_study(what, scores)
    else:
        if out is None:
            raise ConfigError("a table of judgements needs --out FOLDER for the results")
        if test not in TESTS:
            raise ConfigError(f"--test is '{test}'{did_you_mean(test, TESTS)}")
        number("--level", level, 0.5, 0.9999)
        number("--resamples", resamples, 100)
        number("--max-attention-failures", max_attention_failures, 0, 1)
        folder = out
        disk.refuse_unwritable(folder, folder=True)
        output.refuse_inputs(folder / "judgements.csv", [what, scores])
        report = study_sources.of_table(
            what,
            Analysis(primary=primary, test=test, level=level, resamples=resamples, seed=seed),  # type: ignore[arg-type]
            Exclusion(max_attention_failures=max_attention_failures),
            methods=first or [],
            scores=scores,
            simulated=simulated,
            title=title,
        )
    write_study(report, folder / "index.html")
    show(_as_text(report))
    say(f"wrote {folder / 'index.html'}")


def _as_text(report: StudyReport) -> str:
    from semdpo.reporting.study_page import percent, verdict
    from semdpo.reporting.study_tables import names

    results, who = report.results, "simulated raters" if report.simulated else "raters"
    lines = ["The raters are simulated: no person took part."] if report.simulated else []
    for pair in results.primary:
        both, count = pair.both, pair.totals
        lines += [
            f"{names(pair)}: {count.first} of {count.votes} votes, {percent(both.share)} "
            f"[{percent(both.low)}, {percent(both.high)}]",
            f"  preferred by {pair.raters.prefer_first} of {len(pair.raters.rates)} {who}, on "
            f"{pair.prompts.prefer_first} of {len(pair.prompts.rates)} prompts",
            f"  {verdict(pair, results)}",
        ]
    lines += [f"excluded: {rater}, who {reason}" for rater, reason in results.excluded.items()]
    return "\n".join([*lines, "No plan was registered." if report.plan is None else f"plan {report.plan}"])
