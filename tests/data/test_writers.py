"""What is written can be read back as it was, and no program takes it for something else."""

from __future__ import annotations

import csv
import datetime
import json
import os
import tempfile
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semdpo.cli import app as cli
from semdpo.data.pairs import read_pairs, write_pairs
from semdpo.data.tables import read_table
from semdpo.data.writers import encoded
from semdpo.errors import DataError

PAIR = {"prompt": "a red ball", "chosen": "a red ball in the desert", "rejected": "a cat"}
FORMULAS = ["=1+1", "+1 day", "-1 day", "@SUM(A1)", "\t=1", "\r=1", "'=1", "''-", "-", "=cmd|' /C calc'!A0"]


def _cells(path: Path, **options: Any) -> list[list[str]]:
    """As another program reads them."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file, **options))


@pytest.mark.parametrize("suffix", ["csv", "tsv"])
def test_no_cell_begins_as_a_formula_does(suffix: str, tmp_path: Path) -> None:
    rows = [{**PAIR, "prompt": f"{each}x", "note": each, "=name": each} for each in FORMULAS]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pairs, path = read_pairs(tmp_path / "in.jsonl"), tmp_path / f"out.{suffix}"
    write_pairs(path, pairs, read_table(tmp_path / "in.jsonl").columns)
    cells = _cells(path, delimiter="," if suffix == "csv" else "\t")
    assert not [cell for row in cells for cell in row if cell[:1] in set("=+-@\t\r")]
    again = read_table(path)
    assert read_pairs(path) == pairs
    assert list(again.columns["note"]) == list(again.columns["=name"]) == FORMULAS


def test_numbers_stay_numbers(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text(
        "prompt,chosen,rejected,chosen_score,own,mixed\n-1,b,c,-0.5,-0.5,-0.5\nd,e,f,1,+2e-3,-\n"
    )
    pairs = read_pairs(tmp_path / "in.csv")
    write_pairs(tmp_path / "out.csv", pairs, read_table(tmp_path / "in.csv").columns)
    header, first, second = _cells(tmp_path / "out.csv")
    assert [row[header.index("chosen_score")] for row in (first, second)] == ["-0.5", "1.0"]
    assert [row[header.index("own")] for row in (first, second)] == ["-0.5", "+2e-3"]
    assert [row[header.index("mixed")] for row in (first, second)] == ["'-0.5", "'-"]
    assert first[header.index("prompt")] == "'-1", "a text is a text"
    assert [pair.prompt for pair in read_pairs(tmp_path / "out.csv")] == ["-1", "d"]


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8) | st.sampled_from(
    [*FORMULAS, '"', "a\rb", "", " a", "a;b"]
)


@settings(derandomize=True, database=None, deadline=None)
@given(st.dictionaries(TEXT.filter(bool), st.lists(TEXT, min_size=2, max_size=2), min_size=1, max_size=3))
@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet"])
def test_texts_survive(suffix: str, columns: dict[str, list[str]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"t.{suffix}")
        path.write_bytes(encoded(f".{suffix}", columns))
        if suffix in ("csv", "tsv") and list(columns.values()) == [["", ""]]:
            return  # a column of nothing
        again = read_table(path)
        assert {name: list(values) for name, values in again.columns.items()} == columns


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (Decimal("0.5"), 0.5),
        (Decimal("0.1234567890123456789"), "0.1234567890123456789"),
        (datetime.date(2024, 1, 2), "2024-01-02"),
        (float("nan"), None),
        ([{"a": float("nan")}], [{"a": None}]),
        ("\ud83d", "\ud83d"),
        (2**64, 2**64),
    ],
)
def test_values_of_other_kinds_in_jsonl(value: Any, written: Any) -> None:
    assert json.loads(encoded(".jsonl", {"own": [value]})) == {"own": written}


@pytest.mark.parametrize(
    ("suffix", "value", "said"),
    [
        (".jsonl", b"\xff", "column 'own' holds values of the type bytes, which jsonl cannot hold"),
        (".jsonl", float("inf"), "column 'own' holds infinite numbers"),
        (".csv", b"\xff", "column 'own' holds values of the type bytes, which csv cannot hold"),
        (".csv", "\ud83d", r"column 'own' holds half a character \(\\ud83d\)"),
        (".parquet", "\ud83d", "column 'own' .*cannot hold"),
        (".parquet", {}, "column 'own' has values that parquet cannot hold"),
        (".parquet", 2**70, "column 'own' .*cannot hold"),
    ],
)
def test_values_that_a_file_cannot_hold(suffix: str, value: Any, said: str) -> None:
    with pytest.raises(DataError, match=said):
        encoded(suffix, {"own": [value]})


def test_a_parquet_files_own_columns_keep_their_types(tmp_path: Path) -> None:
    own = {
        "big": pa.array([2**64 - 1], pa.uint64()),
        "decimal": pa.array([Decimal("1.50")]),
        "map": pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int32())),
        "bytes": pa.array([b"\xff"]),
    }
    pq.write_table(pa.table({**{name: [text] for name, text in PAIR.items()}, **own}), tmp_path / "in.parquet")
    table = read_table(tmp_path / "in.parquet")
    write_pairs(tmp_path / "out.parquet", read_pairs(tmp_path / "in.parquet"), table.columns)
    again = pq.read_table(tmp_path / "out.parquet")
    for name, column in own.items():
        assert again.column(name).type == column.type
        assert again.column(name).to_pylist() == column.to_pylist()


# ------------------------------------------------------------------------------------------------- weigh


def _weigh(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    monkeypatch.setattr("sys.argv", ["semdpo", "weigh", *arguments])
    code = 0
    try:
        cli.main()
    except SystemExit as ending:
        code = int(ending.code or 0)
    return code, capsys.readouterr().err


@pytest.mark.parametrize("how", ["name", "dots", "link", "hard link", "linked folder"])
def test_weigh_does_not_overwrite_what_it_reads(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    pairs, out = Path("pairs.jsonl"), Path("other.jsonl")
    pairs.write_text(json.dumps(PAIR))
    before = pairs.read_bytes()
    if how == "name":
        out = pairs
    elif how == "dots":
        Path("sub").mkdir()
        out = Path("sub/../pairs.jsonl")
    elif how == "link":
        out.symlink_to(pairs)
    elif how == "hard link":
        os.link(pairs, out)
    else:
        Path("sub").symlink_to(tmp_path)
        out = Path("sub/pairs.jsonl")
    code, said = _weigh(monkeypatch, capsys, str(pairs), "-o", str(out))
    assert code == 2
    assert "which is read; write to another file" in said
    assert pairs.read_bytes() == before


def test_weigh_does_not_write_into_the_data_set_that_it_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set/a.jsonl").write_text(json.dumps(PAIR))
    code, said = _weigh(monkeypatch, capsys, str(tmp_path / "set"), "-o", str(tmp_path / "set/b.jsonl"))
    assert code == 2
    assert "would overwrite" in said


def test_weigh_keeps_a_pair_id_and_refuses_a_truncated_of_the_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = tmp_path / "in.jsonl", tmp_path / "out.csv"
    source.write_text(json.dumps(PAIR | {"pair_id": 7}))
    assert _weigh(monkeypatch, capsys, str(source), "-o", str(out)) == (0, "")
    assert list(read_table(out).columns["pair_id"]) == ["7"]
    # What weigh wrote can be weighed again, and says so.
    code, said = _weigh(monkeypatch, capsys, str(out), "-o", str(tmp_path / "again.jsonl"))
    assert code == 0
    assert "already has distances; those in" in said
    source.write_text(json.dumps(PAIR | {"truncated": "no"}))
    code, said = _weigh(monkeypatch, capsys, str(source), "-o", str(tmp_path / "new.csv"))
    assert code == 2
    assert "has a column 'truncated', but weigh writes its own" in said
    assert not (tmp_path / "new.csv").exists()


def test_what_cannot_be_written_is_said_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pq.write_table(
        pa.table({**{name: [text] for name, text in PAIR.items()}, "own": [b"\xff"]}), tmp_path / "in.parquet"
    )
    monkeypatch.setattr("semdpo.engine.providers.own_models", None)
    code, said = _weigh(monkeypatch, capsys, str(tmp_path / "in.parquet"), "-o", str(tmp_path / "out.jsonl"))
    assert code == 2
    assert "column 'own' holds values of the type bytes" in said
