"""`semdpo study analyze STUDY`: real votes of a real study's folder, analysed as its plan says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from semdpo.cli.app import app
from semdpo.cli.study_analyze import analyze
from semdpo.errors import ConfigError, DataError
from semdpo.reporting.study_sources import of_study, read_scores
from semdpo.study.blinding import study_id
from semdpo.study.design import Analysis, Vote
from semdpo.study.plan import Study, image_path, read_study, write_study
from semdpo.study.votes import VoteStore
from tests.study import studies


def _study(folder: Path, **changes: Any) -> Study:
    """A study of two methods whose plan has these settings."""
    made = studies.make(folder.with_name("as made"), raters=changes.get("raters", 3))
    images = {each.sha256: image_path(made.folder, each.sha256).read_bytes() for each in made.plan.images}
    write_study(folder, replace(made.plan, **changes), images)
    return read_study(folder)


def _vote(study: Study, *, but_last: int = 0, close: bool = True) -> None:
    """Every rater chooses the first method, but on the last prompt; ``but_last`` trials have no vote."""
    store = VoteStore(study.folder, study_id(study))
    methods = {image.name: image.method for image in study.plan.images}
    last = max(study.plan.prompts)
    for number, trial in enumerate(study.plan.trials[: len(study.plan.trials) - but_last]):
        wanted = study.plan.methods[trial.prompt_id == last]
        choice = "left" if methods[trial.left] == wanted else "right"
        vote = Vote(trial.name, trial.rater, "match", choice, trial.left, trial.right, 2.5, "2026-01-01T00:00:00+00:00")
        store.add([(vote, f"answer{number}")])
    if close:
        store.close_study()
    store.close()


def _run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["study", "analyze", *arguments])


def test_a_study_is_analysed_as_its_plan_says(tmp_path: Path) -> None:
    study = _study(tmp_path / "study", analysis=Analysis(test="both", level=0.9, resamples=300))
    _vote(study)
    ended = _run(str(study.folder))
    assert ended.exit_code == 0, ended.output
    seal = (study.folder / "plan.sha256").read_text().split()[0]
    assert f"plan {seal}" in ended.output
    page = (study.folder / "results" / "index.html").read_text()
    for text in (seal, "9 of 12", "3 of 3", "3 of 4", "90% interval", "300 resamples", "a red ball on a table",
                 "two cats &lt;b&gt;asleep&lt;/b&gt;", "Which image shows better what was asked for?"):  # fmt: skip
        assert text in page, text
    for text in ("imulated", "No plan was registered", "still open", "are missing", "What differs from"):
        assert text not in page, text


def test_the_page_says_what_departs_from_the_plan(tmp_path: Path) -> None:
    study = _study(tmp_path / "study", raters=4, simulated=True, analysis=Analysis(test="raters", resamples=200))
    _vote(study, but_last=5, close=False)
    report = of_study(study.folder)
    assert report.simulated
    missing, absent, still_open = report.departures
    assert missing == "5 of 16 planned answers to comparisons are missing."
    assert absent == "1 of 4 planned raters did not vote."
    assert "still open" in still_open
    analyze(study.folder, tmp_path / "out")
    page = (tmp_path / "out" / "index.html").read_text()
    assert all(sentence in page for sentence in report.departures)
    assert "its p-value says nothing about other prompts" in page  # of the test that the plan chose
    assert "simulated" in page


def test_only_the_scores_of_the_images_that_were_shown_count(tmp_path: Path) -> None:
    study = studies.make(tmp_path / "study")
    _vote(study)
    rows = ["method,prompt_id,image_seed,hps"]
    for image in study.plan.images:
        better = image.method == "sem_dpo"
        rows += [
            f"{image.method},{image.prompt_id},7,{float(better)}",
            f"{image.method},{image.prompt_id},8,{-9.0 * better}",
        ]
    (tmp_path / "scores.csv").write_text("\n".join(rows) + "\n")
    found = of_study(study.folder, tmp_path / "scores.csv").results.scorers["hps"]
    assert found is not None
    assert found.agree == 0.75  # on the last prompt, people prefer the other one
    assert read_scores(tmp_path / "scores.csv")["hps"]["sem_dpo", "p0000"] == -4


def test_a_study_that_cannot_be_analysed_as_planned_is_refused(tmp_path: Path) -> None:
    study = studies.make(tmp_path / "study")
    with pytest.raises(DataError, match="no votes yet"):
        analyze(study.folder)
    _vote(study)
    for option in (["--test", "votes"], ["--level", "0.5"], ["--primary", "prefer"], ["--simulated"]):
        ended = _run(str(study.folder), *option)
        assert isinstance(ended.exception, ConfigError)
        assert str(ended.exception) == (
            f"{option[0]} has no effect on a study, whose plan says how it is analysed; leave it out"
        )
    plan = study.folder / "plan.json"
    plan.write_text(plan.read_text().replace('"level": 0.95', '"level": 0.5'))
    with pytest.raises(DataError, match=r"plan\.json has changed since it was fixed"):
        analyze(study.folder)
    assert not (study.folder / "results").exists()
