"""Reads the columns of one csv, tsv, jsonl, json, parquet or arrow file; files that break their format are refused."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from semdpo import disk
from semdpo.data.arrow_files import Columns, read_arrow, read_parquet, unreadable
from semdpo.errors import DataError
from semdpo.texts import given_twice, shown

LONGEST_LINE = 2**26  # characters of a line of jsonl
TABLES = (".csv", ".jsonl", ".parquet", ".tsv", ".json")
LONGEST_CELL = 2**31 - 1
DEEPEST = 64  # levels of nested lists and objects; thousands of them would exhaust Python's stack
DIGITS = 300
MOST_CELLS, SPARSEST = 10_000_000, 100  # empty cells: more than 99 in 100 are no table
MARKS = {",": "commas", ";": "semicolons", "\t": "tabs"}
# What a spreadsheet takes for the beginning of a formula; some also take the wide signs of East Asian keyboards.
FORMULA = r"[=+\-@\t\r\n＝＋－＠]"
_ESCAPED = re.compile(f"'+{FORMULA}")  # see writers.py
_ENDS = re.compile(r"\r\n|\n|\r")


def read_bytes(path: Path) -> bytes:
    """The content of a user's file.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        return disk.read(path)
    except OSError as error:
        raise unreadable(path, error) from error


def read_text(path: Path) -> str:
    """The text of a UTF-8 file.

    Raises:
        DataError: the file cannot be read, or is not UTF-8.
    """
    data = read_bytes(path)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = len(_ENDS.findall(data[: error.start].decode("latin-1"))) + 1
        raise DataError(f"{path} is not UTF-8 (byte {error.start}, line {line}); save it as UTF-8") from error


def lines_of(text: str) -> list[str]:
    """The lines of a text with the line ends of Unix, Windows or old Macs; a line end at the end begins no new line."""
    lines = _ENDS.split(text)
    return lines[:-1] if lines[-1] == "" else lines


# ------------------------------------------------------------------------------------------------- JSON


def parse(text: str, place: str) -> Any:
    """Parses JSON strictly: NaN, numbers that overflow, repeated keys and very deep nesting are refused.

    Args:
        text: the JSON text of one value.
        place: the file and line of the text, for messages.

    Raises:
        DataError: the text is not such JSON.
    """
    try:
        value = _STRICT.decode(text)
        _refuse_depth(value, DEEPEST)
    except RecursionError as error:
        raise DataError(f"{place}: this is nested more than {DEEPEST} levels deep; make it flat") from error
    except ValueError as error:
        raise DataError(f"{place}: this is not JSON ({error}); correct it") from error
    return value


def _not_finite(name: str) -> float:
    raise ValueError(f"{name} is not a finite number")


def _whole(digits: str) -> int:
    if len(digits) > DIGITS:
        raise ValueError(f"a number has {len(digits)} digits, which is too many")
    return int(digits)


def _finite(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError(f"{text[:40]} is too large a number")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError(f"the key {shown(given_twice(name for name, _ in pairs))} appears twice")
    return content


_STRICT = json.JSONDecoder(parse_constant=_not_finite, parse_int=_whole, parse_float=_finite, object_pairs_hook=_object)


def _refuse_depth(value: Any, left: int) -> None:
    if not isinstance(value, dict | list):
        return
    if left == 0:
        raise RecursionError
    for inner in value.values() if isinstance(value, dict) else value:
        _refuse_depth(inner, left - 1)


def read_jsonl(path: Path) -> Columns:
    """Reads one JSON object per line; blank lines are skipped.

    Raises:
        DataError: a line is not an object; the message names it.
    """
    records = list(jsonl_records(path))
    return from_records([record for _, record in records], [row for row, _ in records], path)


def jsonl_records(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of a jsonl file one by one, each with its row's name; the errors are those of ``read_jsonl``."""
    try:
        with disk.opened(path) as binary, io.TextIOWrapper(binary, encoding="utf-8-sig") as file:
            for number, line in enumerate(iter(partial(file.readline, LONGEST_LINE), ""), start=1):
                if len(line) == LONGEST_LINE:
                    raise DataError(
                        f"{path}, line {number}: this line is too long ({LONGEST_LINE:,} characters or more)"
                    )
                if line.strip():
                    place = f"{path}, line {number}"
                    yield f"line {number}", _record(parse(line.removesuffix("\n"), place), place)
    except UnicodeDecodeError:
        read_text(path)  # which names the place
        raise
    except OSError as error:
        raise unreadable(path, error) from error


def read_json(path: Path) -> Columns:
    """Reads a list of JSON objects.

    Raises:
        DataError: the file holds something else.
    """
    text = read_text(path)
    if not text.strip():
        return Columns({}, [])
    values = parse(text, str(path))
    if not isinstance(values, list):
        raise DataError(f'{path} must be a list of objects such as [{{"prompt": "a cat"}}]; or write a .jsonl')
    rows = [f"entry {k}" for k in range(1, len(values) + 1)]
    return from_records([_record(value, f"{path}, {row}") for value, row in zip(values, rows, strict=True)], rows, path)


def refuse_sparse(path: Path, keys: int, rows: int, filled: int) -> None:
    """Refuses records with a key of their own each, for whose table their number squared is needed.

    Args:
        path: their file.
        keys: the number of different keys.
        rows: the number of records.
        filled: the number of values in all records.
    """
    if keys * rows > max(MOST_CELLS, SPARSEST * filled):
        raise DataError(f"{path} has {keys:,} different keys in its {rows:,} rows; give the rows the same keys")


def _record(value: Any, place: str) -> dict[str, Any]:
    if isinstance(value, dict):
        return value
    hint = "; a list of all rows must be in a .json file" if isinstance(value, list) else ""
    raise DataError(f'{place}: a line must be a JSON object such as {{"prompt": "a cat"}}{hint}')


def from_records(
    records: Sequence[Mapping[str, Any]], rows: Sequence[str], path: Path, names: Iterable[str] | None = None
) -> Columns:
    """Records as columns.

    Args:
        records: the records, [n].
        rows: each record's name in messages, [n].
        path: their file, for messages.
        names: the columns' names; None takes all that a record has. Where a record lacks one, its value is None.

    Raises:
        DataError: most records have keys of their own.
    """
    if names is None:
        names = dict.fromkeys(name for record in records for name in record)
        refuse_sparse(path, len(names), len(records), sum(map(len, records)))
    return Columns({name: [record.get(name) for record in records] for name in names}, rows)


# ------------------------------------------------------------------------------------------------- CSV and TSV


def read_csv(path: Path) -> Columns:
    """Reads comma-separated values, quoted as in RFC 4180; semicolons or tabs where the header has no comma.

    Raises:
        DataError: a row has more or fewer values than the header, or a quote does not close; the message names the
            line.
    """
    text = read_text(path)
    first = _ENDS.split(text, maxsplit=1)[0]
    delimiter = next((mark for mark in ",;\t" if mark in first), ",")
    return _columns(_parsed(path, text, delimiter, quoted=True), path)


def read_tsv(path: Path) -> Columns:
    """Reads tab-separated values; quotation marks are part of the text unless the whole file is quoted correctly.

    Raises:
        DataError: a row has more or fewer values than the header; the message names the line.
    """
    text = read_text(path)
    try:
        quoted = _columns(_parsed(path, text, "\t", quoted=True), path)
    except DataError:
        return _columns(_parsed(path, text, "\t", quoted=False), path)
    # A quotation mark that belongs to the text may have opened a quote that closes lines later and contains whole rows.
    swallowed = any("\t" in cell and _ENDS.search(cell) for values in quoted.columns.values() for cell in values)
    return _columns(_parsed(path, text, "\t", quoted=False), path) if swallowed else quoted


def _parsed(path: Path, text: str, delimiter: str, *, quoted: bool) -> list[tuple[int, list[str]]]:
    """Every row with the number of its first line; the header comes first."""
    quoting: Any = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=delimiter, quoting=quoting)
    rows: list[tuple[int, list[str]]] = []
    line = 1
    with _large_cells():
        try:
            for record in reader:
                if record:
                    rows.append((line, record))
                line = reader.line_num + 1
        except csv.Error as error:
            raise DataError(f"{path}, line {line}: this is not CSV ({error}); correct it") from error
    width = len(rows[0][1]) if rows else 0
    for number, record in rows:
        if len(record) != width:
            more = quoted and len(record) > width
            cure = f"quote values that contain {MARKS[delimiter]}" if more else "write one value for each column"
            raise DataError(f"{path}, line {number}: {len(record)} values for {width} columns; {cure}")
    return rows


@contextmanager
def _large_cells() -> Iterator[None]:
    """Allows cells of more than 131,072 characters; Python's limit holds for the whole process, so it is restored."""
    before = csv.field_size_limit(LONGEST_CELL)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _columns(rows: Sequence[tuple[int, list[str]]], path: Path) -> Columns:
    rows = _without_nameless(rows)
    header = [unescaped(name) for name in rows[0][1]] if rows else []
    if (twice := given_twice(header)) is not None:
        raise DataError(f"{path} has two columns with the same name ({shown(twice)}); rename one")
    cells = zip(*(record for _, record in rows[1:]), strict=True)
    columns = {name: [unescaped(cell) for cell in column] for name, column in zip(header, cells, strict=False)}
    return Columns(columns or {name: [] for name in header}, [f"line {number}" for number, _ in rows[1:]])


def _without_nameless(rows: Sequence[tuple[int, list[str]]]) -> Sequence[tuple[int, list[str]]]:
    """Rows without columns that have neither a name nor a value; spreadsheets add such columns at the end."""
    if not rows or all(rows[0][1]):
        return rows
    full = [k for k in range(len(rows[0][1])) if any(record[k] for _, record in rows)]
    return [(line, [record[k] for k in full]) for line, record in rows]


def unescaped(cell: str) -> str:
    """A cell without the apostrophe that ``writers.escaped`` put before text that looks like a formula."""
    return cell[1:] if _ESCAPED.match(cell) else cell


READERS: Mapping[str, Callable[[Path], Columns]] = {
    ".csv": read_csv,
    ".tsv": read_tsv,
    ".jsonl": read_jsonl,
    ".json": read_json,
    ".parquet": read_parquet,
    ".arrow": read_arrow,
}
