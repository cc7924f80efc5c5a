"""Where the judgements of a study's page come from: a study's folder with its plan, or a table of any program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from semdpo.data.tables import Table, read_table
from semdpo.errors import DataError
from semdpo.reporting.labels import FACTS
from semdpo.reporting.study_page import StudyReport
from semdpo.study.analysis.results import analyse
from semdpo.study.analysis.scorers import Scores
from semdpo.study.design import Analysis, Exclusion, Judgement, Plan
from semdpo.study.judgements import judgements, read_judgements

if TYPE_CHECKING:
    from semdpo.study.plan import Study

# Columns of ``evaluation.csv`` that no scorer wrote.
NO_SCORES = {
    *("method", "source", "prompt_id", "prompt", "image_seed", "rewrite", "tokens", "distance", "truncated"),
    *("consistency", *FACTS),
}


def of_study(folder: Path, scores: Path | None = None) -> StudyReport:
    """The page of a study, analysed as its plan says.

    Args:
        folder: the study's folder.
        scores: the run's folder, or a table of scored images such as its ``report/evaluation.csv``.

    Raises:
        DataError: the plan has changed, there are no votes, or they cannot be analysed; see ``analyse``.
        StoreError: the votes cannot be read.
    """
    from semdpo.study.blinding import study_id
    from semdpo.study.plan import read_study
    from semdpo.study.votes import VoteStore, read_votes

    study = read_study(folder)
    plan = study.plan
    votes = read_votes(folder, study_id(study))
    store = VoteStore(folder, study_id(study))
    closed = store.closed_at
    store.close()
    rows = judgements(plan, votes)
    shown = {(image.method, image.prompt_id, image.image_seed) for image in plan.images}
    departures = _departures(plan, rows)
    if not closed:
        departures.append(
            "The study was still open when this page was made. More votes may come, and whoever decides by these "
            "numbers whether to collect more departs from the plan."
        )
    found = {} if scores is None else read_scores(scores, shown)
    if found:
        departures.append(f"The scores are from {scores.name if scores else ''}; the plan does not name scorers.")
    results = analyse(rows, plan.analysis, plan.exclusion, methods=plan.methods, scores=found)
    return StudyReport(
        plan.title, results, rows, plan.questions, plan.prompts, _seal(study), departures, plan.simulated
    )


def of_table(
    file: Path,
    analysis: Analysis,
    exclusion: Exclusion,
    *,
    methods: Sequence[str] = (),
    scores: Path | None = None,
    simulated: bool = False,
    title: str = "",
) -> StudyReport:
    """The page of a table of judgements, for which no plan was registered.

    Args:
        file: the table; see ``semdpo.study.judgements``.
        analysis: the settings.
        exclusion: which raters are excluded.
        methods: methods that come first in pairs.
        scores: a run's folder, or a table of scored images.
        simulated: whether the raters are simulated.
        title: the page's title; by default, the file's name.

    Raises:
        DataError: the table cannot be read or analysed, or has none of ``methods``.
    """
    rows = read_judgements(file)
    known = {name for row in rows for name in (row.left_method, row.right_method) if row.kind == "comparison"}
    if unknown := [name for name in methods if name not in known]:
        raise DataError(f"{file} has no method '{unknown[0]}'; it compares {', '.join(sorted(known))}")
    found = {} if scores is None else read_scores(scores)
    results = analyse(rows, analysis, exclusion, methods=methods, scores=found)
    return StudyReport(title or f"Judgements of {file.name}", results, rows, {}, {}, None, [], simulated)


def _seal(study: Study) -> str:
    return (study.folder / "plan.sha256").read_text().split()[0]


def _departures(plan: Plan, rows: Sequence[Judgement]) -> list[str]:
    """What the plan wanted and the votes do not have."""
    planned = sum(trial.kind == "comparison" for trial in plan.trials) * len(plan.questions)
    answered = sum(row.kind == "comparison" for row in rows)
    voted = len({row.rater for row in rows})
    found = []
    if answered < planned:
        found.append(f"{planned - answered} of {planned} planned answers to comparisons are missing.")
    if voted < plan.raters:
        found.append(f"{plan.raters - voted} of {plan.raters} planned raters did not vote.")
    if plan.left_out:
        reasons = ", ".join(sorted({left.reason for left in plan.left_out}))
        found.append(f"The plan leaves out {len(plan.left_out)} comparisons: {reasons}.")
    return found


def read_scores(place: Path, shown: set[tuple[str, str, int]] | None = None) -> dict[str, Scores]:
    """The scores of images by automatic scorers; the mean over image seeds.

    Args:
        place: a run's folder, or a table with the columns ``method``, ``prompt_id``, ``image_seed`` (needed with
            ``shown``) and one for each scorer.
        shown: the images that people saw, as (method, prompt_id, image_seed); all others are left out.

    Returns:
        Scorer → (method, prompt_id) → score.

    Raises:
        DataError: the table cannot be read, a column is missing, a score is missing, or it has no scorers.
    """
    table = read_table(place / "report" / "evaluation.csv" if place.is_dir() else place)
    methods, prompts = table.texts("method"), table.texts("prompt_id")
    wanted = [True] * len(table.rows)
    if shown is not None:
        seeds = table.whole_numbers("image_seed", 2**63 - 1)
        wanted = [key in shown for key in zip(methods, prompts, seeds, strict=True)]
    scorers = [name for name in table.columns if name not in NO_SCORES]
    if not scorers:
        raise DataError(f"{table.file} has no column of scores; give a table with one column for each scorer")
    return {name: _means(table, name, methods, prompts, wanted) for name in scorers}


def _means(
    table: Table, name: str, methods: Sequence[str], prompts: Sequence[str], wanted: Sequence[bool]
) -> Mapping[tuple[str, str], float]:
    values: dict[tuple[str, str], list[float]] = {}
    for method, prompt, value, row, take in zip(methods, prompts, table.numbers(name), table.rows, wanted, strict=True):
        if take:
            if value is None:
                raise DataError(f"{table.file}, {row}: '{name}' is empty; score this image, or remove the column")
            values.setdefault((method, prompt), []).append(value)
    return {key: fmean(of) for key, of in values.items()}
