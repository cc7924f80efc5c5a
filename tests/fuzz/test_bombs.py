"""Small files that hold, or claim, more than a machine has; and texts that cost the square of their size."""

from __future__ import annotations

import io
import json
import struct
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from semdpo import answers
from semdpo.data.arrow_files import from_arrow
from semdpo.data.prompts import normalised
from semdpo.data.tables import read_table
from semdpo.errors import DataError
from semdpo.texts import trimmed
from tests.fuzz.corpus import lines, parquet
from tests.fuzz.harness import PAIR, HangsError, attempt, check, commands, limited

# ------------------------------------------------------------------------------------------------- files that expand


def _equal_rows(count: int, text: str) -> bytes:
    """Rows of one text, which is stored once."""
    column = pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, np.int32)), pa.array([text]))
    sink = io.BytesIO()
    table = pa.table(dict.fromkeys(PAIR, column))
    pq.write_table(table, sink, row_group_size=count, compression="zstd", store_schema=False)
    return sink.getvalue()


def _claims(rows: int, place: int) -> bytes | None:
    """A file of one row, in which one of the numbers that may be the number of rows is another; None for no such."""
    whole = parquet({name: [text] for name, text in PAIR.items()})
    (length,) = struct.unpack("<I", whole[-8:-4])
    footer, one, many, claimed = whole[-8 - length : -8], b"\x16\x02", b"", 2 * rows  # thrift's zigzag numbers
    while claimed > 127:
        many, claimed = many + bytes([claimed & 127 | 128]), claimed >> 7
    parts = footer.split(one)
    if place >= len(parts) - 1:
        return None
    changed = one.join(parts[: place + 1]) + b"\x16" + many + bytes([claimed]) + one.join(parts[place + 1 :])
    return whole[: -8 - length] + changed + struct.pack("<I", len(changed)) + b"PAR1"


def _stream(column: pa.Array) -> bytes:
    sink = io.BytesIO()
    table = pa.table({"prompt": column})
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return sink.getvalue()


def _long_runs() -> bytes:
    ends = pa.array([2**31 - 1], pa.int64())
    return _stream(pa.RunEndEncodedArray.from_arrays(ends, pa.array(["a"])))


BOMBS: dict[str, tuple[str, Callable[[], bytes | None]]] = {
    "a million rows of one long text": (".parquet", lambda: _equal_rows(1_000_000, "a" * 10_000)),
    "many rows of one short text": (".parquet", lambda: _equal_rows(20_000_000, "a")),
    "rows of nulls": (".parquet", lambda: parquet({name: pa.nulls(20_000_000, pa.string()) for name in PAIR})),
    "arrow's nulls": (".arrow", lambda: _stream(pa.nulls(200_000_000))),
    "one run of rows": (".arrow", _long_runs),
    "a key of its own in each row": (".jsonl", lambda: lines(*({f"k{k}": 1} for k in range(20_000)))),
    "a key of its own in each entry": (".json", lambda: json.dumps([{f"k{k}": 1} for k in range(20_000)]).encode()),
    **{f"claimed rows {k}": (".parquet", lambda k=k: _claims(10**12, k)) for k in range(5)},
    **{f"negative rows {k}": (".parquet", lambda k=k: _claims(2**63 + 5, k)) for k in range(4)},
}


@pytest.mark.parametrize("what", BOMBS)
def test_files_that_expand(what: str, tmp_path: Path) -> None:
    suffix, made = BOMBS[what]
    if (content := made()) is None:
        pytest.skip("there is no such number")
    assert len(content) < 4_000_000, "a bomb is small"
    (tmp_path / "good.jsonl").write_text(json.dumps({**PAIR, "distance": 0.1}))
    file = tmp_path / f"bomb{suffix}"
    if suffix == ".arrow":
        file = tmp_path / "bomb"
        file.mkdir()
        (file / "part.arrow").write_bytes(content)
    else:
        file.write_bytes(content)
    expected = (0, 2) if what.startswith(("claimed", "negative")) else (2,)  # most of these numbers nobody reads
    readers = ("weigh", "audit") if suffix == ".arrow" else ("weigh", "optimize", "report")
    for arguments in commands(str(file), tmp_path):
        if arguments[0] in readers and arguments[1] != "a cat" and arguments[1] != str(tmp_path / "good.jsonl"):
            assert check(arguments, tmp_path) in expected, arguments


def test_large_tables_are_no_bombs(tmp_path: Path) -> None:
    """Half a million rows of different texts, with columns that hold one value."""
    count = 500_000
    column = pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, np.int32)), pa.array(["laion"]))
    prompts = pa.array(np.char.add("a red ball in the desert, number ", np.arange(count).astype(str)))
    pq.write_table(pa.table({"prompt": prompts, "source": column, "split": column}), tmp_path / "p.parquet")
    assert len(read_table(tmp_path / "p.parquet").rows) == count
    keys = ({f"k{k % 50}": k, "prompt": "a"} for k in range(20_000))
    (tmp_path / "p.jsonl").write_bytes(lines(*keys))
    assert len(read_table(tmp_path / "p.jsonl").columns) == 51


# ------------------------------------------------------------------------------------------------- texts that take long

M = 1_000_000


def long_texts(size: int) -> dict[str, str]:
    """Texts of about a size, of what may take the square of it."""
    return {
        "letters": "x" * size,
        "blanks within": f"a{' ' * size}b",
        "line ends within": "a" + "\n" * size + "b",
        "zero-width within": "a" + "\u200b" * size + "b",
        "marks in the wrong order": "a" + "\u0301\u0327" * (size // 2),
        "marks of emoji": "\U0001f408\u200d" * (size // 2),
        "signs": "!" * size,
        "turns": "Human:" + "\n\nAssistant" * (size // 11),
        "more turns": "\n\nHuman: a" * (size // 10),
        "open brackets": "(" * size,
        "closed brackets": "(" * (size // 2) + ")" * (size // 2),
        "quotes": '"' * size,
        "apostrophes": " 'a" * (size // 3),
        "backslashes": "\\(" * (size // 2),
        "choices": "{a|" * (size // 3),
        "weights": "(a:1.2), " * (size // 9),
        "numbers": "1" * size,
        "digits": "1." * (size // 2),
        "colons": "a::" * (size // 3),
        "tags": "<lora:" * (size // 6),
        "options": " --ar" * (size // 5),
        "parts": " BREAK" * (size // 6),
        "html": "<script>" * (size // 8),
        "right to left": "\u202e\u05d0" * (size // 2),
        "a role": '[{"role": "content"' * (size // 19),
        "formulas": "=1+" * (size // 3),
    }


LONG = long_texts(200_000)
LONGEST = ("letters", "blanks within", "marks in the wrong order")


@pytest.mark.parametrize("what", LONGEST)
def test_prompts_of_a_megabyte(what: str) -> None:
    text = long_texts(M)[what]
    attempt("long.jsonl", lines({**PAIR, "prompt": text, "distance": 0.1}, {**PAIR, "chosen": text, "distance": 0.1}))


@pytest.mark.parametrize("what", LONG)
def test_functions_of_long_texts(what: str) -> None:
    with limited():
        trimmed(LONG[what])
        normalised(LONG[what])
        answers.read(LONG[what])


def test_a_hang_is_found() -> None:
    with pytest.raises(HangsError), limited(0.2):
        time.sleep(30)


def test_marks_stay_what_they_are() -> None:
    """Rows of marks are cut for speed; the prompts of people have at most a few."""
    assert normalised("z\u0338\u0301 Cat") == normalised("z\u0301\u0338 cat")
    assert normalised("cafe\u0301") == normalised("caf\u00e9")
    assert normalised("!" * 40) == "!" * 40
    assert normalised("a" + "\u0301" * 100) != normalised("a")


def test_all_blanks_are_trimmed() -> None:
    blanks = "".join(filter(str.isspace, map(chr, range(0x110000)))) + "\u200b\u2060\ufeff"
    assert trimmed(f"{blanks}a{blanks}b{blanks}") == f"a{blanks}b"


MANY_NAMES = [f"c{k}" for k in range(40_000)]
REPEATED: dict[str, tuple[str, bytes]] = {
    "keys": (".jsonl", ("{" + ", ".join(f'"{name}": 1' for name in [*MANY_NAMES, "c39999"]) + "}").encode()),
    "columns": (".csv", (",".join([*MANY_NAMES, "c39999"]) + "\n").encode()),
    "columns of tabs": (".tsv", ("\t".join([*MANY_NAMES, "c39999"]) + "\n").encode()),
    "different columns": (
        ".csv",
        ((",".join(MANY_NAMES[:15_000]) + "\n") * 2).encode(),
    ),
    "a long key": (".jsonl", ('{"' + "k" * M + '": 1, "' + "k" * M + '": 1}').encode()),
    "a long column": (".csv", ("p" * M + "," + "p" * M + "\n").encode()),
    "long columns": (".csv", (",".join(f"prompt{k}{'x' * 10_000}" for k in range(100)) + "\na" + "," * 99).encode()),
}


@pytest.mark.parametrize("what", REPEATED)
def test_many_and_long_names(what: str) -> None:
    suffix, content = REPEATED[what]
    attempt(f"names{suffix}", content)


def test_columns_of_equal_names() -> None:
    table = pa.Table.from_arrays([pa.array(["a"])] * (len(MANY_NAMES) + 1), names=[*MANY_NAMES, MANY_NAMES[-1]])
    with limited(), pytest.raises(DataError, match=r"two columns with the same name \('c39999'\)"):
        from_arrow(table, "p.parquet")
