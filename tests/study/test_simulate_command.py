"""``semdpo study simulate``: from a plan to results and pairs without any person, and never in people's place."""

from __future__ import annotations

import sys
from contextlib import closing
from pathlib import Path

import pytest

from semdpo.cli import app as cli
from semdpo.study.blinding import study_id
from semdpo.study.plan import read_study
from semdpo.study.votes import VoteStore, read_votes
from tests.study import example


def _study(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["semdpo", "study", *arguments])
    with pytest.raises(SystemExit) as ending:
        cli.main()
    return int(ending.value.code or 0)


def test_a_study_can_be_rehearsed_from_votes_to_pairs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    study, folder = example.study(tmp_path / "study"), str(tmp_path / "study")
    assert _study(monkeypatch, "simulate", folder, "--seed", "3") == 0
    votes = 2 * len(study.plan.trials)
    assert f"stored {votes} votes of 4 simulated raters in {folder}, and closed the study" in capsys.readouterr().err
    assert _study(monkeypatch, "analyze", folder) == 0
    said = capsys.readouterr().out
    assert said.startswith("The raters are simulated: no person took part.")
    assert "still open" not in (tmp_path / "study/results/index.html").read_text()
    assert _study(monkeypatch, "pairs", folder, "-o", str(tmp_path / "pairs.csv")) == 0
    assert "True" in (tmp_path / "pairs.csv").read_text()


def test_the_seed_and_nothing_else_decides_the_votes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    votes = {}
    for name, seed in (("one", "3"), ("same", "3"), ("other", "4")):
        study = example.study(tmp_path / name)
        assert _study(monkeypatch, "simulate", str(study.folder), "--seed", seed) == 0
        votes[name] = read_votes(study.folder, study_id(study))
    assert votes["one"] == votes["same"]
    assert votes["one"] != votes["other"]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"simulated": False}, "is a study with people, whom no simulated rater may replace; plan another one"),
        ({"size": (512, 512)}, "the images have 512 × 512 pixels, and simulated raters know only the tiny world's"),
        ({"questions": {"match": "Which?", "fun": "Which?"}}, "simulated raters cannot answer 'fun'; ask them match"),
    ],
)
def test_a_study_that_they_cannot_answer_is_refused_and_gets_no_vote(
    changed: dict[str, object],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = example.study(tmp_path / "study", **changed).folder
    before = sorted(path.name for path in folder.iterdir())
    assert _study(monkeypatch, "simulate", str(folder)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
    assert sorted(path.name for path in folder.iterdir()) == before


def test_votes_are_not_mixed_with_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = example.study(tmp_path / "study").folder
    assert _study(monkeypatch, "simulate", str(folder)) == 0
    before = read_votes(folder, study_id(read_study(folder)))
    capsys.readouterr()
    for seed in ("0", "1"):
        assert _study(monkeypatch, "simulate", str(folder), "--seed", seed) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert f"{folder} has votes already, and each question has one answer; plan another study" in line
    with closing(VoteStore(folder, study_id(read_study(folder)))) as store:
        assert store.votes() == before
        assert store.closed_at
