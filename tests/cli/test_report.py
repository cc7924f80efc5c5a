"""A report of somebody's own table: what is wrong is named by row, and nothing is written then."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from semdpo.cli.report import report_file
from semdpo.data.tables import read_table
from semdpo.errors import ConfigError, DataError


def _table() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "method": method, "prompt": f"a cat {i}", "rewrite": f"a cat {i}, {method}", "tokens": 4 + i,
            "distance": 0.1 * i, "clip": 0.2 + i / 100, "hps": 0.3 - i / 100,
        }
        for method in ("dpo", "sem_dpo")
        for i in range(6)
    )  # fmt: skip


def _report(table: pd.DataFrame, folder: Path, **options: object) -> Path:
    table.to_csv(folder / "rows.csv", index=False)
    settings = {"fidelity": ["clip"], "preference": ["hps"], "seen": [], "subject": "sem_dpo", "baseline": "dpo"}
    return report_file(str(folder / "rows.csv"), folder / "out", title="mine", **(settings | options))


def test_a_table_becomes_a_page(tmp_path: Path) -> None:
    page = _report(_table(), tmp_path, seen=["clip"])
    text = page.read_text("utf-8")
    assert "CLIP is not an independent scorer: it took part in training" in text
    again = pd.read_csv(page.with_name("evaluation.csv"))
    assert again["clip"].tolist() == pytest.approx(_table()["clip"].tolist())
    # what a report wrote can be reported again
    report_file(str(page.with_name("evaluation.csv")), tmp_path / "two", ["clip"], ["hps"], [], "dpo", "sem_dpo", "t")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.drop(columns="tokens"), "has no column 'tokens'"),
        (lambda t: t.rename(columns={"clip": "clpi"}), "has no column 'clip'.*did you mean 'clpi'"),
        (lambda t: t.assign(prompt=["", *t["prompt"][1:]]), "line 2: 'prompt' is empty"),
        (lambda t: t.assign(clip=[*t["clip"][:-1], float("inf")]), "line 13: 'clip' is inf"),
        (lambda t: t.assign(clip=[None, *t["clip"][1:]]), r"'clip' is missing in 1 rows \(line 2\)"),
        (lambda t: t.assign(hps=["good", *t["hps"][1:]]), "line 2: 'hps' must be a number, not 'good'"),
        (lambda t: t.iloc[:-1], "'dpo' and 'sem_dpo' cannot be paired: 1 images belong to one of them only"),
        (lambda t: pd.concat([t, t.tail(1)]), "seed 0 was evaluated twice"),
        (lambda t: t.assign(distance=[*t["distance"][:-1], 9.1]), "line 13: 'distance' is 9.1; it must be a cosine"),
        (lambda t: t.assign(tokens=[4.5, *t["tokens"][1:]]), "line 2: 'tokens' is 4.5; it must be a whole number"),
        (lambda t: t.assign(image_seed=-1), "line 2: 'image_seed' is -1; it must be a whole number"),
    ],
)
def test_bad_rows_are_named_and_nothing_is_written(change, said: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=said):
        _report(change(_table()), tmp_path)
    assert not (tmp_path / "out").exists()


def test_names_that_the_table_lacks(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no method 'sem-dpo'.*did you mean 'sem_dpo'.*--subject"):
        _report(_table(), tmp_path, subject="sem-dpo")
    with pytest.raises(ConfigError, match="the metric 'clip' is given twice"):
        _report(_table(), tmp_path, preference=["clip"])
    with pytest.raises(ConfigError, match=r"--seen names 'hpss'.*did you mean 'hps'"):
        _report(_table(), tmp_path, seen=["hpss"])


def test_facts_are_read_from_the_texts_of_a_table_when_asked(tmp_path: Path) -> None:
    table = _table().assign(prompt=[f"a {c} cat" for c in ("red", "blue", "white", "green", "yellow", "purple")] * 2)
    table["rewrite"] = [
        f"{p}, 8k" if m == "dpo" else "a red cat" for m, p in zip(table.method, table.prompt, strict=True)
    ]
    page = _report(table, tmp_path)
    assert "facts_wrong" not in pd.read_csv(page.with_name("evaluation.csv")).columns
    page = _report(table, tmp_path, facts="tiny")
    written = pd.read_csv(page.with_name("evaluation.csv"))
    assert written.groupby("method")["facts_wrong"].sum().to_dict() == {"dpo": 0, "sem_dpo": 5}
    results = pd.read_csv(page.parent / "tables/results.csv").set_index(["method", "metric"])
    assert results.loc[("sem_dpo", "facts_wrong"), "mean"] == pytest.approx(5 / 6)
    # the columns of a report's own table are computed again, not read
    written.assign(facts_wrong=1).to_csv(tmp_path / "again.csv", index=False)
    options = (tmp_path / "two", ["clip"], ["hps"], [], "sem_dpo", "dpo", "t")
    again = report_file(str(tmp_path / "again.csv"), *options, facts="tiny")
    assert pd.read_csv(again.with_name("evaluation.csv"))["facts_wrong"].sum() == 5
    with pytest.raises(ConfigError, match="--facts is 'earth'; it must be 'tiny'"):
        report_file(str(tmp_path / "again.csv"), *options, facts="earth")


def test_methods_with_another_decoding_are_named_when_asked(tmp_path: Path) -> None:
    table = pd.concat([_table(), _table().assign(method=[f"{name}_hot" for name in _table().method], clip=0.9)])
    page = _report(table, tmp_path)
    differences = pd.read_csv(page.parent / "tables/differences.csv")
    assert set(differences["minus"]) == {"dpo", "dpo_hot", "sem_dpo_hot"}, "not asked"
    page = _report(table, tmp_path, also=["hot"])
    assert set(pd.read_csv(page.parent / "tables/differences.csv")["minus"]) == {"dpo"}
    results = pd.read_csv(page.parent / "tables/results.csv")
    assert list(dict.fromkeys(results["method"])) == ["dpo", "sem_dpo", "dpo_hot", "sem_dpo_hot"]
    assert "hot: the same rewriters with another decoding" in page.read_text("utf-8")
    for options, said in (
        ({"also": ["cold"]}, "--also names 'cold', but the table has no method such as 'dpo_cold'"),
        (
            {"also": ["hot"], "baseline": "dpo_hot"},
            "'dpo_hot' is a method with another decoding, which is not compared",
        ),
    ):
        with pytest.raises(ConfigError, match=said):
            _report(table, tmp_path, **options)


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_booleans_are_one_and_zero(suffix: str, tmp_path: Path) -> None:
    """Such as a question of a checklist: whether the image shows what was asked."""
    table = _table().assign(clip=[k % 3 > 0 for k in range(12)])
    if suffix == "csv":
        table.to_csv(tmp_path / "rows.csv", index=False)
    elif suffix == "jsonl":
        table.to_json(tmp_path / "rows.jsonl", orient="records", lines=True)
    else:
        table.to_parquet(tmp_path / "rows.parquet")
    page = report_file(str(tmp_path / f"rows.{suffix}"), tmp_path / "out", ["clip"], ["hps"], [], "sem_dpo", "dpo", "t")
    written = pd.read_csv(page.with_name("evaluation.csv"))
    assert written["clip"].tolist() == [float(k % 3 > 0) for k in range(12)]


@pytest.mark.parametrize("name", ["distance", "tokens", "prompt", "image_seed", "method", "average", "drift"])
def test_a_reports_own_columns_are_no_metrics(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"'{name}' cannot be a metric's name, because the report has such a column"):
        _report(_table().assign(**{name: _table().get(name, 1.0)}), tmp_path, fidelity=[name])
    assert not (tmp_path / "out").exists()


def test_seeds_of_63_bits_stay_apart_and_texts_run_nothing(tmp_path: Path) -> None:
    twice = pd.concat([_table().assign(image_seed=2**62 + k) for k in range(2)]).assign(prompt="=1+1", rewrite="@x")
    twice = twice.assign(source=[f"{k % 6}" for k in range(24)])
    twice["prompt"] = [f"=1+{k % 6}" for k in range(24)]
    page = _report(twice, tmp_path)
    written = pd.read_csv(page.with_name("evaluation.csv"))
    assert sorted(set(written["image_seed"])) == [2**62, 2**62 + 1]
    assert set(written["prompt"]) == {f"'=1+{k}" for k in range(6)}
    rows = read_table(page.with_name("evaluation.csv"))
    assert set(rows.columns["prompt"]) == {f"=1+{k}" for k in range(6)}
