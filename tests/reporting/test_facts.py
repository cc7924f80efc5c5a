"""The facts of prompts and rewrites in a report: columns, tables, and the lines beside an image."""

from __future__ import annotations

import dataclasses
import io
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from semdpo.data.records import EvaluationRow, content_id
from semdpo.errors import DataError
from semdpo.reporting import facts
from semdpo.reporting.compute import compute_tables, differences_frame, images_frame, results_frame
from semdpo.reporting.labels import FACTS
from semdpo.reporting.report import ReportData, write_report
from semdpo.reporting.strip import CELL, GAP, MARKS, strip
from tests.reporting.example import FIDELITY, PREFERENCE, evaluation

PROMPT = "a red ball in the snow"
# What each method makes of every prompt; the first prompt of DPO stays as it is.
REWRITES = {
    "human": PROMPT,
    "sft": f"{PROMPT}, oil painting, highly detailed",
    "dpo": "a yellow ball in the snow and a purple cat at sunset",
    "sem_dpo": f"a red ball and a white boat {PROMPT.removeprefix('a red ball ')}, watercolor",
}


def _row(prompt: str, rewrite: str, method: str = "dpo") -> EvaluationRow:
    return dataclasses.replace(evaluation(1, 1)[0], method=method, prompt=prompt, rewrite=rewrite)


@pytest.fixture(scope="module")
def data() -> ReportData:
    """Four prompts of one wording; DPO leaves the first of them as it is."""
    rows = evaluation(prompts=4, seeds=2, kept=2)
    first = rows[0].prompt_id
    said = [
        dataclasses.replace(
            row,
            prompt=PROMPT,
            rewrite=PROMPT if row.method == "dpo" and row.prompt_id == first else REWRITES[row.method],
        )
        for row in rows
    ]
    return ReportData(
        title="Facts", evaluation=said, pairs=[], pair_counts={}, curves=[], stages=[], recipe="", versions={},
        alpha=None, notes=[], fidelity=FIDELITY, preference=PREFERENCE, facts="tiny",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("rewrite", "expected"),
    [
        (PROMPT, (0, 0, 0)),
        ("In the snow, a red ball, watercolor, 8k", (0, 0, 0)),
        ("a green ball in the snow", (1, 0, 0)),
        ("a red ball", (1, 0, 0)),
        ("a red ball and a white boat in the snow", (0, 1, 0)),
        ("a red ball in the snow at sunset", (0, 1, 1)),
        ("a purple ball in the snow", (1, 0, 1)),
        ("", (1, 0, 0)),
    ],
)
def test_columns_of_one_rewrite(rewrite: str, expected: tuple[int, ...]) -> None:
    assert facts.columns(PROMPT, rewrite) == dict(zip(FACTS, expected, strict=True))


def test_the_tables_have_the_shares_and_the_users_prompt_has_none(data: ReportData) -> None:
    tables = compute_tables(data)
    means = {name: [tables.means[method, name].mean for method in tables.methods] for name in FACTS}
    assert tables.methods == ["human", "sft", "dpo", "sem_dpo"]
    assert means == {
        "facts_wrong": [0, 0, 0.75, 0],
        "content_added": [0, 0, 0.75, 1],
        "popular_added": [0, 0, 0.75, 0],
    }
    results = results_frame(data, tables).set_index(["method", "metric"])
    assert results.loc[("dpo", "facts_wrong"), "mean"] == 0.75
    differences = differences_frame(data, tables).set_index(["minus", "metric"])
    assert differences.loc[("dpo", "facts_wrong"), "difference"] == -0.75
    assert differences.loc[("sft", "content_added"), "difference"] == 1
    images = images_frame(data)
    assert images[images.method == "dpo"][list(FACTS)].to_numpy().tolist() == [[0] * 3] * 2 + [[1] * 3] * 6
    assert not images[images.method == "human"][list(FACTS)].to_numpy().any()


def test_without_facts_nothing_changes(data: ReportData) -> None:
    without = dataclasses.replace(data, facts=None)
    tables = compute_tables(without)
    frames = [results_frame(without, tables), differences_frame(without, tables), images_frame(without)]
    assert not any(name in frame.to_string() for frame in frames for name in FACTS)
    named = [dataclasses.replace(row, metrics=row.metrics | {"facts_wrong": 0.5}) for row in data.evaluation]
    mine = dataclasses.replace(without, evaluation=named, fidelity=[*FIDELITY, "facts_wrong"])
    assert compute_tables(mine).means["dpo", "facts_wrong"].mean == 0.5
    with pytest.raises(DataError, match="'facts_wrong' is a column of every report; give the metric another name"):
        compute_tables(dataclasses.replace(mine, facts="tiny"))


def test_the_page_shows_the_columns_and_marks_the_images(data: ReportData, tmp_path: Path) -> None:
    evil, first = "<b>red</b> ball & <script>", data.evaluation[0].prompt_id
    changes = {first: {"prompt": evil, "prompt_id": content_id(evil)}}
    rows = [dataclasses.replace(row, **changes.get(row.prompt_id, {})) for row in data.evaluation]
    noted = dataclasses.replace(data, evaluation=rows, notes=facts.notes(rows))
    write_report(noted, tmp_path / "report.html")
    html = (tmp_path / "report.html").read_text("utf-8")
    heads = [re.findall(r"<th[^>]*>([^<]*)</th>", head) for head in re.findall(r"<thead>.*?</thead>", html, re.DOTALL)]
    assert heads[0][-5:] == ["drift", "facts wrong", "content added", "popular added", "average"]
    row = next(row for row in re.findall(r"<tr><td>.*?</tr>", html, re.DOTALL) if "DPO" in row)
    assert len(re.findall("<td", row)) == 6 + 1 + 3 + 2
    for words in ("Facts wrong: the share", "Content added: the share", "Popular added: the share"):
        assert words in html
    assert '<div class="mark wrong">✗ wrong: red → yellow</div>' in html
    assert '<div class="mark added">+ added: purple cat, sunset</div>' in html
    assert '<div class="mark added">+ added: white boat</div>' in html
    assert html.count('<div class="mark right">✓ all as asked</div>') == 1, "SFT's, of the second prompt"
    assert "<script" not in html
    assert "words that the tiny world does not have (b, red, script): 1. " in html
    assert "differences" in {path.stem for path in (tmp_path / "tables").iterdir()}
    assert "facts\\_wrong" in (tmp_path / "tables/differences.tex").read_text()
    assert {"facts_wrong"} < set(pd.read_csv(tmp_path / "tables/results.csv")["metric"])
    write_report(dataclasses.replace(data, facts=None), tmp_path / "report.html")
    html = (tmp_path / "report.html").read_text("utf-8")
    assert not any(words in html for words in ("facts wrong", "Facts wrong", "all as asked", '"mark '))


def _luminance(colour: str) -> float:
    parts = np.array([int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)])
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def _contrast(one: str, other: str) -> float:
    dark, light = sorted((_luminance(one), _luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def test_the_marks_can_be_read_on_their_background() -> None:
    """WCAG asks for a contrast of 4.5; the signs at their beginnings do not depend on colours at all."""
    assert min(_contrast(colour, "#ffffff") for colour in MARKS.values()) >= 4.5
    style = (Path(facts.__file__).parent / "style.css.j2").read_text()
    for theme in re.findall(r":root \{(.*?)\}", style, re.DOTALL):
        named = dict(re.findall(r"--([\w-]+): (#\w{6})", theme))
        assert min(_contrast(named[name], named["card"]) for name in ("wrong", "right", "added-ink")) >= 4.5


def test_lines_beside_an_image() -> None:
    assert facts.marks(_row(PROMPT, "a cat", "human")) == []
    assert [mark.text for mark in facts.marks(_row(PROMPT, f"{PROMPT}, 8k"))] == ["✓ all as asked"]
    both = facts.marks(_row(PROMPT, "a cat at night"))
    assert [mark.kind for mark in both] == ["wrong", "added"]
    assert [mark.text[0] for mark in both] == ["✗", "+"]


def test_the_strip_marks_its_images(data: ReportData) -> None:
    def colours(shown: ReportData) -> set[tuple[int, ...]]:
        png = strip(shown, compute_tables(shown))
        assert png is not None
        with Image.open(io.BytesIO(png)) as image:
            return {colour for _, colour in image.convert("RGB").getcolors(10**6)}

    red, green = (tuple(int(MARKS[kind][k : k + 2], 16) for k in (1, 3, 5)) for kind in ("wrong", "right"))
    assert {red, green} <= colours(data), "DPO's second prompt, and its first"
    assert {red, green}.isdisjoint(colours(dataclasses.replace(data, facts=None)))


def test_the_strip_shows_the_methods_that_the_report_shows(data: ReportData) -> None:
    def columns(*shown: str) -> int:
        picked = dataclasses.replace(data, shown_methods=list(shown))
        png = strip(picked, compute_tables(picked))
        assert png is not None
        with Image.open(io.BytesIO(png)) as image:
            return (image.width - GAP) // (CELL + GAP)

    assert columns("human", "dpo") == 2
    assert columns() == columns("human", "sft", "dpo", "sem_dpo") == 3, "more do not fit into a README"


def test_prompts_that_are_not_of_the_tiny_world() -> None:
    assert facts.notes([_row(PROMPT, "anything")]) == []
    (note,) = facts.notes([_row("a zeppelin", "x"), _row("a zeppelin", "y"), _row("a blue ball thing", "x")])
    assert note.startswith("Prompts with words that the tiny world does not have (thing, zeppelin): 2. ")
    crowd = "a cat, a fish, a house, a boat, a tree, a red ball and a bird"
    assert set(facts.columns(crowd, crowd).values()) == {0}
