"""Writes the results of a study: one page that opens from disk, with its tables, plots and judgements as files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from semdpo import extras
from semdpo.data.writers import encoded
from semdpo.reporting.formats import number, p_value
from semdpo.reporting.labels import method_label, metric_label
from semdpo.study.analysis.results import PairResult, Results
from semdpo.study.design import Judgement
from semdpo.study.judgements import TYPES

FILES = ".files.study.json"  # in the folder: the names of the files that the last analysis wrote there
PAGE = "index.html"
TESTS = {
    "raters": "Wilcoxon's signed-rank test over the rates of raters",
    "prompts": "Wilcoxon's signed-rank test over the rates of prompts",
    "votes": "the exact binomial test over all votes",
    "both": "the t test over raters and prompts",
}
LIMITS = {
    "raters": "It takes the prompts as given: its p-value says nothing about other prompts, and is too small for that.",
    "prompts": "It takes the raters as given: its p-value says nothing about other raters, and is too small for that.",
    "votes": "It takes all votes as independent: its p-value is too small where raters or prompts differ.",
    "both": "It is about more raters and more prompts of the same kind.",
}


@dataclass(frozen=True, slots=True)
class StudyReport:
    """What the page of a study shows.

    Attributes:
        title: the page's title.
        results: the statistics.
        rows: all judgements, those of excluded raters too.
        questions: question → its words; a question without words shows its name.
        prompts: prompt_id → the user's prompt; a prompt without text shows its id.
        plan: SHA-256 of the plan; None where no plan was registered.
        departures: sentences about what differs from the plan.
        simulated: whether the raters are simulated.
    """

    title: str
    results: Results
    rows: Sequence[Judgement]
    questions: Mapping[str, str]
    prompts: Mapping[str, str]
    plan: str | None
    departures: Sequence[str]
    simulated: bool


def write_study(report: StudyReport, path: Path) -> None:
    """Writes the page and its files; equal data give equal bytes.

    Args:
        report: what the page shows.
        path: path of the HTML file. Its folder also gets ``judgements.csv``, ``results.csv``, tables as CSV and LaTeX,
            and plots as PNG and SVG. Files that an older analysis wrote there are replaced or removed; others stay.

    Raises:
        ConfigError: the extra ``report`` is not installed.
        StoreError: a file that no analysis wrote is in the way, or a file cannot be written.
    """
    extras.require(report="the page of a study")
    from semdpo.reporting.report import publish

    files = study_files(report)
    publish(path, files.pop(PAGE).decode(), files, FILES)


def study_files(report: StudyReport) -> dict[str, bytes]:
    """All files of a study's results, the page too; equal data give equal bytes.

    Args:
        report: what the page shows.

    Returns:
        Path relative to the results' folder → content.
    """
    from semdpo.reporting.report import table_files
    from semdpo.reporting.study_plots import draw_study
    from semdpo.reporting.study_tables import study_tables
    from semdpo.reporting.style import to_svg_and_png

    tables = study_tables(report.results, simulated=report.simulated)
    figures = draw_study(report.results, simulated=report.simulated)
    plots = {name: to_svg_and_png(figure, name) for name, figure in figures.items()}
    page = render(report, {name: svg for name, (svg, _) in plots.items()})
    written = {name: content for table in tables for name, content in table_files(table).items()}
    columns = {field.name: [getattr(row, field.name) for row in report.rows] for field in fields(Judgement)}
    return {
        PAGE: page.encode(),
        "judgements.csv": encoded(".csv", columns, TYPES),
        "results.csv": written.pop("tables/results.csv"),
        **written,
        **{f"plots/{name}.png": png for name, (_, png) in plots.items()},
        **{f"plots/{name}.svg": svg.encode() for name, (svg, _) in plots.items()},
    }


def render(report: StudyReport, plots: Mapping[str, str]) -> str:
    """The page: HTML that loads no other file.

    Args:
        report: what it shows.
        plots: name → ``<svg>`` text, inserted as it is; all other text is escaped.
    """
    from markupsafe import Markup

    from semdpo.reporting.page import template

    results = report.results
    filters: dict[str, Callable[..., str]] = {
        "method": method_label,
        "metric": metric_label,
        "percent": percent,
        "p": p_value,
        "two": _two,
    }
    return template("study.html.j2", **filters).render(
        report=report,
        results=results,
        analysis=results.analysis,
        plots={name: Markup(svg) for name, svg in plots.items()},
        verdicts={(pair.first, pair.second): verdict(pair, results) for pair in results.primary},
        prompts=sorted({prompt for pair in results.primary for prompt in pair.prompts.rates}),
        test=TESTS[results.analysis.test],
        limit=LIMITS[results.analysis.test],
        level=f"{results.analysis.level:.0%}",
        who="simulated raters" if report.simulated else "raters",
    )


def verdict(pair: PairResult, results: Results) -> str:
    """What the primary test says about a pair, in one sentence."""
    first, second = method_label(pair.first), method_label(pair.second)
    p = results.corrected[pair.first, pair.second]
    if p >= 1 - results.analysis.level:
        return f"No significant difference between {first} and {second} (p {_p(p)})."
    preferred, other = (first, second) if pair.leads(results.analysis.test) else (second, first)
    return f"{preferred} was preferred to {other} (p {_p(p)})."


def _p(p: float) -> str:
    text = p_value(p)
    return text if text.startswith("<") else f"= {text}"


def percent(share: float | None) -> str:
    """A share in percent with one decimal place; a dash where there is none."""
    return "–" if share is None else f"{number(100 * share, 1)}%"


def _two(value: float) -> str:
    return number(value, 2)
