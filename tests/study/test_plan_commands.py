"""``semdpo study plan``, ``power`` and ``pairs``: what they print, and one sentence for what cannot be done."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from semdpo.cli import app as cli
from semdpo.study.design import Exclusion
from semdpo.study.plan import read_study
from tests import stand_ins
from tests.study import example


@pytest.fixture(scope="module")
def run(stand_in_trainings: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of stand-ins."""
    folder = tmp_path_factory.mktemp("run")
    stand_ins.run_without_report(stand_ins.recipe_of(folder), folder / "run", stand_ins.models())
    return folder / "run"


def _study(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["semdpo", "study", *arguments])
    with pytest.raises(SystemExit) as ending:
        cli.main()
    return int(ending.value.code or 0)


def test_a_plan_is_written_and_says_what_it_can_find(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--tie", "cannot tell", "--question", "match", "--question", "mood=Which is happier?", "--simulated"]
    options += ["--method", "human", "--method", "sft", "--raters", "6", "--test", "raters", "--min-consistency", "0.5"]
    assert _study(monkeypatch, "plan", str(run), "--out", str(tmp_path / "study"), *options) == 0
    plan = read_study(tmp_path / "study").plan
    assert plan.questions == {"match": "Which image shows better what was asked for?", "mood": "Which is happier?"}
    assert (plan.tie, plan.raters, plan.methods, plan.simulated) == ("cannot tell", 6, ("human", "sft"), True)
    assert (plan.analysis.test, plan.analysis.primary, plan.exclusion) == ("raters", "match", Exclusion(0.34, 0.5, 0.0))
    printed = capsys.readouterr()
    assert "human against sft: 1 pair of methods, 6 prompts, 6 simulated raters" in printed.out
    assert "36 comparisons, 6 repeats, 6 attention checks; questions: match, mood" in printed.out
    assert plan.power is not None
    assert f"power {plan.power.power:.0%} to find 65% of votes for one method" in printed.out
    assert "keep it private, because it names the methods" in printed.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["plan", "RUN", "-o", "new", "--raters", "0"], "--raters is 0; it must be a number from 1 to 1000"),
        (["plan", "RUN", "-o", "new", "--repeats", "0.6"], "--repeats is 0.6; it must be a number from 0 to 0.5"),
        (["plan", "RUN", "-o", "new", "--test", "rater"], "--test is 'rater'; did you mean 'raters'?"),
        (["plan", "RUN", "-o", "new", "--question", "macth"], "no question 'macth'; did you mean 'match'?"),
        (["plan", "RUN", "-o", "new", "--question", "A b=Which?"], "cannot be a question's name"),
        (["plan", "RUN", "-o", "new", "--primary", "prefer"], "--primary is 'prefer', which no rater is asked"),
        (["plan", "RUN", "-o", "new", "--method", "human"], "two methods or more"),
        (["plan", "RUN", "-o", "RUN/study"], "would overwrite"),
        (["plan", "s3://bucket/run", "-o", "new"], "is not on this machine; copy it here"),
        (["plan", "nothing", "-o", "new"], "nothing holds no run"),
        (["plan", "RUN", "-o", "new", "--raters", "1"], "a test over both raters and prompts needs two of each"),
        (["power", "--effect", "1"], "--effect is 1; it must be a number from 0.5 to 0.999"),
        (["power", "--prompts", "5", "--prompts-per-rater", "6"], "--prompts-per-rater is 6, but there are 5 prompts"),
        (["pairs", "nothing", "-o", "new.csv"], "nothing holds no whole study"),
        (["pairs", "STUDY", "-o", "new.xls"], "name it with one of .csv"),
        (["pairs", "STUDY", "-o", "new.csv"], "has no votes yet"),
    ],
)
def test_what_cannot_be_done_is_one_sentence_and_writes_nothing(
    arguments: list[str],
    words: str,
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    study = example.study(tmp_path / "study").folder
    before = sorted(tmp_path.rglob("*"))
    names = {"RUN": str(run), "RUN/study": str(run / "study"), "STUDY": str(study)}
    assert _study(monkeypatch, *(names.get(each, each) for each in arguments)) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert words in said[-1]
    assert said[-1].startswith("semdpo: ")
    assert sorted(tmp_path.rglob("*")) == before
    assert not (run / "study").exists()


def test_power_needs_no_run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert _study(monkeypatch, "power", "--raters", "5", "--test", "raters") == 0
    assert "5 raters × 20 of 20 prompts: power 0% to find 65% of votes" in capsys.readouterr().out
