"""Benchmarks in the report; and the user's own prompt, which stands first in every table."""

from __future__ import annotations

import html as escaping
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from semdpo.data.atoms import AtomAnswer
from semdpo.data.records import EvaluationRow
from semdpo.recipe.variants import Variant
from semdpo.reporting.atoms import AtomData
from semdpo.reporting.benchmarks import ALL, UNSEEN, BenchmarkData, BenchmarkTable, benchmark_table
from semdpo.reporting.compute import compute_tables
from semdpo.reporting.labels import method_label
from semdpo.reporting.report import ReportData, write_report
from tests.reporting.example import FIDELITY, METHODS, PREFERENCE, curves, evaluation, pairs

USERS = method_label("human")


def _rows(prompts: int = 12) -> list[EvaluationRow]:
    """The example's rows as those of a benchmark with two categories; the methods in an odd order."""
    rows = [
        replace(row, source="Colors" if k % prompts < 9 else "Text") for k, row in enumerate(evaluation(prompts, 1))
    ]
    return sorted(rows, key=lambda row: row.method, reverse=True)


def _data(rows: Sequence[EvaluationRow], **given: object) -> BenchmarkData:
    known = {
        "name": "drawbench",
        "title": "DrawBench",
        "source": "imagen.research.google",
        "licence": "not named",
        "likeness": "not the published prompts: 11 of 12 equal, and 1 other",
        "sha256": "f" * 64,
        "rows": rows,
        "leaked": {"trained": [], "sft": []},
    }
    return BenchmarkData(**(known | given))


def _answers(rows: Sequence[EvaluationRow]) -> dict[str, list[AtomAnswer]]:
    found: dict[str, list[AtomAnswer]] = {}
    for row in rows:
        answers = [("object", "Is there a ball?", 0.9, True), ("attribute", "Is it red?", 0.5, row.method == "human")]
        found.setdefault(row.method, []).extend(
            AtomAnswer(f"{row.prompt_id} {row.method}", row.prompt_id, row.image_seed, s, q, p, k)
            for s, q, p, k in answers
        )
    return found


@pytest.fixture(scope="module")
def data() -> ReportData:
    """A report with several sets, a second decoding, atoms, and two benchmarks, of which one leaked."""
    rows = [
        *(replace(row, source="coco" if k % 2 else "lexica") for k, row in enumerate(evaluation(24, 1))),
    ]
    sampled = [replace(row, method="dpo_warm") for row in rows if row.method == "dpo"]
    rows = [*sampled, *reversed(rows)]
    bench = _rows()
    bench += [replace(row, method="dpo_warm") for row in bench if row.method == "dpo"]
    leaked = [row.prompt_id for row in bench if row.method == "human"][:2]
    return ReportData(
        title="Trial",
        evaluation=rows,
        pairs=pairs(),
        pair_counts={"kept": 60},
        curves=curves(),
        stages=[("prompts", 0.1, 84)],
        recipe="name: trial\n",
        versions={"semdpo": "0.1.0"},
        alpha=4.0,
        notes=[],
        fidelity=FIDELITY,
        preference=PREFERENCE,
        encoder_metric="clip",
        variants={"dpo_warm": Variant("dpo", "warm")},
        atoms=AtomData(_answers(rows), "rules", "a-judge", 24, 0),
        benchmarks=[
            _data(bench, leaked={"trained": leaked, "sft": leaked[:1], "tuning": []}, left_out=3, duplicates=2),
            _data(bench, name="geneval2", title="GenEval 2", atoms=AtomData(_answers(bench), "file", "a-judge", 12, 0)),
        ],
    )


@pytest.fixture(scope="module")
def folder(data: ReportData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report")
    write_report(data, path / "index.html")
    return path


@pytest.fixture(scope="module")
def page(folder: Path) -> str:
    return (folder / "index.html").read_text("utf-8")


def _table(rows: Sequence[EvaluationRow], **given: object) -> BenchmarkTable:
    return benchmark_table(_data(rows, **given), [*FIDELITY, *PREFERENCE], ["sem_dpo", "sft", "human", "dpo"])


def _values(rows: Sequence[EvaluationRow], method: str, metric: str) -> dict[str, float]:
    return {row.prompt_id: row.metrics[metric] for row in rows if row.method == method}


def test_means_and_differences_are_those_of_the_rows() -> None:
    rows = _rows()
    table = _table(rows)
    assert table.methods == ["human", "sem_dpo", "sft", "dpo"]
    assert {part.name for part in table.parts} == {ALL, "Text", "Colors"}
    assert table.unseen is None
    own, rewritten = (_values(rows, method, "hps") for method in ("human", "sft"))
    gaps = np.array([rewritten[prompt] - own[prompt] for prompt in own])
    whole = table.whole
    assert (whole.prompts, table.seeds) == (12, 1)
    assert whole.means["sft", "hps"].mean == pytest.approx(np.mean(list(rewritten.values())))
    gap = whole.differences["sft", "hps"]
    assert gap.mean == pytest.approx(gaps.mean())
    assert gap.low < gaps.mean() < gap.high
    assert ("human", "hps") not in whole.differences
    assert sum(part.prompts for part in table.categories) == 12
    for part in table.categories:
        chosen = [p for p in own if any(r.prompt_id == p and r.source == part.name for r in rows)]
        assert part.prompts == len(chosen)
        assert part.differences["sft", "hps"].mean == pytest.approx(np.mean([rewritten[p] - own[p] for p in chosen]))


def test_leaked_prompts_stay_in_and_a_second_part_is_without_them() -> None:
    rows = _rows()
    ids = list(_values(rows, "human", "hps"))
    table = _table(rows, leaked={"trained": ids[:3], "sft": ids[2:4], "tuning": []})
    assert table.data.leaked_prompts == set(ids[:4])
    assert table.unseen is not None
    assert (table.whole.prompts, table.unseen.prompts) == (12, 8)
    own = _values(rows, "human", "clip")
    assert table.whole.means["human", "clip"].mean == pytest.approx(np.mean(list(own.values())))
    assert table.unseen.means["human", "clip"].mean == pytest.approx(np.mean([own[prompt] for prompt in ids[4:]]))
    assert _table(rows, leaked={"trained": ids[:11]}).unseen is None, "one prompt gives no interval"
    table = _table(rows, leaked={"trained": [*ids[:3], "blackened"], "sft": ["blackened"]})
    assert table.data.leaked == {"trained": ids[:3], "sft": []}, "a prompt without images is not one of these prompts"


def test_one_prompt_has_a_mean_and_no_difference() -> None:
    rows = [row for row in _rows() if row.prompt_id == _rows()[0].prompt_id]
    table = _table(rows)
    assert table.whole.prompts == 1
    assert table.whole.differences == {}
    assert table.categories == []


def test_the_page_says_what_was_evaluated(page: str) -> None:
    section = page.split("<h2>Benchmarks</h2>")[1].split("<h2>")[0]
    text = re.sub(r"\s+", " ", escaping.unescape(re.sub(r"<[^>]+>", "", section)))
    assert "DrawBench: not the published prompts: 11 of 12 equal, and 1 other" in text
    assert f"SHA-256 of these prompts: {'f' * 64}" in text
    assert "2 of these prompts leaked: 2 are among the training prompts, 1 is among the SFT examples" in text
    assert "2 repeated prompts of the file count once. 3 combinations" in text
    assert "All prompts: 12" in text
    assert f"{UNSEEN.capitalize()}: 10" in text
    assert "None of these prompts leaked: they were compared with the training prompts and the SFT examples" in text
    assert "GenEval 2's own questions about single facts" in text
    assert section.index("images show") < section.index("rewrites state")
    cells = re.findall(r'<td class="value">(.*?)</td>', section, re.DOTALL)
    assert any(cell.count("<small>") == 2 for cell in cells), "an interval, and the difference to the user's prompt"


def test_a_report_without_benchmarks_has_no_section(data: ReportData, tmp_path: Path) -> None:
    write_report(replace(data, benchmarks=()), tmp_path / "index.html")
    assert "Benchmarks" not in (tmp_path / "index.html").read_text()
    assert not list((tmp_path / "tables").glob("benchmark*"))


def test_the_numbers_are_written_as_csv_and_latex(folder: Path) -> None:
    table = pd.read_csv(folder / "tables/benchmark_drawbench.csv")
    assert list(table["prompts"].unique()) == [ALL, UNSEEN, *table["prompts"].unique()[2:]]
    assert all(name.startswith("category ") for name in table["prompts"].unique()[2:])
    own = table[table["method"] == "human"]
    assert own["minus_user"].isna().all()
    whole = table[(table["prompts"] == ALL) & (table["method"] == "sft")].set_index("metric")
    assert whole.loc["hps", "minus_user_low"] < whole.loc["hps", "minus_user"] < whole.loc["hps", "minus_user_high"]
    assert 0 <= whole.loc["hps", "p_t"] <= 1
    tex = (folder / "tables/benchmark_drawbench.tex").read_text()
    assert "not the published prompts: 11 of 12 equal" in tex
    assert (folder / "tables/benchmark_geneval2_atoms.csv").is_file()


# ------------------------------------------------------------------------------------------------- first in every table


def _bodies(page: str) -> Iterator[list[list[str]]]:
    """The rows of every part of every table of a page, as the texts of their cells."""
    for body in re.findall(r"<tbody>(.*?)</tbody>", page, re.DOTALL):
        for part in re.split(r'<tr class="part">.*?</tr>', body, flags=re.DOTALL):
            rows = [
                re.findall(r"<td.*?</td>", row, re.DOTALL) for row in re.findall(r"<tr>(.*?)</tr>", part, re.DOTALL)
            ]
            yield [[escaping.unescape(re.sub(r"<[^>]+>", "", cell)).strip() for cell in cells] for cells in rows]


def test_the_users_prompt_stands_first_in_every_table_of_the_page(page: str) -> None:
    found = 0
    for rows in _bodies(page):
        by_set: dict[str, list[str]] = {}
        for row in rows:
            place = next(
                (k for k, cell in enumerate(row[:2]) if cell == USERS or cell in map(method_label, METHODS)), None
            )
            if place is not None:
                by_set.setdefault(" ".join(row[:place]), []).append(row[place])
        for methods in by_set.values():
            if USERS in methods:
                assert methods[0] == USERS, rows
                found += 1
    assert found > 15, "results, wording, sets, atoms, theory, the paper's tables, and the benchmarks' own"
    headings = [escaping.unescape(h) for h in re.findall(r"<h3>(.*?, (?:facts )?paired by prompt)</h3>", page)]
    first = {
        kind: next(h for h in headings if h.endswith(kind))
        for kind in (", paired by prompt", ", facts paired by prompt")
    }
    assert all("the user's own prompt" in heading for heading in first.values()), headings
    assert "the user's own prompt" in escaping.unescape(next(re.finditer(r"<h2>Sem-DPO − (.*?)</h2>", page))[1])


def test_the_users_prompt_stands_first_in_every_file(folder: Path) -> None:
    found = set()
    for path in sorted((folder / "tables").glob("*.csv")):
        table = pd.read_csv(path)
        column = "minus" if "minus" in table else "method"
        names = {"human", USERS}
        if column not in table or not names & set(table[column]):
            continue
        others = [c for c in ("source", "set", "prompts") if c in table and table[c].dtype == object]
        for _, part in table.groupby(others, sort=False) if others else [((), table)]:
            assert part[column].iloc[0] in names, path.name
        found.add(path.stem)
        tex = path.with_suffix(".tex").read_text() if path.with_suffix(".tex").is_file() else ""
        for name in names & set(table[column]):
            rest = [tex.find(f" {other} &") for other in METHODS[1:] if f" {other} &" in tex]
            assert not rest or tex.find(f"{name} &") < min(rest), path.name
    assert {"results", "differences", "benchmark_drawbench", "benchmark_geneval2_atoms", "atoms"} <= found
    assert {"atoms_differences", "counts", "proposition2", "table1_length", "table5_scores"} <= found


def test_the_comparisons_begin_with_the_users_prompt_then_the_baseline(data: ReportData) -> None:
    assert compute_tables(data).others == ["human", "dpo", "sft"]
    assert compute_tables(replace(data, baseline="human")).others[0] == "human"
    without = [row for row in data.evaluation if row.method != "human"]
    assert compute_tables(replace(data, evaluation=without, benchmarks=(), atoms=None)).others == ["dpo", "sft"]
