"""The report's page and files, of an invented evaluation."""

from __future__ import annotations

import dataclasses
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from semdpo.analysis.statistics import Estimate
from semdpo.data.records import PairLoss
from semdpo.errors import DataError, StoreError
from semdpo.reporting.compute import compute_tables, verdict
from semdpo.reporting.formats import decimals, number
from semdpo.reporting.propositions import drift_table
from semdpo.reporting.report import ReportData, write_report
from semdpo.reporting.rows import comparisons
from tests.reporting.example import FIDELITY, METHODS, PREFERENCE, THEORY, curves, evaluation, pairs


@pytest.fixture(scope="module")
def data() -> ReportData:
    return ReportData(
        title="Trial <run>",
        evaluation=evaluation(),
        pairs=pairs(),
        pair_counts={"kept": 60, "ties": 4, "below_margin": 2},
        curves=curves(),
        stages=[("prompts", 0.1, 84), ("label", 61.2, 240), ("evaluate/dpo/images", 41.0, 192)],
        recipe="name: trial # <b>not bold</b>\n",
        versions={"semdpo": "0.1.0", "torch": "2.13"},
        alpha=4.0,
        notes=["a remark <i>"],
        fidelity=FIDELITY,
        preference=PREFERENCE,
        losses=[PairLoss(each.pair_id, float(each.distance or 0), 0.1 + i / 60) for i, each in enumerate(pairs())],
        encoder_metric="clip",
        rendered=432,
        tokens=[("in the candidates", 4321)],
        truncated_rewrites={"sft": 3},
    )


@pytest.fixture(scope="module")
def folder(data: ReportData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report")
    write_report(data, path / "report.html")
    return path


@pytest.fixture(scope="module")
def html(folder: Path) -> str:
    return (folder / "report.html").read_text("utf-8")


class Tags(HTMLParser):
    """Collects tags, attributes, ids, and whether every element is closed."""

    VOID = frozenset({"meta", "img", "br", "link", "input", "hr"})

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.open: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def parsed(html: str) -> Tags:
    tags = Tags()
    tags.feed(html)
    tags.close()
    return tags


def test_page_loads_nothing_from_anywhere(html):
    tags = parsed(html)
    assert not {"script", "link", "iframe", "object", "embed"} & set(tags.tags)
    loads = [v for _, name, v in tags.attributes if name in {"src", "href", "xlink:href", "srcset", "data"}]
    assert loads
    assert all(value.startswith(("data:image/", "#")) for value in loads)
    assert not re.search(r"url\((?!#)", html)
    assert "@import" not in html


def test_page_is_well_formed_and_ids_are_unique(html):
    tags = parsed(html)
    assert tags.open == []
    ids = [value for _, name, value in tags.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    used = re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"', html)
    assert {a or b for a, b in used} <= set(ids)


def test_foreign_text_is_escaped(html):
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    for raw in ("<run>", "<b>not bold", "a remark <i>"):
        assert raw not in html


@pytest.mark.slow
def test_equal_data_give_equal_bytes(data, folder, tmp_path):
    write_report(data, tmp_path / "report.html")
    names = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
    assert names == sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file())
    for name in names:
        assert (folder / name).read_bytes() == (tmp_path / name).read_bytes(), name


def test_files_beside_the_page(folder):
    names = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    plots = {f"plots/{name}.png" for name in ("scatter", "duels", "lengths", "weights", "curves", "cost", *THEORY)}
    shown = {"table1_length", "table2_median_length", "table3_fidelity", "table5_scores"}
    shown |= {"results", "differences", "proposition1", "proposition2", "counts", "cost", "effective_sample_size"}
    tables = {f"tables/{name}.{kind}" for name in shown for kind in ("csv", "tex")}
    files = {"report.html", "evaluation.csv", "strip.png", "tables/curves.csv", "tables/weights.csv", ".files.json"}
    assert names == files | plots | {name.replace(".png", ".svg") for name in plots} | tables
    for name in shown:
        text = (folder / f"tables/{name}.tex").read_text()
        assert text.count(r"\bottomrule") >= 1, name
        assert r"clip\_b" in text or "clip_b" not in text, f"{name} is not escaped"
    assert r"\begin{longtable}" in (folder / "tables/results.tex").read_text()
    assert r"\begin{longtable}" not in (folder / "tables/table5_scores.tex").read_text()
    for name in [*plots, "strip.png"]:
        with Image.open(folder / name) as image:
            image.load()
            assert image.width > 500


def test_results_file_holds_the_means(data, folder):
    table = pd.read_csv(folder / "tables/results.csv").set_index(["method", "metric"])
    expected = np.mean([r.metrics["clip_b"] for r in data.evaluation if r.method == "dpo"])
    row = table.loc[("dpo", "clip_b")]
    assert row["mean"] == pytest.approx(expected)
    assert row["low"] < row["mean"] < row["high"]
    assert len(table) == 4 * (6 + 5 + 1)
    assert table.loc[("human", "drift"), "mean"] == 0


def test_differences_file_and_page_agree(data, folder, html):
    table = pd.read_csv(folder / "tables/differences.csv").set_index(["minus", "metric"])
    row = table.loc[("dpo", "clip_b")]
    assert row["method"] == "sem_dpo"
    assert row["difference"] == pytest.approx(0.08, abs=0.02)
    assert row["p_holm"] >= row["p_t"]
    assert row["wins"] + row["ties"] + row["losses"] == 24
    places = decimals((row["high"] - row["low"]) / 2)
    assert f"[{number(row['low'], places, sign=True)}, {number(row['high'], places, sign=True)}]" in html


def test_words_follow_the_interval():
    assert verdict(Estimate(0.1, 0.01, 0.2)) == "higher"
    assert verdict(Estimate(-0.1, -0.2, -0.01)) == "lower"
    assert verdict(Estimate(0.1, 0.0, 0.2)) == "no significant difference"


def test_swapping_the_scores_of_two_methods_swaps_the_words(data):
    other = {"dpo": "sem_dpo", "sem_dpo": "dpo"}
    swapped = [dataclasses.replace(r, method=other.get(r.method, r.method)) for r in data.evaluation]
    ours = compute_tables(data).differences["dpo", "clip_b"]
    theirs = compute_tables(dataclasses.replace(data, evaluation=swapped)).differences["dpo", "clip_b"]
    assert (verdict(ours), verdict(theirs)) == ("higher", "lower")


def tiles_of(html: str) -> list[list[str]]:
    """The names in the tiles of each comparison on the first screen."""
    first_screen = html.split('class="cells"')[0].split('<div class="tiles">')[1:]
    return [re.findall(r'<div class="tile"><span><strong>([\w-]+)', part) for part in first_screen]


def test_the_first_screen_compares_with_the_users_prompt_and_the_baseline_by_independent_scorers(html):
    scorers = ["CLIP-B", "BLIP-ITM", "HPS", "PickScore"]
    assert tiles_of(html) == [scorers, [*scorers, "drift"]], "the user's own prompt has no drift to compare"
    assert "Sem-DPO compared with the user&#39;s own prompt: " in html
    assert "Sem-DPO compared with DPO: " in html
    assert "ImageReward is not an independent scorer: it labelled the training pairs" in html


def test_the_first_screen_has_the_numbers_of_the_differences_file(data, folder, html):
    table = pd.read_csv(folder / "tables/differences.csv").set_index(["minus", "metric"])
    comparison = comparisons(data, compute_tables(data))[0]
    assert comparison["other"] == "human"
    for tile in comparison["tiles"]:
        row = table.loc[("human", tile["name"])]
        places = decimals((row["high"] - row["low"]) / 2)
        assert tile["value"] == number(row["difference"], places, sign=True)
        assert f"<b>{tile['value']}</b><span>{tile['interval']}</span>" in html


def test_the_first_screen_says_where_the_users_own_prompt_is_better(data):
    """LEVEL puts the user's prompt above Sem-DPO by 0.04 in fidelity; exchanging the two reverses the sentence."""
    data = dataclasses.replace(data, preference=[])
    summary = comparisons(data, compute_tables(data))[0]["summary"]
    assert summary == "Sem-DPO compared with the user's own prompt: lower on CLIP-B and BLIP-ITM."
    other = {"human": "sem_dpo", "sem_dpo": "human"}
    exchanged = [dataclasses.replace(r, method=other.get(r.method, r.method)) for r in data.evaluation]
    data = dataclasses.replace(data, evaluation=exchanged)
    summary = comparisons(data, compute_tables(data))[0]["summary"]
    assert summary == "Sem-DPO compared with the user's own prompt: higher on CLIP-B and BLIP-ITM."


def test_without_the_users_prompt_the_first_screen_compares_with_the_baseline_only(data):
    without = dataclasses.replace(data, evaluation=[r for r in data.evaluation if r.method != "human"])
    assert [each["other"] for each in comparisons(without, compute_tables(without))] == ["dpo"]
    against_it = dataclasses.replace(data, baseline="human")
    assert [each["other"] for each in comparisons(against_it, compute_tables(against_it))] == ["human"]


def test_the_verdict_comes_before_the_wide_columns(html):
    """On a phone the first columns are on the screen, and the rest is scrolled to."""
    tables = re.findall(r"<thead>.*?</thead>", html, re.DOTALL)
    columns = [re.findall(r"<th[^>]*>([^<]*)</th>", head) for head in tables]
    with_verdict = [names for names in columns if "verdict" in names]
    assert len(with_verdict) == 3, "one for each method that the subject is compared with"
    assert all(names[:2] == ["scorer", "verdict"] for names in with_verdict)
    row = re.search(r"<tr><td>CLIP-B</td>(.*?)</tr>", html)
    assert row
    assert re.match(r'<td class="text verdict">(higher|lower|no significant difference)</td>', row[1])
    assert ".scroll { overflow-x: auto; }" in html
    assert re.search(r"\.scroll td:first-child \{ position: sticky; left: 0;", html)


def test_sections_come_in_reading_order(html):
    assert re.findall(r"<h2>([^<]+)</h2>", html) == [
        "Sem-DPO − the user&#39;s own prompt",
        "Sem-DPO − DPO",
        "Prompts, rewrites and images",
        "Results",
        "Fidelity and preference",
        "Head to head",
        "Weights of the training pairs",
        "What the theory bounds",
        "Training",
        "What it cost",
        "How to reproduce this report",
    ]


def test_counts_are_shown(html):
    for text in ("ties: 4", "below margin: 2", "SFT: 2 of 48 images", "432 images rendered", "102 seconds"):
        assert text in html
    for text in (
        "in the candidates: 4321",
        "longer than a model reads; 3 rewrites truncated at the token budget",
    ):
        assert text in html
    assert "longer than the encoder reads: 1<" in html


def test_gallery_shows_one_row_a_prompt_in_order(html):
    asked = re.findall(r'<p class="asked">“(.*?)”', html)
    assert len(asked) == 5
    assert asked[1] == "a red ball number 1"
    assert html.count('src="data:image/webp;base64,') == 5 * 4


@pytest.mark.slow
def test_chosen_methods_stand_side_by_side(data, tmp_path):
    write_report(dataclasses.replace(data, shown_methods=["human", "sem_dpo"]), tmp_path / "report.html")
    html = (tmp_path / "report.html").read_text()
    assert html.count('src="data:image/webp;base64,') == 5 * 2
    assert html.count("oil painting by sem_dpo") > html.count("oil painting by dpo")


@pytest.mark.slow
def test_what_an_older_report_wrote_goes_and_what_others_wrote_stays(data, tmp_path):
    write_report(data, tmp_path / "report.html")
    (tmp_path / "plots/mine.png").write_bytes(b"mine")
    assert (tmp_path / "plots/curves.png").is_file()
    write_report(dataclasses.replace(data, curves=[], losses=[]), tmp_path / "report.html")
    assert not list(tmp_path.rglob("curves.*"))
    assert not (tmp_path / "tables/proposition1.tex").exists()
    assert (tmp_path / "plots/mine.png").read_bytes() == b"mine"


@pytest.mark.slow
def test_a_method_without_weights_shows_none(data, tmp_path):
    write_report(dataclasses.replace(data, alpha=None, subject="dpo", baseline="sft"), tmp_path / "report.html")
    html = (tmp_path / "report.html").read_text()
    for words in ("Weights of the training pairs", "lowest weights", "Proposition 1"):
        assert words not in html
    assert "longer than the encoder reads: 1<" in html
    assert not (tmp_path / "plots/weights.png").exists()


def test_one_kind_of_metric_is_not_drawn_against_itself(data, tmp_path):
    rows = [dataclasses.replace(r, metrics={"clip": r.metrics["clip"]}) for r in data.evaluation]
    one = dataclasses.replace(data, evaluation=rows, fidelity=["clip"], preference=[])
    write_report(one, tmp_path / "report.html")
    assert "Fidelity and preference" not in (tmp_path / "report.html").read_text()
    assert not (tmp_path / "plots/scatter.png").exists()


def test_scores_that_are_no_cosines_have_no_proposition_2(data):
    assert drift_table(data, METHODS) is not None
    scaled = [dataclasses.replace(r, metrics=r.metrics | {"clip": 21.0}) for r in data.evaluation]
    assert drift_table(dataclasses.replace(data, evaluation=scaled), METHODS) is None


def test_bare_report(tmp_path, data):
    """One method, no pairs, curves, times or images: still a page, without what it cannot tell."""
    rows = [dataclasses.replace(r, image=None) for r in data.evaluation if r.method == "human"]
    bare = dataclasses.replace(
        data, evaluation=rows, pairs=[], curves=[], stages=[], pair_counts={}, fidelity=["mine"], preference=[]
    )
    bare = dataclasses.replace(
        bare, evaluation=[dataclasses.replace(r, metrics={"mine": r.metrics["clip"]}) for r in rows]
    )
    write_report(bare, tmp_path / "deep" / "page.html")
    html = (tmp_path / "deep" / "page.html").read_text("utf-8")
    assert parsed(html).open == []
    assert "Head to head" not in html
    assert not (tmp_path / "deep" / "strip.png").exists()


def test_methods_that_nobody_foresaw(tmp_path, data):
    names = {"dpo": "<dpo> $x^$", "sem_dpo": "語"}
    rows = [dataclasses.replace(r, method=names.get(r.method, r.method)) for r in data.evaluation]
    write_report(dataclasses.replace(data, evaluation=rows, curves=[]), tmp_path / "r.html")
    html = (tmp_path / "r.html").read_text("utf-8")
    assert "<dpo>" not in html
    assert "&lt;dpo&gt; $x^$" in html


def refused(data: ReportData, tmp_path: Path, match: str) -> None:
    with pytest.raises(DataError, match=match):
        write_report(data, tmp_path / "r.html")
    assert list(tmp_path.iterdir()) == []


def test_nothing_evaluated(data, tmp_path):
    refused(dataclasses.replace(data, evaluation=[]), tmp_path, "run `semdpo evaluate` first")


def test_one_prompt_gives_no_interval(data, tmp_path):
    first = data.evaluation[0].prompt_id
    rows = [row for row in data.evaluation if row.prompt_id == first]
    refused(dataclasses.replace(data, evaluation=rows), tmp_path, "1 prompt was evaluated, .* evaluate more prompts")


def test_no_metrics(data, tmp_path):
    refused(dataclasses.replace(data, fidelity=[], preference=[]), tmp_path, "at least one metric")


def test_an_absent_metric_is_named(data, tmp_path):
    refused(dataclasses.replace(data, fidelity=["jina"]), tmp_path, "'jina' is missing for method 'human'")


def test_a_reserved_metric_is_refused(data, tmp_path):
    refused(dataclasses.replace(data, fidelity=["tokens"]), tmp_path, "another name")


def test_unpaired_methods_are_refused(data, tmp_path):
    refused(dataclasses.replace(data, evaluation=data.evaluation[:-1]), tmp_path, "cannot be paired")


def test_unweighed_pairs_are_refused(data, tmp_path):
    unweighed = [dataclasses.replace(data.pairs[0], distance=None), *data.pairs[1:]]
    refused(dataclasses.replace(data, pairs=unweighed), tmp_path, "1 pairs have no .* `semdpo weigh`")


@pytest.mark.slow
def test_a_page_that_cannot_be_written(data, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match="choose another folder"):
        write_report(data, tmp_path / "file" / "report.html")


@pytest.mark.slow
def test_a_folder_in_the_page_s_place_is_left_alone(data, tmp_path):
    (tmp_path / "report.html").mkdir()
    with pytest.raises(StoreError, match="choose another folder"):
        write_report(data, tmp_path / "report.html")
    assert not list(tmp_path.glob(".*"))
