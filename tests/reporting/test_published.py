"""A run on the paper's model and sets shows the paper's own numbers beside its own; any other run shows none."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from semdpo.analysis.statistics import min_max_average
from semdpo.data.records import EvaluationRow, content_id
from semdpo.reporting import paper
from semdpo.reporting.compute import compute_tables
from semdpo.reporting.data import Published, ReportData
from semdpo.reporting.published import METHODS, SCORERS, PaperTable, paper_tables, printed
from semdpo.reporting.report import write_report
from semdpo.reporting.tables import latex

SETS = ("coco", "diffusiondb", "lexica")


def _rows(methods: tuple[str, ...], sets: tuple[str, ...]) -> list[EvaluationRow]:
    rng = np.random.default_rng(0)
    rows = []
    for method in methods:
        for source in sets:
            for i in range(12):
                prompt = f"{source} prompt {i}"
                metrics = {name: float(rng.normal()) for name in ("clip", "blip_itm", "hps")}
                rows.append(
                    EvaluationRow(
                        method=method,
                        prompt_id=content_id(prompt),
                        prompt=prompt,
                        source=source,
                        image_seed=0,
                        rewrite=f"{prompt}, {method}",
                        tokens=5 + i,
                        distance=0.1,
                        truncated=False,
                        metrics=metrics,
                        image=None,
                    )
                )
    return rows


def _data(model: str, methods: tuple[str, ...] = ("human", "sft", "dpo", "sem_dpo"), sets=SETS) -> ReportData:
    return ReportData(
        title="t", evaluation=_rows(methods, sets), pairs=[], pair_counts={}, curves=[], stages=[], recipe="",
        versions={}, alpha=4.0, notes=[], fidelity=["clip", "blip_itm"], preference=["hps"],
        seen={"clip": "it measured drift"},
        published=Published(model, {"clip": "clip", "blip_itm": "blip_itm", "hps": "hpsv2.1"}),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("model", "cell", "value"),
    [
        ("gpt2", ("coco", "sem_dpo", "clip"), 0.2639),  # table 6
        ("gpt2", ("lexica", "promptist", "hps"), 0.223),
        ("gpt2", ("coco", "sem_dpo", "average"), 1.0),
        ("llama3.2-1b", ("diffusiondb", "dpo", "blip_itm"), 0.7747),  # table 3
        ("llama3.2-1b", ("diffusiondb", "dpo", "hps"), 0.2387),  # table 7
        ("qwen1.5-1.8b", ("lexica", "additive", "clip"), 0.2456),  # table 12
        ("qwen3-0.6b", ("all", "sft", "clip"), 0.2284),  # table 8, which has means over the sets only
        ("qwen3-0.6b", ("coco", "sft", "clip"), None),
        ("gpt2", ("coco", "sem_dpo", "blip_itm"), None),
        ("gpt2", ("evaluation", "sem_dpo", "clip"), None),
        ("tiny:gpt2", ("coco", "sem_dpo", "clip"), None),
    ],
)
def test_what_the_paper_printed(model: str, cell: tuple[str, str, str], value: float | None) -> None:
    assert printed(_data(model), *cell) == value


def test_names_are_those_of_the_papers_tables() -> None:
    known = paper.tables()
    scores = [known[name]["scores"] for name in ("table5", "table6", "table7", "table3", "table12")]
    named = {method for sets in scores for methods in sets.values() for method in methods}
    assert named <= set(METHODS.values())
    columns = {c for sets in scores[:4] for methods in sets.values() for row in methods.values() for c in row}
    assert columns <= {*SCORERS.values(), "average"}


def test_tables_hold_the_runs_means_beside_the_papers() -> None:
    data = _data("gpt2", ("human", "sft", "dpo", "sem_dpo", "additive"))
    tables = compute_tables(data)
    found = {each.name: each.frame for each in paper_tables(data, tables)}
    names = ["table1_length", "table2_median_length", "table3_fidelity", "table5_scores", "table12_additive"]
    assert list(found) == names
    own = np.mean([r.metrics["clip"] for r in data.evaluation if (r.method, r.source) == ("dpo", "coco")])
    scores = found["table5_scores"]
    assert scores.loc[("coco", "DPO"), "CLIP"] == pytest.approx(own)
    assert scores.loc[("coco", "DPO"), "paper: CLIP"] == 0.2403
    assert ("all", "DPO") in scores.index
    assert "paper: BLIP-ITM" not in scores.columns, "nothing printed, no column"
    assert found["table1_length"].loc["Sem-DPO", "paper: median"] == 30
    assert found["table1_length"].loc["Sem-DPO", "median"] == 10.5
    assert found["table2_median_length"].loc["DPO", "paper: coco"] == 71
    assert found["table3_fidelity"].index.get_level_values("method").unique().tolist() == [
        "User's prompt", "DPO", "Sem-DPO",
    ]  # fmt: skip


def test_another_run_shows_nothing_of_the_paper(tmp_path: Path) -> None:
    data = dataclasses.replace(_data("tiny:gpt2", sets=("mine", "yours")), published=None)
    write_report(data, tmp_path / "index.html")
    page = (tmp_path / "index.html").read_text("utf-8")
    assert "Set by set" in page
    assert ">paper" not in page
    for path in (tmp_path / "tables").glob("*.csv"):
        assert "paper" not in path.read_text(), path


def test_lengths_of_the_paper_stand_beside_its_models_only() -> None:
    for data in (_data("tiny:gpt2"), dataclasses.replace(_data("gpt2"), published=None)):
        found = {each.name: each.frame for each in paper_tables(data, compute_tables(data))}
        for name in ("table1_length", "table2_median_length"):
            assert not [column for column in found[name].columns if "paper" in column]


def test_numbers_over_all_sets_are_on_the_page(tmp_path: Path) -> None:
    """Tables 8 and 9 have means over the sets only."""
    write_report(_data("qwen3-0.6b"), tmp_path / "index.html")
    page = (tmp_path / "index.html").read_text("utf-8")
    assert "<small>paper 0.2284</small>" in page
    assert "<h3>all, " in page


def test_over_all_sets_the_average_is_that_of_the_means_as_in_table_8() -> None:
    known = paper.tables()["table8"]["mean_over_sets"]
    raw = pd.DataFrame(known).T[["clip", "hpsv2.1", "pickscore"]].astype(float)
    theirs = pd.DataFrame(known).T["average"].astype(float)
    assert min_max_average(raw).to_numpy() == pytest.approx(theirs.to_numpy(), abs=0.0015)
    data = _data("gpt2")
    tables = compute_tables(data)
    means = {m: {n: np.mean([s.means[m, n].mean for s in tables.sets]) for n in data.metrics} for m in tables.methods}
    expected = min_max_average(pd.DataFrame(means).T.astype(float))
    assert tables.average == pytest.approx(expected.to_dict())


def test_the_page_shows_both(tmp_path: Path) -> None:
    write_report(_data("gpt2"), tmp_path / "index.html")
    page = (tmp_path / "index.html").read_text("utf-8")
    assert "<small>paper 0.2639</small>" in page
    results = pd.read_csv(tmp_path / "tables/results.csv")
    assert set(results["source"]) == {"all", *SETS}
    assert (tmp_path / "plots/landscape.svg").is_file()


def test_latex_has_rules_and_escapes() -> None:
    data = _data("gpt2", ("human", "sft", "dpo_50%", "sem_dpo"))
    text = latex(paper_tables(data, compute_tables(data))[-1])
    assert r"\toprule" in text
    assert r"dpo\_50\%" in text
    assert "nan" not in text
    greek = latex(PaperTable("t", "over τ", pd.DataFrame({"x": [1.0]}, index=pd.Index(["β-DPO"], name="method"))))
    assert r"over $\tau$" in greek
    assert r"$\beta$-DPO" in greek
    assert greek.isascii()
