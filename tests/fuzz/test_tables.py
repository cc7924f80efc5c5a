"""Hostile tables through every command that reads one: a result or one sentence; no traceback, hang or stray file."""

from __future__ import annotations

import random
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.corpus import GOOD_PARQUET, TABLES, lines
from tests.fuzz.harness import JUDGED, PAIR, REPEATABLE, attempt, check, commands

PARTS = 8


@pytest.mark.parametrize("part", range(PARTS))
def test_tables_made_by_hand(part: int) -> None:
    assert len(TABLES) > 250
    for name, what, content in TABLES[part::PARTS]:
        try:
            attempt(name, content)
        except BaseException as error:
            error.add_note(f"the file: {what} ({name})")
            raise


@pytest.mark.parametrize("seed", range(40))
def test_flipped_bytes_of_a_parquet_file(seed: int) -> None:
    drawn = random.Random(seed)
    data = bytearray(GOOD_PARQUET)
    for _ in range(drawn.randint(1, 4)):
        data[drawn.randrange(len(data))] = drawn.randrange(256)
    attempt("flipped.parquet", bytes(data) if seed % 4 else bytes(data[: drawn.randrange(len(data))]))


# ------------------------------------------------------------------------------------------------- tables by hypothesis

TEXT = st.text(st.characters(codec=None), max_size=12) | st.sampled_from(
    ["a cat", "a dog", "=1", "-1", "'-1", "\u200b"]
)
VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
MESSAGES = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant", "x"]), "content": TEXT}), max_size=3
)
SIDE = TEXT | MESSAGES | VALUE
RECORD = st.fixed_dictionaries(
    {"prompt": SIDE, "chosen": SIDE, "rejected": SIDE},
    optional={"chosen_score": VALUE, "distance": VALUE, "own": VALUE, "score_chosen": VALUE, "score_rejected": VALUE},
)


@REPEATABLE
@given(st.lists(RECORD, min_size=1, max_size=3))
def test_records_in_jsonl(records: list[dict[str, Any]]) -> None:
    attempt("drawn.jsonl", lines(*records))


@REPEATABLE
@given(st.lists(st.lists(TEXT, min_size=3, max_size=3), min_size=1, max_size=3), st.sampled_from(["csv", "tsv"]))
def test_cells(rows: list[list[str]], suffix: str) -> None:
    mark = {"csv": ",", "tsv": "\t"}[suffix]
    lines = [mark.join(PAIR), *(mark.join(row) for row in rows)]
    attempt(f"drawn.{suffix}", "\n".join(lines).encode("utf-8", "surrogatepass"))


@REPEATABLE
@given(st.binary(max_size=60), st.sampled_from(["csv", "tsv", "jsonl", "json", "parquet", "txt", "arrow"]))
def test_bytes(content: bytes, suffix: str) -> None:
    attempt(f"drawn.{suffix}", content)


@REPEATABLE
@given(st.lists(st.fixed_dictionaries({k: st.just(v) | VALUE for k, v in JUDGED.items()}), min_size=1, max_size=2))
def test_judged_rows(rows: list[dict[str, Any]]) -> None:
    folder = Path(tempfile.mkdtemp(prefix="semdpo-fuzz-"))
    (folder / "scored.jsonl").write_bytes(lines(*rows))
    check(commands(str(folder / "scored.jsonl"), folder)[-1], folder)
    shutil.rmtree(folder)
