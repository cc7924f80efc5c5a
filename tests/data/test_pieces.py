"""A table in pieces: the same rows, and the same files and audits, as in one piece."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from semdpo.cli import app as cli
from semdpo.data import pieces
from semdpo.data.tables import read_table
from semdpo.errors import DataError
from semdpo.protocols import Embeddings

ROWS: list[dict[str, Any]] = [
    {
        "prompt": f"a thing {k}",
        "chosen": f"a thing {k}, style {k % 3}",
        "rejected": f"a thing {k}, dull" + " and long" * (k % 2),
        "score_chosen": k / 2,
        "score_rejected": "n/a" if k == 8 else 1,  # so that these two columns are not used
        "number": str(k) if k != 7 else "=seven",  # a text, in its last rows only
        **({"note": [k]} if k == 9 else {}),
    }
    for k in range(11)
]


class Letters:
    """Its vectors count letters; it asks for as much as a real encoder does."""

    def encode(self, texts: list[str]) -> Embeddings:
        counts = [[1 + text.count(letter) for letter in "aehintsy0123456789"] for text in texts]
        return Embeddings(np.array(counts, np.float32), np.array([len(text) > 20 for text in texts]))


@pytest.fixture(autouse=True)
def own_encoder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SEMDPO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("semdpo.models.text_encoder.load_text_encoder", lambda _, **allowed: Letters())


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """The rows as jsonl, as parquet, and as a folder of parquet files of which one is empty."""
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n\n" for row in ROWS))
    plain = [{name: row[name] for name in ROWS[0]} | {"score_rejected": None} for row in ROWS]
    table = pa.Table.from_pylist(plain, schema=None).append_column("small", pa.array(range(11), pa.int8()))
    pq.write_table(table, tmp_path / "rows.parquet", row_group_size=5)
    (tmp_path / "folder").mkdir()
    for k, (start, stop) in enumerate([(0, 2), (2, 2), (2, 10), (10, 11)]):
        pq.write_table(table.slice(start, stop - start), tmp_path / f"folder/part-{k}.parquet")
    return {name: tmp_path / name for name in ("rows.jsonl", "rows.parquet", "folder")}


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.parquet", "folder"])
@pytest.mark.parametrize("size", [1, 3, 100])
def test_the_pieces_are_the_table(
    name: str, size: int, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pieces, "SIZE", size)
    whole, found = read_table(files[name]), pieces.read_pieces(str(files[name]))
    for _ in range(2):  # each time, the file is read again
        parts = list(found)
        assert len(parts) == 1 if size == 100 else max(len(part.rows) for part in parts) < len(ROWS)
        assert [row for part in parts for row in part.rows] == list(whole.rows)
        for part in parts:
            assert list(part.columns) == list(whole.columns)
        for column in whole.columns:
            assert [value for part in parts for value in part.columns[column]] == list(whole.columns[column])
    assert found.rows == len(whole.rows) == len(ROWS)


def test_a_late_row_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "SIZE", 2)
    path = tmp_path / "rows.jsonl"
    for bad, said in ((b"nonsense\n", "line 4: this is not JSON"), (b"{}\n\xff\n", r"not UTF-8 \(byte .*, line 5\)")):
        path.write_bytes(b'{"prompt": "a"}\n' * 3 + bad)
        with pytest.raises(DataError, match=said):
            pieces.read_pieces(str(path))
    path.write_bytes(b"\n \n")
    with pytest.raises(DataError, match="is empty; give a file with at least one row"):
        pieces.read_pieces(str(path))


def test_files_of_a_folder_must_have_the_same_columns(files: dict[str, Path]) -> None:
    pq.write_table(pa.table({"other": [1]}), files["folder"] / "part-9.parquet")
    with pytest.raises(DataError, match=r"part-9\.parquet has other columns than part-0\.parquet"):
        list(pieces.read_pieces(str(files["folder"])))


def _semdpo(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr("sys.argv", ["semdpo", *map(str, arguments)])
    with pytest.raises(SystemExit) as ending:
        cli.main()
    return int(ending.value.code or 0)


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.parquet", "folder"])
@pytest.mark.parametrize("suffix", ["jsonl", "csv", "tsv", "parquet"])
def test_weigh_and_audit_do_not_depend_on_the_pieces(
    name: str,
    suffix: str,
    files: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if (name, suffix) == ("rows.jsonl", "parquet"):  # a list in one row and a text in another are no parquet column
        files[name].write_text("".join(json.dumps(row | {"score_rejected": 1}) + "\n" for row in ROWS))
    seen = []
    for size in (100, 3):
        monkeypatch.setattr(pieces, "SIZE", size)
        out, numbers = tmp_path / f"out.{suffix}", tmp_path / "audit.json"
        out.unlink(missing_ok=True)
        assert _semdpo(monkeypatch, "weigh", files[name], "--encoder", "tiny:clip", "--alpha", "2", "-o", out) == 0
        for audited in (files[name], out):  # measured by the audit, and before it
            assert _semdpo(monkeypatch, "audit", audited, "--encoder", "tiny:clip", "--json", numbers) in (0, 2)
        assert _semdpo(monkeypatch, "audit", out, "--json", numbers) == 0
        said = capsys.readouterr()
        content = pq.read_table(out) if suffix == "parquet" else out.read_bytes()
        seen.append((content, json.loads(numbers.read_text()), said.out))
    assert seen[0] == seen[1]
