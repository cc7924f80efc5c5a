"""Methods with a second decoding in a report: rows of their own, and no part in any comparison."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pandas as pd
import pytest

from semdpo.recipe.models import DecodingConfig
from semdpo.recipe.variants import Variant, variants
from semdpo.reporting.compute import Tables, compute_tables, differences_frame, results_frame
from semdpo.reporting.report import ReportData, write_report
from tests.reporting.example import FIDELITY, METHODS, PREFERENCE, evaluation

SAMPLED = ["sft_sampled", "dpo_sampled", "sem_dpo_sampled"]
DECODING = DecodingConfig(temperature=1.0, top_p=0.95)


@pytest.fixture(scope="module")
def plain() -> ReportData:
    return ReportData(
        title="Once", evaluation=evaluation(prompts=8, kept=2), pairs=[], pair_counts={}, curves=[], stages=[],
        recipe="", versions={}, alpha=None, notes=[], fidelity=FIDELITY, preference=PREFERENCE,
        encoder_metric="clip",
    )  # fmt: skip


@pytest.fixture(scope="module")
def data(plain: ReportData) -> ReportData:
    """The same with a second decoding, whose scores by others than clip, which are cosines, are higher than all."""
    sampled = [
        dataclasses.replace(
            row,
            method=f"{row.method}_sampled",
            metrics={name: value + 5 * (name != "clip") for name, value in row.metrics.items()},
        )
        for row in plain.evaluation
        if row.method != "human"
    ]
    added = variants(METHODS[1:], {"sampled": DECODING})
    return dataclasses.replace(plain, evaluation=[*plain.evaluation, *sampled], variants=added)


@pytest.fixture(scope="module")
def page(data: ReportData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("variants") / "report.html"
    write_report(data, path)
    return path


def test_they_come_after_all_others_and_have_means_only(plain: ReportData, data: ReportData) -> None:
    before, tables = compute_tables(plain), compute_tables(data)
    assert (tables.methods, tables.variants) == (list(METHODS), SAMPLED)
    assert (tables.subject, tables.baseline, tables.others) == (before.subject, before.baseline, before.others)
    for name in ("average", "differences", "corrected", "duels", "equal_length"):
        assert getattr(tables, name) == getattr(before, name), name
    assert {key: tables.means[key] for key in before.means} == before.means
    shift = tables.means["dpo_sampled", "clip_b"].mean - tables.means["dpo", "clip_b"].mean
    assert shift == pytest.approx(5)


def test_files_of_means_have_them_and_those_of_comparisons_do_not(data: ReportData, page: Path) -> None:
    tables = compute_tables(data)
    results = results_frame(data, tables)
    assert list(dict.fromkeys(results.method)) == [*METHODS, *SAMPLED]
    assert set(results[results.metric == "average"].method) == set(METHODS)
    assert set(differences_frame(data, tables).minus) == set(METHODS) - {"sem_dpo"}
    counts = pd.read_csv(page.parent / "tables/counts.csv")
    assert counts["method"].tolist()[-3:] == ["SFT, sampled", "DPO, sampled", "Sem-DPO, sampled"]
    assert set(SAMPLED) < set(pd.read_csv(page.parent / "evaluation.csv")["method"])
    for name in ("table1_length", "table5_scores", "proposition2"):
        assert "sampled" not in (page.parent / f"tables/{name}.csv").read_text(), name


def test_plots_and_strip_are_those_without_them(plain: ReportData, page: Path, tmp_path: Path) -> None:
    write_report(plain, tmp_path / "report.html")
    drawn = {path.relative_to(tmp_path) for path in tmp_path.rglob("*.png")}
    assert {path.name for path in drawn} >= {"scatter.png", "duels.png", "lengths.png", "strip.png"}
    assert {path.relative_to(page.parent) for path in page.parent.rglob("*.png")} == drawn
    assert all((tmp_path / path).read_bytes() == (page.parent / path).read_bytes() for path in drawn)


def _rows(html: str) -> list[list[str]]:
    """The cells of the first table that has the methods, as text."""
    table = next(part for part in re.findall(r"<tbody>(.*?)</tbody>", html, re.DOTALL) if "name-in-table" in part)
    cells = [re.findall(r"<td[^>]*>(.*?)</td>", row, re.DOTALL) for row in re.findall(r"<tr.*?</tr>", table, re.DOTALL)]
    return [[re.sub(r"<[^>]+>", " ", cell).strip() for cell in row] for row in cells]


def test_the_page_has_them_below_a_title(data: ReportData, page: Path) -> None:
    html = page.read_text("utf-8")
    names = [row[0] for row in _rows(html)]
    assert names == [
        *("User&#39;s prompt", "SFT", "DPO", "Sem-DPO"),
        "sampled: the same rewriters at temperature 1, top_p 0.95",
        *("SFT, sampled", "DPO, sampled", "Sem-DPO, sampled"),
    ]
    assert [row[-1] for row in _rows(html)[-3:]] == ["–"] * 3, "they are not in the average"
    assert html.count("sampled: the same rewriters") == 2, "also in the table of words"
    assert "have the same prompts and image seeds. They are in no comparison" in html
    assert html.count('src="data:image/webp;base64,') == 2 * 4, "their images are not shown"
    assert "Sem-DPO, sampled" not in html.split("<h2>Results</h2>")[0]


def test_their_images_are_shown_where_they_are_named(data: ReportData, tmp_path: Path) -> None:
    named = dataclasses.replace(data, shown_methods=["dpo_sampled", "dpo"])
    write_report(named, tmp_path / "report.html")
    html = (tmp_path / "report.html").read_text("utf-8")
    shown = re.findall(r'<div class="name"><span[^>]*></span>([^<]+)</div>', html)
    assert shown == ["DPO", "DPO, sampled"] * 2


@pytest.mark.parametrize(
    ("decoding", "title"),
    [
        (None, "x: the same rewriters with another decoding"),
        (DecodingConfig(temperature=0), "x: the same rewriters, greedily"),
        (DecodingConfig(temperature=0, num_beams=8), "x: the same rewriters with 8 beams"),
        (
            DecodingConfig(temperature=0.7, top_p=1, top_k=20),
            "x: the same rewriters at temperature 0.7, top_p 1, top_k 20",
        ),
    ],
)
def test_a_decoding_in_words(decoding: DecodingConfig | None, title: str) -> None:
    from semdpo.reporting.rows import _title

    assert _title(Variant("dpo", "x", decoding)) == title


def test_two_decodings_come_one_after_the_other(plain: ReportData) -> None:
    rows = [
        dataclasses.replace(row, method=f"{row.method}_{name}")
        for row in plain.evaluation
        if row.method in ("sft", "dpo")
        for name in ("hot", "cold")
    ]
    both = dataclasses.replace(
        plain, evaluation=[*rows, *plain.evaluation], variants=variants(["dpo", "sft"], {"hot": None, "cold": None})
    )
    tables: Tables = compute_tables(both)
    assert tables.evaluated == [*METHODS, "sft_hot", "dpo_hot", "sft_cold", "dpo_cold"]
