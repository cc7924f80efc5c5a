"""Writes columns as csv, tsv, jsonl or parquet, so that ``readers`` reads the same values back."""

from __future__ import annotations

import datetime
import json
import math
import re
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

from semdpo.data.arrow_files import ArrowColumns
from semdpo.data.readers import FORMULA, TABLES
from semdpo.disk import whole_file
from semdpo.errors import DataError
from semdpo.texts import half_character

WRITTEN = tuple(suffix for suffix in TABLES if suffix != ".json")
TEXTS = ("prompt", "chosen", "rejected")
_FORMULA = re.compile(f"'*{FORMULA}")  # ``escaped`` puts an apostrophe before such text
_PLAIN_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_QUOTED = re.compile(r"[\"\r\n\t,;]|\A\s|\s\Z")

Columns = Mapping[str, Sequence[Any]]


def check_suffix(path: Path) -> None:
    """Refuses an output file with the wrong suffix.

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
        suffix: the file's suffix, which decides the format.
        columns: name → values, [n].
        types: name → type of the columns that may be empty, for parquet.
        source: the columns of the file that was read; those that Arrow has read keep their types in a parquet file.

    Raises:
        DataError: a column has values that such a file cannot hold; the message names the column.
    """
    if suffix == ".parquet":
        return _table_bytes(_table(columns, types or {}, source))
    if suffix == ".jsonl":
        return _jsonl(columns)
    return _separated(columns, "\t" if suffix == ".tsv" else ",")


@contextmanager
def written(
    path: Path, types: Mapping[str, type], texts: Container[str] = ()
) -> Iterator[Callable[[Columns, Columns | None], None]]:
    """Writes columns piece by piece; the file gets its name at the end of the block.

    Args:
        path: the file; its suffix decides the format.
        types: as for ``encoded``.
        texts: the columns that hold a text that is no number, which ``encoded`` sees for itself in a whole column.

    Yields:
        A function that writes a piece, from ``columns`` and ``source`` as ``encoded`` takes them. All pieces have the
        same columns, and in a parquet file the same types.

    Raises:
        DataError: as ``encoded`` raises it.
        StoreError: no space is left, or the folder cannot be written.
    """
    suffix = path.suffix.lower()
    with whole_file(path) as file, ExitStack() as stack:
        tables: list[Any] = []  # the writer of a parquet file, once its columns are known

        def write(columns: Columns, source: Columns | None) -> None:
            if suffix == ".jsonl":
                file.write(_jsonl(columns))
            elif suffix == ".parquet":
                table = _table(columns, types, source)
                if not tables:
                    tables.append(stack.enter_context(_parquet_writer(file, table.schema)))
                tables[0].write_table(table)
            else:
                file.write(_separated(columns, "\t" if suffix == ".tsv" else ",", texts, header=not file.tell()))

        yield write


# ------------------------------------------------------------------------------------------------- values


def _plain(value: Any) -> Any:
    """A value as one that JSON can hold.

    Raises:
        TypeError: JSON cannot hold such a value.
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
    """A value with None for NaN, which some programs write for a missing value; JSON has null for it."""
    if isinstance(value, float):
        return None if math.isnan(value) else value
    if isinstance(value, dict):
        return {name: _without_nan(inner) for name, inner in value.items()}
    return [_without_nan(inner) for inner in value] if isinstance(value, list | tuple) else value


def _dumped(value: Any) -> str:
    try:
        text = json.dumps(_without_nan(value), ensure_ascii=False, default=_plain, allow_nan=False)
    except ValueError as error:
        raise TypeError("infinite numbers") from error
    # JSON can hold half a character as an escape; UTF-8 cannot hold it.
    return text if half_character(text) is None else json.dumps(_without_nan(value), default=_plain, allow_nan=False)


def _cells(columns: Columns, write: Callable[[str, Any], str], kind: str) -> list[list[str]]:
    """The cells of each column.

    Raises:
        DataError: a value cannot be written; the message names its column.
    """
    cells = []
    for name, values in columns.items():
        try:
            cells.append([write(name, value) for value in values])
        except (TypeError, ValueError, RecursionError) as error:
            raise DataError(
                f"column {name!r} holds {error}, which {kind} cannot hold; write a .parquet, or leave the column out"
            ) from error
    return cells


def _jsonl(columns: Columns) -> bytes:
    names = [json.dumps(name, ensure_ascii=half_character(name) is not None) for name in columns]
    cells = _cells(columns, lambda _, value: _dumped(value), "jsonl")
    rows = zip(*cells, strict=True)
    lines = ("{" + ", ".join(f"{name}: {cell}" for name, cell in zip(names, row, strict=True)) + "}\n" for row in rows)
    return "".join(lines).encode()


# ------------------------------------------------------------------------------------------------- CSV


def escaped(text: str) -> str:
    """A cell that a spreadsheet shows as text: an apostrophe is put before text that it would take for a formula.

    ``readers.unescaped`` removes the apostrophe. Text that already begins with apostrophes and such a sign gets one
    more, so that it is read back unchanged.
    """
    return f"'{text}" if _FORMULA.match(text) else text


def is_numeric(values: Sequence[Any]) -> bool:
    """Whether every text of a column is a number; a spreadsheet does not run a number as a formula."""
    return all(_PLAIN_NUMBER.fullmatch(text) for text in values if isinstance(text, str) and text)


def _separated(columns: Columns, delimiter: str, texts: Container[str] = (), *, header: bool = True) -> bytes:
    numeric = {n for n, values in columns.items() if n not in TEXTS and n not in texts and is_numeric(values)}

    def cell(name: str, value: Any) -> str:
        text = _cell(value)
        return _quoted(text if name in numeric or not isinstance(value, str) else escaped(text))

    cells = _cells(columns, cell, "csv")
    names = _cells({"": list(columns)}, lambda _, name: _quoted(escaped(_cell(name))), "csv")[0]
    if len(columns) == 1:  # readers skip an empty line
        cells = [[text or '""' for text in column] for column in cells]
    lines = [*([names] if header else []), *zip(*cells, strict=True)]
    return "".join(delimiter.join(line) + "\n" for line in lines).encode()


def _cell(value: Any) -> str:
    if isinstance(value, str):
        if half := half_character(value):
            raise ValueError(f"half a character ({half})")
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


def _table(columns: Columns, types: Mapping[str, type], source: Columns | None) -> Any:
    """The columns as an Arrow table that a parquet file can hold."""
    import pyarrow as pa

    arrow_types = {float: pa.float64(), bool: pa.bool_(), str: pa.string()}
    arrays = {}
    for name, values in columns.items():
        try:
            name.encode()
            if isinstance(source, ArrowColumns) and name in source and values is source[name]:
                arrays[name] = source.stored(name)
            else:
                arrays[name] = _array(list(values), arrow_types[types[name]] if name in types else None)
        except (pa.ArrowException, TypeError, ValueError, OverflowError, RecursionError) as error:
            raise DataError(
                f"column {name!r} mixes types or has a value that parquet cannot hold; write a .jsonl"
            ) from error
    for name, array in arrays.items():
        if not _can_be_written(name, array):
            raise DataError(f"column {name!r} has values that parquet cannot hold; write a .jsonl")
    return pa.table(arrays)


def _parquet_writer(sink: Any, schema: Any) -> Any:
    import pyarrow.parquet as pq

    return pq.ParquetWriter(sink, schema, compression="zstd")


def _table_bytes(table: Any) -> bytes:
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    with _parquet_writer(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def _can_be_written(name: str, array: Any) -> bool:
    import pyarrow as pa

    try:
        return bool(_table_bytes(pa.table({name: array})))
    except (pa.ArrowException, ValueError):
        return False


def _array(values: list[Any], kind: Any) -> Any:
    import pyarrow as pa

    try:
        return pa.array(values, kind)
    except OverflowError:
        return pa.array(values, pa.uint64())
