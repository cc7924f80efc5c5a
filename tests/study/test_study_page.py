"""`semdpo study analyze`: from a table of judgements to the page, its tables and plots."""

from __future__ import annotations

import csv
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from semdpo.cli.study_analyze import analyze
from semdpo.errors import ConfigError, DataError
from semdpo.study.design import RIGHT_ANSWER, WRONG_ANSWER, Judgement
from semdpo.study.judgements import read_judgements, write_judgements
from tests.study.votes import A, B, from_matrix, judgement, with_margins

BAD = '<img src=x onerror="alert(1)">'
PAPER = with_margins([14, 15, 15, 16, 16, 17, 18, 18, 19], [3, 4, 6, 6, 6, 7, 7, 7, *[8] * 6, *[9] * 6])


def _rows() -> list[Judgement]:
    """The paper's table 4, and a tenth rater who fails every attention check."""
    rows = from_matrix(PAPER)
    for rater in range(10):
        chosen = WRONG_ANSWER if rater == 9 else RIGHT_ANSWER
        rows += [
            judgement(rater, p, chosen, pair=(RIGHT_ANSWER, WRONG_ANSWER), kind="attention", trial=f"check{p}")
            for p in range(2)
        ]
    return rows + [judgement(9, p, B) for p in range(20)]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    write_judgements(tmp_path / "votes.csv", _rows())
    return tmp_path / "votes.csv"


def test_the_page_and_its_files(table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    analyze(table, out, first=[A], max_attention_failures=0.34, resamples=200)
    page = (out / "index.html").read_text()
    for text in (
        "148 of 180", "9 of 9", "70.0% to 95.0%, median 80.0%", "18 of 20", "No plan was registered",
        "r009: failed 2 of 2 attention checks", "Attention checks failed: 2 of 20", "9 of 10 raters are analysed",
        "the t test over raters and prompts", "A tie counts as half a vote",
    ):  # fmt: skip
        assert text in page, text
    assert "imulated" not in page
    assert "http" not in re.sub(r'xmlns[:\w]*="[^"]*"', "", page)
    said = capsys.readouterr()
    assert "148 of 180 votes, 82.2%" in said.out
    assert "excluded: r009, who failed 2 of 2 attention checks" in said.out
    assert read_judgements(out / "judgements.csv") == read_judgements(table)
    with (out / "results.csv").open() as file:
        values = {row["statistic"]: row for row in csv.DictReader(file) if row["first"] == A}
    assert float(values["share, raters and prompts"]["value"]) == pytest.approx(148 / 180)
    names = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert names == {
        ".files.study.json", "index.html", "judgements.csv", "results.csv", "plots/rates_0.png", "plots/rates_0.svg",
        "tables/results.tex", *(f"tables/{n}_1.{s}" for n in ("votes", "preferences") for s in ("csv", "tex")),
    }  # fmt: skip
    before = {name: (out / name).read_bytes() for name in names}
    analyze(table, out, first=[A], max_attention_failures=0.34, resamples=200)
    assert {name: (out / name).read_bytes() for name in names} == before


def test_simulated_raters_are_called_so_everywhere(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    analyze(table, tmp_path / "out", first=[A], resamples=100, simulated=True)
    page = (tmp_path / "out" / "index.html").read_text()
    assert "<title>Judgements of votes.csv (simulated raters)</title>" in page
    assert "No person took part" in page
    for heading in re.findall(r"<h1>.*?</h1>", page):
        assert "simulated raters" in heading
    for path in (tmp_path / "out").rglob("*.tex"):
        assert "(simulated raters)" in path.read_text(), path
    for path in (tmp_path / "out").rglob("*.svg"):
        assert "imulated raters" in path.read_text(), path
    said = capsys.readouterr().out
    assert "simulated" in said
    assert not re.search(r"\d raters", said)


@pytest.mark.parametrize("test", ["raters", "prompts"])
def test_the_verdict_names_the_method_that_the_test_speaks_for(
    test: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Eleven raters (or prompts) have few votes, for the first method; one has most votes, for the second."""
    by_raters = test == "raters"
    places = [(few, most) for few in range(11) for most in range(2)] + [(11, most) for most in range(60)]
    rows = [judgement(*((few, most) if by_raters else (most, few)), A if few < 11 else B) for few, most in places]
    write_judgements(tmp_path / "votes.csv", rows)
    analyze(tmp_path / "votes.csv", tmp_path / "out", first=[A], test=test, resamples=100)
    assert "22 of 82 votes, 26.8%" in (said := capsys.readouterr().out)
    assert "Sem-DPO was preferred to DPO" in said
    assert "Sem-DPO was preferred to DPO" in (tmp_path / "out" / "index.html").read_text()


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [tag, *(name for name, _ in attrs)]


def test_names_are_escaped_and_are_no_names_of_files(tmp_path: Path) -> None:
    votes = np.random.default_rng(0).integers(0, 2, (4, 5))
    rows = [
        replace(
            row,
            rater=f"{BAD}{row.rater}",
            prompt_id=f"{BAD}{row.prompt_id}",
            question=BAD,
            left_method=row.left_method.replace(A, f"../../{BAD}"),
            right_method=row.right_method.replace(A, f"../../{BAD}"),
        )
        for row in from_matrix(votes)
    ]
    write_judgements(tmp_path / "votes.csv", rows)
    analyze(tmp_path / "votes.csv", tmp_path / "a" / "b", primary=BAD, resamples=100, title=BAD)
    tags = _Tags()
    tags.feed((tmp_path / "a" / "b" / "index.html").read_text())
    assert not {"img", "script", "onerror"} & set(tags.found)
    assert {path.name for path in tmp_path.iterdir()} == {"votes.csv", "a"}
    assert {path.name for path in (tmp_path / "a").iterdir()} == {"b"}


def test_scorers_are_compared_with_people(table: Path, tmp_path: Path) -> None:
    lines = ["method,prompt_id,image_seed,tokens,clip"]
    for prompt, share in enumerate(PAPER.mean(0)):
        lines += [f"{A},p{prompt:03d},{seed},3,{share + seed}" for seed in (0, 1)]
        lines += [f"{B},p{prompt:03d},{seed},3,{0.5 + seed}" for seed in (0, 1)]
    (tmp_path / "run" / "report").mkdir(parents=True)
    (tmp_path / "run" / "report" / "evaluation.csv").write_text("\n".join(lines) + "\n")
    analyze(table, tmp_path / "out", tmp_path / "run", first=[A], max_attention_failures=0.34, resamples=100)
    with (tmp_path / "out" / "tables" / "scorers.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["scorer"] for row in rows] == ["CLIP"]
    assert (float(rows[0]["agree"]), float(rows[0]["AUC"]), float(rows[0]["kappa"])) == (1, 1, 1)
    assert (tmp_path / "out" / "plots" / "scorers.png").is_file()
    (tmp_path / "few.csv").write_text("\n".join(lines[:3]) + "\n")
    with pytest.raises(DataError, match="there is no score of method"):
        analyze(table, tmp_path / "other", tmp_path / "few.csv", first=[A], resamples=100)
    assert not (tmp_path / "other").exists()


def test_what_cannot_be_analysed_is_refused_and_nothing_is_written(table: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(ConfigError, match="needs --out FOLDER"):
        analyze(table)
    with pytest.raises(ConfigError, match="--test is 'rater'; did you mean 'raters'"):
        analyze(table, out, test="rater")
    with pytest.raises(ConfigError, match="--level is 95"):
        analyze(table, out, level=95)
    with pytest.raises(DataError, match="nobody answered the primary question 'prefer'; known: match"):
        analyze(table, out, primary="prefer")
    with pytest.raises(DataError, match="has no method 'sft'; it compares dpo, sem_dpo"):
        analyze(table, out, first=["sft"])
    write_judgements(tmp_path / "one.csv", from_matrix([[1, 0, 1]]))
    with pytest.raises(DataError, match="at least two of each, not 1 and 3"):
        analyze(tmp_path / "one.csv", out)
    failing = [row for row in _rows() if row.rater == "r009"]
    write_judgements(tmp_path / "failing.csv", failing)
    with pytest.raises(DataError, match="all 1 raters are excluded"):
        analyze(tmp_path / "failing.csv", out, max_attention_failures=0.34)
    write_judgements(tmp_path / "results" / "judgements.csv", _rows())
    with pytest.raises(ConfigError, match=r"would overwrite .*judgements\.csv"):
        analyze(tmp_path / "results" / "judgements.csv", tmp_path / "results")
    assert not out.exists()
