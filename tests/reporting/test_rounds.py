"""Rounds in a report: a table that begins with the user's prompt, paired differences, and a figure."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pandas as pd
import pytest

from semdpo.recipe.variants import Variant
from semdpo.reporting.compute import compute_tables
from semdpo.reporting.report import ReportData, write_report
from semdpo.reporting.rounds import RoundData, page
from tests.reporting.example import FIDELITY, PREFERENCE, evaluation

LATER = {"dpo_round2": 0.05, "sem_dpo_round2": 0.0, "dpo_round3": 0.1, "sem_dpo_round3": 0.01}


def _round(name: str) -> int:
    return int(name[-1])


@pytest.fixture(scope="module")
def data() -> ReportData:
    """Rewriters whose drift grows by a known amount with every round."""
    first = evaluation(prompts=8, kept=2)
    later = [
        dataclasses.replace(row, method=name, distance=row.distance + more, image=None)
        for name, more in LATER.items()
        for row in first
        if row.method == name.rpartition("_")[0]
    ]
    rounds = [
        RoundData(method, number, 10, 0.1 * number, 0.2, 3 if method == "dpo" else 0, 40, 400, 60.0)
        for method in ("dpo", "sem_dpo")
        for number in (1, 2, 3)
    ]
    return ReportData(
        title="Rounds", evaluation=[*first, *later], pairs=[], pair_counts={}, curves=[], stages=[], recipe="",
        versions={}, alpha=None, notes=[], fidelity=FIDELITY, preference=PREFERENCE, rounds=rounds,
        variants={n: Variant(n.rpartition("_")[0], f"round {_round(n)}", round=_round(n)) for n in LATER},
    )  # fmt: skip


@pytest.fixture(scope="module")
def folder(data: ReportData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rounds") / "index.html"
    write_report(data, path)
    return path.parent


def test_the_table_has_the_users_prompt_first_then_the_start_then_the_rounds(folder: Path) -> None:
    frame = pd.read_csv(folder / "tables/rounds.csv")
    assert list(zip(frame["method"], frame["round"], strict=True)) == [
        ("human", 0),
        ("sft", 0),
        *(("dpo", n) for n in (1, 2, 3)),
        *(("sem_dpo", n) for n in (1, 2, 3)),
    ]
    drift = frame.set_index(["method", "round"])["drift"]
    assert drift["dpo", 3] - drift["dpo", 1] == pytest.approx(0.1)
    trained = pd.read_csv(folder / "tables/rounds_trained.csv").set_index(["method", "round"])
    assert trained.loc[("dpo", 2), "chosen_distance"] == pytest.approx(0.2)
    assert trained["images"].sum() == 6 * 40


def test_differences_are_paired_by_prompt(folder: Path) -> None:
    frame = pd.read_csv(folder / "tables/rounds_differences.csv").set_index(["method", "minus", "metric"])
    drift = frame.xs("drift", level="metric")
    assert list(drift.index) == [
        *(("dpo_round2", "dpo"), ("dpo_round3", "dpo"), ("sem_dpo_round2", "sem_dpo"), ("sem_dpo_round3", "sem_dpo")),
        *(("sem_dpo", "dpo"), ("sem_dpo_round2", "dpo_round2"), ("sem_dpo_round3", "dpo_round3")),
    ]
    grown = drift.loc[("dpo_round3", "dpo")]
    # Every prompt drifts by the same amount more, so that only pairing gives an interval without a width.
    assert [grown["difference"], grown["low"], grown["high"]] == pytest.approx([0.1] * 3)
    assert set(drift["prompts"]) == {8}


def test_the_page_shows_the_last_round_against_the_first_and_against_the_baseline(
    data: ReportData, folder: Path
) -> None:
    shown = page(data, compute_tables(data))
    assert shown is not None
    assert [(row["one"], row["other"]) for row in shown["changes"]] == [  # type: ignore[attr-defined]
        ("dpo_round3", "dpo"),
        ("sem_dpo_round3", "sem_dpo"),
        ("sem_dpo_round3", "dpo_round3"),
    ]
    html = (folder / "index.html").read_text("utf-8")
    section = html.split("<h2>Round by round</h2>")[1].split("<h2>")[0]
    assert "trained in 3 rounds" in section
    assert "user's prompt chosen" in section
    first_row = re.findall(r"<tbody>\s*<tr>.*?</tr>", section, re.DOTALL)[0]
    assert "User&#39;s prompt" in first_row
    assert "DPO, round 3 − DPO" in section
    assert "round 2: trained on with candidates of the rewriters of round 1" in html
    assert (folder / "plots/rounds.png").stat().st_size > 10_000


def test_a_run_of_one_round_has_no_such_section(data: ReportData, tmp_path: Path) -> None:
    plain = dataclasses.replace(
        data, rounds=[], variants={}, evaluation=[row for row in data.evaluation if row.method not in LATER]
    )
    write_report(plain, tmp_path / "index.html")
    assert "Round by round" not in (tmp_path / "index.html").read_text("utf-8")
    assert not list(tmp_path.rglob("rounds*"))
