"""Columns of Arrow tables, each read when it is first used: parquet files, saved data sets, and the hub's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from semdpo.errors import DataError


@dataclass(frozen=True)
class Columns:
    """A file's columns and rows.

    Attributes:
        columns: name → values, [n].
        rows: each row's name in messages, [n]: ``line 3``, ``row 3``.
    """

    columns: Mapping[str, Sequence[Any]]
    rows: Sequence[str]


class ArrowColumns(Mapping[str, Sequence[Any]]):
    """The columns of an Arrow table; a column becomes Python values when it is first used.

    Args:
        table: the Arrow table.
        file: the file's name, for messages.
    """

    def __init__(self, table: Any, file: str) -> None:
        self._table, self._file = table, file
        self._read: dict[str, list[Any]] = {}

    def __getitem__(self, name: str) -> list[Any]:
        """The values of a column, [n].

        Raises:
            KeyError: there is no column of that name.
            DataError: a value cannot be read; the message names its row.
        """
        if name not in self._read:
            self._read[name] = self._values(name)
        return self._read[name]

    def __contains__(self, name: object) -> bool:
        """Whether there is a column of that name; the column is not read."""
        return name in self._table.column_names

    def __iter__(self) -> Iterator[str]:
        """The columns' names."""
        return iter(self._table.column_names)

    def __len__(self) -> int:
        """The number of columns."""
        return int(self._table.num_columns)

    def stored(self, name: str) -> Any:
        """A column as an Arrow array, with its Arrow type."""
        return self._table.column(name)

    def _values(self, name: str) -> list[Any]:
        if name not in self:
            raise KeyError(name)
        column = self.stored(name)
        try:
            return list(column.to_pylist())
        except Exception:  # of any kind; the values are read one by one, to name the row
            return [self._value(name, row, cell) for row, cell in enumerate(column, start=1)]

    def _value(self, name: str, row: int, cell: Any) -> Any:
        try:
            return cell.as_py()
        except UnicodeDecodeError as error:
            raise DataError(
                f"{self._file}, row {row}: '{name}' is not UTF-8 (byte {error.start}); write the file again as UTF-8"
            ) from error
        except Exception as error:
            raise DataError(
                f"{self._file}, row {row}: '{name}' has a value that Python cannot represent ({_first_line(error)}); "
                "leave the column out or write it as text"
            ) from error


def unreadable(path: Path, error: OSError) -> DataError:
    """The error for a file or folder that cannot be read."""
    return DataError(
        f"{_short_name(path)} cannot be read ({error.strerror or error}); check its name and its permissions"
    )


def _short_name(path: Path) -> str:
    name = str(path)
    return name if len(name) <= 200 else f"{name[:100]}…"


def read_parquet(path: Path, only: Sequence[str] | None = None, either: Sequence[str] = ()) -> Columns:
    """Reads a parquet file.

    Args:
        path: the file.
        only: the columns to read, as far as they exist. Where it is None, the first existing column of ``either``
            is read; if none exists, all columns are.
        either: see ``only``.

    Raises:
        DataError: the file is not a parquet file.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not _first_byte(path):
        return Columns({}, [])
    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            existing = list(dict.fromkeys(name for name in (only or either) if name in names))
            table = file.read(columns=existing[: None if only else 1] or None)
    except (pa.ArrowException, OSError, ValueError, OverflowError, MemoryError) as error:
        raise DataError(f"{path} is not a parquet file; write it again, or give it the suffix of its format") from error
    return from_arrow(table, str(path))


def _first_byte(path: Path) -> bytes:
    """The first byte of a file; empty where the file is empty.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return file.read(1)
    except OSError as error:
        raise unreadable(path, error) from error


def read_arrow(path: Path) -> Columns:
    """Reads an Arrow stream, the format in which ``datasets`` saves a data set.

    Raises:
        DataError: the file is not an Arrow stream.
    """
    import pyarrow as pa

    try:
        with pa.memory_map(str(path)) as source:
            table = pa.ipc.open_stream(source).read_all()
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        raise DataError(f"{path} is not an Arrow stream; save the data set again") from error
    return from_arrow(table, str(path))


def from_arrow(table: Any, file: str) -> Columns:
    """The columns of an Arrow table.

    Raises:
        DataError: two columns have the same name.
    """
    names = table.column_names
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"{file} has two columns with the same name ({twice!r}); rename one")
    return Columns(ArrowColumns(table, file), [f"row {i}" for i in range(1, table.num_rows + 1)])


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
