"""Columns as the bytes of one file: csv, tsv, jsonl or parquet; what ``readers`` reads back as it was."""

from __future__ import annotations

import datetime
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from semdpo.data.arrow_files import ArrowColumns
from semdpo.data.readers import TABLES
from semdpo.errors import DataError
from semdpo.texts import half_character

WRITTEN = tuple(each for each in TABLES if each != ".json")
TEXTS = ("prompt", "chosen", "rejected")
_FORMULA = re.compile(r"'*[=+\-@\t\r]")  # a spreadsheet runs what begins so; apostrophes before it are ours or look so
_PLAIN_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_QUOTED = re.compile(r"[\"\r\n\t,;]|\A\s|\s\Z")

Columns = Mapping[str, Sequence[Any]]


def check_suffix(path: Path) -> None:
    """Refuses an output file that is no table.

    Raises:
        DataError: the suffix is not one of csv, tsv, jsonl, parquet.
    """
    if path.suffix.lower() not in WRITTEN:
        raise DataError(f"cannot write {path}: name it with one of {', '.join(WRITTEN)}")


def encoded(
    suffix: str, columns: Columns, types: Mapping[str, type] | None = None, source: Columns | None = None
) -> bytes:
    """Columns as the bytes of a file.

    Args:
        suffix: says how.
        columns: by name, all of one length.
        types: of columns that may be empty, for parquet.
        source: where columns came from; those that Arrow has read keep their types in a parquet file.

    Raises:
        DataError: a column that such a file cannot hold; it is named.
    """
    if suffix == ".parquet":
        return _parquet(columns, types or {}, source)
    if suffix == ".jsonl":
        return _jsonl(columns)
    return _separated(columns, "\t" if suffix == ".tsv" else ",")


# ------------------------------------------------------------------------------------------------- values


def _plain(value: Any) -> Any:
    """A value as JSON has it.

    Raises:
        TypeError: JSON has no such thing.
    """
    if isinstance(value, Decimal):
        number = float(value) if value.is_finite() else None
        return number if number is None or Decimal(repr(number)) == value else str(value)
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, datetime.timedelta):
        return value.total_seconds()
    raise TypeError(f"values of the type {type(value).__name__}")


def _without_nan(value: Any) -> Any:
    """NaN is how some programs write a value that is missing; JSON has no other word for it than null."""
    if isinstance(value, float):
        return None if math.isnan(value) else value
    if isinstance(value, dict):
        return {name: _without_nan(each) for name, each in value.items()}
    return [_without_nan(each) for each in value] if isinstance(value, list | tuple) else value


def _dumped(value: Any) -> str:
    try:
        text = json.dumps(_without_nan(value), ensure_ascii=False, default=_plain, allow_nan=False)
    except ValueError as error:
        raise TypeError("infinite numbers") from error
    # JSON can spell half a character, and UTF-8 cannot.
    return text if half_character(text) is None else json.dumps(_without_nan(value), default=_plain, allow_nan=False)


def _each(columns: Columns, write: Callable[[str, Any], str], kind: str) -> list[list[str]]:
    """Every column's cells.

    Raises:
        DataError: one cannot be written; its column is named.
    """
    found = []
    for name, values in columns.items():
        try:
            found.append([write(name, value) for value in values])
        except (TypeError, ValueError, RecursionError) as error:
            raise DataError(
                f"column {name!r} holds {error}, which {kind} cannot hold; write a .parquet, or leave the column out"
            ) from error
    return found


def _jsonl(columns: Columns) -> bytes:
    names = [json.dumps(name, ensure_ascii=half_character(name) is not None) for name in columns]
    cells = _each(columns, lambda _, value: _dumped(value), "jsonl")
    rows = zip(*cells, strict=True)
    lines = ("{" + ", ".join(f"{name}: {cell}" for name, cell in zip(names, row, strict=True)) + "}\n" for row in rows)
    return "".join(lines).encode()


# ------------------------------------------------------------------------------------------------- CSV


def escaped(text: str) -> str:
    """A cell that a spreadsheet shows as text: an apostrophe before what it would take for a formula.

    ``readers.unescaped`` takes it away again. Text that begins with apostrophes and such a sign gets one more, so that
    nothing is lost.
    """
    return f"'{text}" if _FORMULA.match(text) else text


def is_numeric(values: Sequence[Any]) -> bool:
    """Whether every text of a column is a number, which no spreadsheet runs."""
    return all(_PLAIN_NUMBER.fullmatch(each) for each in values if isinstance(each, str) and each)


def _separated(columns: Columns, delimiter: str) -> bytes:
    numeric = {name for name, values in columns.items() if name not in TEXTS and is_numeric(values)}

    def cell(name: str, value: Any) -> str:
        text = _cell(value)
        return _quoted(text if name in numeric or not isinstance(value, str) else escaped(text))

    cells = _each(columns, cell, "csv")
    header = _each({"": list(columns)}, lambda _, name: _quoted(escaped(_cell(name))), "csv")[0]
    if len(columns) == 1:  # an empty line would be no row
        cells = [[each or '""' for each in column] for column in cells]
    lines = [header, *zip(*cells, strict=True)]
    return "".join(delimiter.join(line) + "\n" for line in lines).encode()


def _cell(value: Any) -> str:
    if isinstance(value, str):
        if half := half_character(value):
            raise ValueError(f"half of a character ({half})")
        return value
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool | int | float | Decimal):
        return str(value)
    if isinstance(value, list | dict | tuple):
        return _dumped(value)
    return str(_plain(value))


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"' if _QUOTED.search(text) else text


# ------------------------------------------------------------------------------------------------- parquet


def _parquet(columns: Columns, types: Mapping[str, type], source: Columns | None) -> bytes:
    import pyarrow as pa

    known = {float: pa.float64(), bool: pa.bool_(), str: pa.string()}
    arrays = {}
    for name, values in columns.items():
        try:
            name.encode()
            if isinstance(source, ArrowColumns) and name in source and values is source[name]:
                arrays[name] = source.stored(name)
            else:
                arrays[name] = _array(list(values), known[types[name]] if name in types else None)
        except (pa.ArrowException, TypeError, ValueError, OverflowError, RecursionError) as error:
            raise DataError(
                f"column {name!r} mixes types, which parquet cannot hold, or has a value that it cannot hold; write a "
                ".jsonl"
            ) from error
    try:
        return _table_bytes(arrays)
    except (pa.ArrowException, ValueError) as error:
        bad = next((name for name in arrays if not _can_be_written({name: arrays[name]})), "")
        raise DataError(f"column {bad!r} has values that parquet cannot hold; write a .jsonl") from error


def _table_bytes(arrays: Mapping[str, Any]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(dict(arrays)), sink, compression="zstd")
    return bytes(sink.getvalue())


def _can_be_written(arrays: Mapping[str, Any]) -> bool:
    import pyarrow as pa

    try:
        return bool(_table_bytes(arrays))
    except (pa.ArrowException, ValueError):
        return False


def _array(values: list[Any], kind: Any) -> Any:
    import pyarrow as pa

    try:
        return pa.array(values, kind)
    except OverflowError:
        return pa.array(values, pa.uint64())
