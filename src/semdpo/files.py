"""Reads and writes a user's own files: prompts, rewrites and preference pairs as txt, jsonl, csv or parquet."""

from __future__ import annotations

import csv
import io
import json
import logging
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from semdpo.disk import write_bytes
from semdpo.errors import DataError
from semdpo.records import Pair, content_id
from semdpo.tables import TABLES, Table, read_table

NUMBERS = (
    *("chosen_score", "rejected_score", "distance", "rejected_distance"),
    *("weight", "chosen_fidelity", "rejected_fidelity"),
)
ENCODER = ("encoder", "encoder_fingerprint")  # that measured the distances
COSINE = (-1e-6, 2 + 1e-6)  # float32 may round a distance past its ends
LIMITS = {"distance": COSINE, "rejected_distance": COSINE, "weight": (0.0, math.inf)}
CACHE = "SEMDPO_CACHE"  # environment variable: the folder of what can be computed again

log = logging.getLogger("semdpo")


def read_rewrites(name: str | Path) -> list[tuple[str, str]]:
    """Pairs (prompt, rewrite) to fine-tune on.

    Raises:
        DataError: see ``read_table``; or a column is missing, or a row is empty or no text.
    """
    table = read_table(name)
    return list(zip(table.texts("prompt"), table.texts("rewrite"), strict=True))


def read_pairs(name: str | Path) -> list[Pair]:
    """Preference pairs: columns prompt, chosen, rejected; scores and distances are kept when there are any.

    Raises:
        DataError: see ``read_table``; or a column is missing, a text empty, a number not finite, or a pair
            whose two sides are equal.
    """
    return pairs_of(read_table(name))


def pairs_of(table: Table) -> list[Pair]:
    """The pairs of a table that was read; see ``read_pairs``."""
    table = _spoken(table)
    texts = [table.texts(name) for name in ("prompt", "chosen", "rejected")]
    numbers = [table.numbers(name) for name in NUMBERS]
    for name, (low, high) in LIMITS.items():
        for row, value in zip(table.rows, table.numbers(name), strict=True):
            if value is not None and not low <= value <= high:
                raise DataError(f"{table.file}, {row}: '{name}' is {value:g}; {_allowed(name)}")
    encoders = _encoders(table)
    truncated = [_flag(value) for value in table.columns.get("truncated", [None] * len(table.rows))]
    pairs = []
    for row, (prompt, chosen, rejected), values, flag, encoder in zip(
        table.rows, zip(*texts, strict=True), zip(*numbers, strict=True), truncated, encoders, strict=True
    ):
        if chosen == rejected:
            raise DataError(f"{table.file}, {row}: chosen and rejected are the same text; remove the row")
        identity = content_id(prompt, chosen, rejected)
        measured = dict(zip(NUMBERS, values, strict=True))
        pairs.append(
            Pair(
                identity, prompt, chosen, rejected, **measured,
                truncated=flag, encoder=encoder[0], encoder_fingerprint=encoder[1],
            )
        )  # fmt: skip
    return pairs


def _encoders(table: Table) -> list[tuple[str | None, str | None]]:
    """Each row's encoder, where ``semdpo weigh`` wrote one; a user's own column of that name alone is none."""
    names, prints = (table.columns.get(name, [None] * len(table.rows)) for name in ENCODER)
    whole = [all(isinstance(each, str) and each for each in pair) for pair in zip(names, prints, strict=True)]
    return [(n, f) if both else (None, None) for n, f, both in zip(names, prints, whole, strict=True)]


def _allowed(name: str) -> str:
    if name == "weight":
        return "a pair's weight is 0 or more"
    return "a cosine distance lies between 0 and 2; measure it again with `semdpo weigh`"


def _spoken(table: Table) -> Table:
    """Conversational columns, as TRL takes them, as texts: one user's message, answered twice.

    Raises:
        DataError: a conversation has another form; the row is named.
    """
    columns = dict(table.columns)
    if not any(
        isinstance(values[0], list) for name, values in columns.items() if name in ("prompt", "chosen") and values
    ):
        return table
    if "prompt" not in columns:  # TRL's implicit prompt: both conversations begin with it
        columns["prompt"] = [row[:-1] if isinstance(row, list) else row for row in columns["chosen"]]
        for name in ("chosen", "rejected"):
            columns[name] = [row[-1:] if isinstance(row, list) else row for row in columns[name]]
    for name, role in (("prompt", "user"), ("chosen", "assistant"), ("rejected", "assistant")):
        said = zip(table.rows, columns.get(name, []), strict=False)
        columns[name] = [_message(value, role, f"{table.file}, {row}: {name}") for row, value in said]
    return Table(table.file, columns, table.rows)


def _message(value: Any, role: str, place: str) -> Any:
    if not isinstance(value, list):
        return value
    if len(value) != 1 or not isinstance(value[0], dict) or value[0].get("role") != role:
        raise DataError(
            f"{place} must be one message of the {role}; a rewriter reads one prompt and gives one rewrite, so put "
            "anything else into --template"
        )
    return value[0].get("content")


def _flag(value: Any) -> bool | None:
    named = {"true": True, "false": False}
    return value if isinstance(value, bool) else named.get(str(value).lower())


# ------------------------------------------------------------------------------------------------- writing


def cache_folder() -> Path:
    """Where this user keeps what can be computed again: ``$SEMDPO_CACHE``, or the system's usual place."""
    from platformdirs import user_cache_path

    named = os.environ.get(CACHE)
    return Path(named) if named else user_cache_path("semdpo", appauthor=False)


def check_suffix(path: Path) -> None:
    """Refuses an output file that is no table.

    Raises:
        DataError: the suffix is not one of csv, jsonl, parquet.
    """
    if path.suffix not in TABLES:
        raise DataError(f"cannot write {path}: name it with one of {', '.join(TABLES)}")


def write_pairs(path: Path, pairs: Sequence[Pair], extra: Mapping[str, Sequence[Any]] | None = None) -> None:
    """Writes pairs as csv, jsonl or parquet, by the suffix.

    Args:
        path: where to.
        pairs: what.
        extra: a user's other columns, to be kept beside ours; of the length of ``pairs``.

    Raises:
        DataError: unknown suffix, or an extra column that parquet cannot hold.
        StoreError: no space is left, or the folder cannot be written.
    """
    check_suffix(path)
    names = [field.name for field in fields(Pair)]
    columns: dict[str, Sequence[Any]] = {name: [getattr(pair, name) for pair in pairs] for name in names}
    columns |= {name: values for name, values in (extra or {}).items() if name not in columns}
    writers = {".csv": _csv_bytes, ".jsonl": _jsonl_bytes, ".parquet": _parquet_bytes}
    write_bytes(path, writers[path.suffix](columns))


def _csv_bytes(columns: Mapping[str, Sequence[Any]]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    return text.getvalue().encode()


def _jsonl_bytes(columns: Mapping[str, Sequence[Any]]) -> bytes:
    text = io.BytesIO()  # row by row, so that the file is in memory once
    for row in zip(*columns.values(), strict=True):
        text.write((json.dumps(dict(zip(columns, row, strict=True)), ensure_ascii=False) + "\n").encode())
    return text.getvalue()


def _parquet_bytes(columns: Mapping[str, Sequence[Any]]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = {name: pa.float64() for name in NUMBERS} | {"truncated": pa.bool_()}
    types |= {name: pa.string() for name in ENCODER}
    arrays = {}
    for name, values in columns.items():
        try:
            arrays[name] = pa.array(list(values), types.get(name))
        except (pa.ArrowException, TypeError) as error:
            raise DataError(f"column '{name}' mixes types, which parquet cannot hold; write a .jsonl") from error
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(arrays), sink, compression="zstd")
    return bytes(sink.getvalue())
