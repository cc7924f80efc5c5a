"""An audit of pairs: each question on pairs made for it, and the command as a user and as CI would call it."""

from __future__ import annotations

import json
import math
import re
import unicodedata
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from semdpo.analysis.audit import CHECKS, Audit, audit, failures, limits
from semdpo.cli import app as cli
from semdpo.cli.app import app
from semdpo.data.records import Pair, content_id
from semdpo.errors import ConfigError, DataError
from semdpo.reporting.audit_page import as_numbers, as_page, as_text


def _pair(prompt: str, chosen: str, rejected: str, distance: float = 0.1, scores: tuple[float, float] = (1, 0)) -> Pair:
    identity = content_id(prompt, chosen, rejected)
    return Pair(identity, prompt, chosen, rejected, *scores, distance=distance, truncated=False)


GOOD = [_pair(f"prompt {i}", f"chosen {i}", f"rejected {i}") for i in range(4)]


def _count(found: Audit, name: str) -> int | None:
    return next(each.count for each in found.checks if each.name == name)


def test_good_pairs_have_nothing_to_say() -> None:
    found = audit(GOOD, 4.0, ["another"])
    assert tuple(each.name for each in found.checks) == CHECKS
    assert [each.count for each in found.checks] == [0] * len(CHECKS)
    assert failures(found, dict.fromkeys(CHECKS, 0.0)) == []
    assert found.effective == pytest.approx(4)


def test_each_question_finds_what_it_asks_for() -> None:
    pairs = [
        *GOOD,
        GOOD[0],
        _pair("prompt 1", "rejected 1", "chosen 1"),
        _pair("Prompt, held!", "a much longer text", "short"),
        replace(GOOD[2], pair_id="cut", truncated=True),
        _pair("tie", "one", "two", scores=(0.5, 0.5)),
        _pair("far", "away", "near", distance=1.2),
    ]
    found = audit(pairs, 4.0, ["prompt held"])
    wanted = {"duplicates": 1, "contradictions": 2, "leaks": 1, "truncation": 1, "ties": 1, "silenced": 1}
    assert {name: _count(found, name) for name in wanted} == wanted
    assert _count(found, "length-bias") == 1
    assert found.lightest(1)[0][0].prompt == "far"
    assert found.lightest(1)[0][1] == pytest.approx(math.exp(-4.8))


def test_what_is_not_known_is_said_and_fails() -> None:
    unknown = [replace(each, truncated=None, chosen_score=None) for each in GOOD]
    found = audit(unknown, 4.0)
    assert [_count(found, name) for name in ("truncation", "ties", "leaks")] == [None] * 3
    assert [each.name for each in failures(found, {"truncation": 0.5, "duplicates": 0.0})] == ["truncation"]


def test_length_bias_has_an_interval() -> None:
    pairs = [_pair(f"{i}", "a b c" if i < 18 else "a", "a b") for i in range(20)]
    (check,) = [each for each in audit(pairs, 4.0).checks if each.name == "length-bias"]
    assert (check.count, check.total) == (18, 20)
    assert "95% interval 70% to 97%; p = 0.0004" in check.remark


@given(st.lists(st.floats(0, 2), min_size=1, max_size=30), st.floats(0, 20))
def test_weights_are_those_of_training(distances: list[float], alpha: float) -> None:
    pairs = [_pair(f"p{i}", "c", "r", distance=d) for i, d in enumerate(distances)]
    found = audit(pairs, alpha)
    np.testing.assert_allclose(found.weights, np.exp(-alpha * np.array(distances)))
    weights = [weight for _, weight in found.lightest(30)]
    assert weights == sorted(weights)
    assert found.heaviest(30)[0][1] == max(found.weights)


def test_own_weights_count_in_every_answer() -> None:
    pairs = [replace(GOOD[0], weight=0.0), replace(GOOD[1], weight=3.0), *GOOD[2:]]
    found = audit(pairs, 0.0)
    assert found.weights.tolist()[:2] == [0.0, 3.0]
    assert _count(found, "silenced") == 1
    assert "times the pair's own weight" in as_page(found, "p", [])


def test_margins_are_in_page_and_numbers() -> None:
    found = audit(GOOD, 4.0)
    margins = [(each.chosen_score or 0) - (each.rejected_score or 0) for each in GOOD]
    assert as_numbers(found, [])["margin"]["0.5"] == pytest.approx(float(np.median(margins)))
    assert "How clear the labels are" in as_page(found, "p", [])
    unscored = audit([replace(each, chosen_score=None) for each in GOOD], 4.0)
    assert as_numbers(unscored, [])["margin"] is None
    assert "How clear the labels are" not in as_page(unscored, "p", [])
    assert "(  0%)" not in next(line for line in as_text(unscored, []).splitlines() if " ties " in line)


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("distance", 3.5, "line 2: 'distance' is 3.5; a cosine distance lies between 0 and 2"),
        ("distance", -0.1, "line 2: 'distance' is -0.1"),
        ("weight", -1, "line 2: 'weight' is -1; a pair's weight is 0 or more"),
    ],
)
def test_impossible_numbers_are_named_by_line(column: str, value: float, said: str, tmp_path: Path) -> None:
    rows = [{"prompt": f"a cat {i}", "chosen": "a", "rejected": "b", column: v} for i, v in enumerate((0.1, value))]
    (tmp_path / "p.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    done = CliRunner().invoke(app, ["audit", str(tmp_path / "p.jsonl")])
    assert isinstance(done.exception, DataError)
    assert said in str(done.exception)


def test_limits() -> None:
    assert limits(["duplicates", "truncation=0.05"]) == {"duplicates": 0.0, "truncation": 0.05}
    for text, told in (
        ("duplicate", "did you mean 'duplicates'"),
        ("length-bias", r"needs a share, such as --fail-on length-bias=0\.7"),
        ("leaks=many", "'many' is not a share"),
        ("leaks=2", "a share must lie between 0 and 1"),
    ):
        with pytest.raises(ConfigError, match=told):
            limits([text])


def test_whatever_the_pairs_say_is_escaped() -> None:
    evil = "<script>alert(1)</script>"
    page = as_page(audit([_pair(evil, evil + "!", evil + "?")], 4.0), evil, [])
    assert "<script" not in page
    assert page.count("&lt;script&gt;") >= 4
    assert "http" not in page.replace("http://www.w3.org", ""), "it loads nothing"


def _write(path: Path, pairs: list[Pair]) -> Path:
    rows = [{"prompt": p.prompt, "chosen": p.chosen, "rejected": p.rejected, "distance": p.distance} for p in pairs]
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


def test_the_command(tmp_path: Path) -> None:
    pairs = _write(tmp_path / "pairs.jsonl", [*GOOD, GOOD[0]])
    held = tmp_path / "held.txt"
    held.write_text("prompt 3\n")
    options = ["--html", str(tmp_path / "a.html"), "--json", str(tmp_path / "a.json"), "--evaluation", str(held)]
    done = CliRunner().invoke(app, ["audit", str(pairs), *options])
    assert done.exit_code == 0
    assert "5 pairs; at alpha 4 their effective sample size is 5" in done.output
    known = json.loads((tmp_path / "a.json").read_text())
    assert known["checks"]["duplicates"]["count"] == known["checks"]["leaks"]["count"] == 1
    assert "<h1>Audit of pairs.jsonl" in (tmp_path / "a.html").read_text()
    failing = CliRunner().invoke(app, ["audit", str(pairs), "--fail-on", "duplicates", "--fail-on", "silenced"])
    assert failing.exit_code == 1
    assert "FAILS duplicates" in failing.output
    assert CliRunner().invoke(app, ["audit", str(pairs), "--fail-on", "duplicates=0.5"]).exit_code == 0


def test_pairs_without_distances_are_measured(tmp_path: Path) -> None:
    rows = [{"prompt": "a red ball", "chosen": "a red ball in the desert", "rejected": "a cat"}]
    (tmp_path / "p.jsonl").write_text(json.dumps(rows[0]))
    done = CliRunner().invoke(app, ["audit", str(tmp_path / "p.jsonl"), "--fail-on", "truncation"])
    assert done.exit_code == 0, done.output
    assert re.search(r"truncation +0 \( +0%\)", done.output)


def test_bad_input_writes_nothing(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text('{"prompt": "zyxw vuts", "chosen": "qwrt", "rejected": "plkj"}')
    done = CliRunner().invoke(app, ["audit", str(tmp_path / "p.jsonl"), "--html", str(tmp_path / "a.html")])
    assert "knows only its world's words" in str(done.exception)
    assert [each.name for each in tmp_path.iterdir()] == ["p.jsonl"]


def test_a_terminal_is_not_steered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    evil = "a \x1b[2J\x9b31m\x07\u202e\r\ncat"
    (tmp_path / "p.jsonl").write_text(
        json.dumps({"prompt": evil, "chosen": f"{evil} b", "rejected": "c", "distance": 0.1, f"{evil}": 1})
    )
    monkeypatch.setattr("sys.argv", ["semdpo", "audit", str(tmp_path / "p.jsonl")])
    with pytest.raises(SystemExit):
        cli.main()
    shown = capsys.readouterr().out
    assert r"a \x1b[2J\x9b31m\x07\u202e\r\ncat  ->  a \x1b[2J" in shown
    assert not [each for each in shown if each != "\n" and unicodedata.category(each) in ("Cc", "Cf")]
    # An error that quotes what a file holds steers nothing either.
    (tmp_path / "p.jsonl").write_text(json.dumps({evil: "a"}))
    with pytest.raises(SystemExit):
        cli.main()
    assert not [each for each in capsys.readouterr().err[:-1] if unicodedata.category(each) in ("Cc", "Cf")]


def test_on_a_phone_a_row_of_the_page_is_stacked_below_its_check() -> None:
    """So that no verdict or remark lies outside a narrow screen."""
    page = as_page(audit(GOOD, 4.0), "p", [])
    assert page.count('<table class="stacked">') == page.count("<table")
    assert re.search(r"@media \(max-width: 560px\) \{.*\.stacked td[^{]*\{ display: block;", page, re.DOTALL)
    first_cells = re.findall(r"<tr>\s*<td class=\"name[^>]*>([\w-]+)", page)
    assert first_cells == list(CHECKS)
