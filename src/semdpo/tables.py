"""A user's tables as columns: jsonl, csv, parquet, and the folders of data sets; every error names its row."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from semdpo.errors import DataError, did_you_mean
from semdpo.paths import is_dir, is_file

DATA = Path(__file__).parent / "world" / "data"
TABLES = (".csv", ".jsonl", ".parquet")


@dataclass(frozen=True)
class Table:
    """A file's columns, all of one length, and what to call a row (``line 3``, ``row 3``) in an error."""

    file: str
    columns: Mapping[str, Sequence[Any]]
    rows: Sequence[str]

    def column(self, name: str, advice: str = "") -> Sequence[Any]:
        """A column that must be there.

        Raises:
            DataError: it is not; the message lists those that are.
        """
        if name in self.columns:
            return self.columns[name]
        hint = did_you_mean(name, self.columns)
        near = f"; did you mean {hint.split('did you mean ')[1]}" if "did you mean" in hint else ""
        cure = near or advice or "; rename one"
        raise DataError(f"{self.file} has no column '{name}', only {', '.join(map(repr, self.columns))}{cure}")

    def texts(self, name: str, advice: str = "") -> list[str]:
        """A column of texts, none of them empty.

        Raises:
            DataError: there is no such column, or a row is no text or an empty one; the row is named.
        """
        values = self.column(name, advice)
        for row, value in zip(self.rows, values, strict=True):
            if not isinstance(value, str):
                raise DataError(f"{self.file}, {row}: '{name}' must be text, not {_kind(value)}; correct it")
            if not value.strip():
                raise DataError(f"{self.file}, {row}: '{name}' is empty; fill it or remove the row")
        return list(values)

    def numbers(self, name: str) -> list[float | None]:
        """A column of finite numbers, None where a row has none; all None when there is no such column.

        Raises:
            DataError: a value is no number, or not finite; the row is named.
        """
        found: list[float | None] = []
        for row, value in zip(self.rows, self.columns.get(name, [None] * len(self.rows)), strict=True):
            found.append(_number(value, f"{self.file}, {row}: '{name}'"))
        return found


def _kind(value: Any) -> str:
    return "missing" if value is None else type(value).__name__


def _number(value: Any, place: str) -> float | None:
    if value is None or value == "":
        return None
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise DataError(f"{place} must be a number, not {_kind(value)}; correct it")
    try:
        number = float(value)
    except ValueError as error:
        raise DataError(f"{place} must be a number, not {value!r}; correct it") from error
    if not math.isfinite(number):
        raise DataError(f"{place} is {value}; remove the row or compute the value again")
    return number


def resolve(name: str) -> Path:
    """The file of a name: ``tiny:FILE`` is the embedded world's, anything else a path.

    Raises:
        DataError: there is no such file, or it is a folder.
    """
    if name.startswith("tiny:"):
        path = DATA / name.removeprefix("tiny:")
        if not path.is_file():
            known = [p.name for p in DATA.glob("*.jsonl")]
            raise DataError(f"the embedded world has no file '{path.name}'{did_you_mean(path.name, known)}")
        return path
    path = Path(name)
    if is_dir(path):
        raise DataError(f"{path} is a folder; name a file in it")
    if not is_file(path):
        near = did_you_mean(path.name, [p.name for p in path.parent.iterdir()]) if is_dir(path.parent) else ""
        hint = near if "did you mean" in near else "; check the path"
        raise DataError(f"there is no file {path}{hint}")
    return path


def read_table(name: str | Path, only: Sequence[str] | None = None, either: Sequence[str] = ()) -> Table:
    """The columns of a jsonl, csv or parquet file, or of a data set's folder (of such files, or of ``save_to_disk``).

    Args:
        name: of the file or folder.
        only: read only these of a parquet file, which may be large, if it has them; None reads all …
        either: … or, if it has one of them, the first of these.

    Raises:
        DataError: missing, empty, of another suffix, not UTF-8, or not of the form that its suffix says; or the
            folder's files have different columns.
    """
    if is_dir(name):
        return _folder(Path(name))
    path = resolve(str(name))
    readers: dict[str, Callable[[Path], Table]] = {
        ".csv": _csv,
        ".jsonl": _jsonl,
        ".parquet": partial(_parquet, only=only, either=either),
    }
    if path.suffix not in readers:
        raise DataError(f"{path} must be a table; convert it to one of {', '.join(TABLES)}")
    table = readers[path.suffix](path)
    if not table.rows:
        raise DataError(f"{path} is empty; give a file with at least one row")
    return table


def _folder(path: Path) -> Table:
    """A data set's split: its files one after the other."""
    for suffix in (".arrow", *TABLES):
        parts = [each for each in sorted(path.glob(f"*{suffix}")) if not each.name.startswith("cache-")]
        if parts:
            break
    else:
        splits = [each.name for each in sorted(path.iterdir()) if each.is_dir()]
        hint = f"; name one of its folders {', '.join(splits)}" if splits else ""
        raise DataError(f"the folder {path} holds no .arrow, .csv, .jsonl or .parquet file{hint}")
    tables = [_arrow(each) if suffix == ".arrow" else read_table(each) for each in parts]
    names = list(tables[0].columns)
    for each, table in zip(parts, tables, strict=True):
        if set(table.columns) != set(names):
            raise DataError(f"{each} has other columns than {parts[0].name}; give files of one data set")
    columns = {name: [value for table in tables for value in table.columns[name]] for name in names}
    rows = [f"{each.name} {row}" for each, table in zip(parts, tables, strict=True) for row in table.rows]
    return Table(str(path), columns, rows)


def _arrow(path: Path) -> Table:
    import pyarrow as pa

    try:
        with pa.memory_map(str(path)) as source:
            columns = pa.ipc.open_stream(source).read_all().to_pydict()
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} is not an arrow stream; save the data set again") from error
    return Table(str(path), columns, [f"row {i}" for i in range(1, len(next(iter(columns.values()), [])) + 1)])


def read_text(path: Path) -> str:
    """A file as UTF-8.

    Raises:
        DataError: it is not.
    """
    data = path.read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path} is not UTF-8 (byte {error.start}, line {line}); save it as UTF-8") from error


def _not_finite(name: str) -> float:
    raise ValueError(f"{name} is not a number that can be used")


def _jsonl(path: Path) -> Table:
    records: list[dict[str, Any]] = []
    rows: list[str] = []
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line, parse_constant=_not_finite)
        except ValueError as error:
            raise DataError(f"{path}, line {number}: this is not JSON ({error}); correct it") from error
        if not isinstance(record, dict):
            raise DataError(f'{path}, line {number}: a line must be a JSON object such as {{"prompt": "a cat"}}')
        records.append(record)
        rows.append(f"line {number}")
    names = dict.fromkeys(name for record in records for name in record)
    return Table(str(path), {name: [record.get(name) for record in records] for name in names}, rows)


def _csv(path: Path) -> Table:
    reader = csv.reader(io.StringIO(read_text(path), newline=""), strict=True)
    try:
        names = next(reader, [])
        records, rows = [], []
        for record in reader:
            if not record:
                continue
            if len(record) != len(names):
                raise DataError(
                    f"{path}, line {reader.line_num}: {len(record)} values for {len(names)} columns; "
                    "quote values that contain commas"
                )
            records.append(record)
            rows.append(f"line {reader.line_num}")
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: this is not CSV ({error}); correct it") from error
    if len(set(names)) != len(names):
        raise DataError(f"{path} has two columns of one name; rename one")
    return Table(str(path), {name: [record[i] for record in records] for i, name in enumerate(names)}, rows)


def _parquet(path: Path, only: Sequence[str] | None, either: Sequence[str]) -> Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if path.stat().st_size == 0:
        raise DataError(f"{path} is empty; give a file with at least one row")
    try:
        file = pq.ParquetFile(path)
        names = file.schema_arrow.names
        wanted = [each for each in (only or either) if each in names][: None if only else 1]
        columns = file.read(columns=wanted or names).to_pydict()
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} is not a parquet file; write it again or name it by what it is") from error
    length = len(next(iter(columns.values()), []))
    return Table(str(path), columns, [f"row {i}" for i in range(1, length + 1)])
