"""`semdpo study serve, page, collect, export, check` as a user types them."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

import pytest

from semdpo import cli
from semdpo.study.blinding import rater_id, study_id
from semdpo.study.plan import Study
from tests.study.studies import body

AT = "2026-01-01T10:00:00.000Z"


def _run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["semdpo", "study", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    return int(str(end.value.code))


def test_a_study_without_a_server(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pages = tmp_path / "pages"
    assert _run(monkeypatch, "page", study.folder, "--all", "-o", pages) == 0
    said = capsys.readouterr()
    assert said.out.splitlines()[1] == f"rater 1: {pages / rater_id(study, 1) / 'index.html'}"
    assert _run(monkeypatch, "check", pages, "--study", study.folder) == 0
    assert capsys.readouterr().err.splitlines() == [
        "looked at 3 raters' pages, 24 images and 15 other files", "nothing tells the methods apart",
    ]  # fmt: skip
    (pages / rater_id(study, 0) / "plan.json").write_text("{}")
    assert _run(monkeypatch, "check", pages, "--study", study.folder) == 1
    assert "1 leaks; do not show this study" in capsys.readouterr().err
    saved = {
        "format": "semdpo-study-votes", "version": 1, "study": study_id(study), "rater": rater_id(study, 2),
        "consented": AT, "votes": [{**body(study, 2), "at": AT}],
    }  # fmt: skip
    (tmp_path / "votes.json").write_text(json.dumps(saved))
    assert _run(monkeypatch, "collect", study.folder, tmp_path / "votes.json") == 0
    assert capsys.readouterr().out == f"rater 2: 1 answers, 1 of them new ({tmp_path / 'votes.json'})\n"
    assert _run(monkeypatch, "export", study.folder, "--to", "potato", "-o", tmp_path / "potato") == 0
    assert (tmp_path / "potato" / "config.yaml").is_file()


def test_wrong_arguments(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = {
        "give either --rater N, or --all": ["page", study.folder, "-o", tmp_path / "out"],
        "there is no rater 3; this study has the raters 0 to 2": [
            *("page", study.folder, "--rater", "3", "-o", tmp_path / "out"),
        ],
        "would overwrite": ["page", study.folder, "--all", "-o", study.folder],
        "holds no whole study": ["serve", tmp_path / "none"],
        "--port is 70000": ["serve", study.folder, "--port", "70000"],
        "has no pages of a study": ["check", tmp_path, "--study", study.folder],
        "--to is 'x'": ["export", study.folder, "--to", "x", "-o", tmp_path / "out"],
    }  # fmt: skip
    for wanted, arguments in wrong.items():
        assert _run(monkeypatch, *arguments) == 2
        said = capsys.readouterr().err.splitlines()
        assert len(said) == 1, said
        assert wanted in said[0], said
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_server_starts_and_stops(study: Study) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "semdpo", "study", "serve", study.folder, "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    address = process.stdout.readline().strip()
    with urlopen(address) as answer:
        assert b"Personal link" in answer.read()
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert said.splitlines()[-1] == "stopped"
    assert "Traceback" not in said
    assert rater_id(study, 0) not in said, "no log has a rater's link"
