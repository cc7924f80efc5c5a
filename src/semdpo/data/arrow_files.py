"""Columns of Arrow tables, read when they are asked for: parquet files, data sets that were saved, and the hub's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from semdpo.errors import DataError


@dataclass(frozen=True)
class Columns:
    """What a file holds.

    Attributes:
        columns: by name, all of one length.
        rows: what to call each row in a message: ``line 3``, ``row 3``.
    """

    columns: Mapping[str, Sequence[Any]]
    rows: Sequence[str]


class ArrowColumns(Mapping[str, Sequence[Any]]):
    """The columns of an Arrow table; each becomes Python values when it is first asked for.

    Args:
        table: of Arrow.
        file: its name, for messages.
    """

    def __init__(self, table: Any, file: str) -> None:
        self._table, self._file = table, file
        self._read: dict[str, list[Any]] = {}

    def __getitem__(self, name: str) -> list[Any]:
        """The values of a column.

        Raises:
            KeyError: there is none of that name.
            DataError: a value cannot be read; its row is named.
        """
        if name not in self._read:
            self._read[name] = self._values(name)
        return self._read[name]

    def __contains__(self, name: object) -> bool:
        """Without reading the column."""
        return name in self._table.column_names

    def __iter__(self) -> Iterator[str]:
        """The names."""
        return iter(self._table.column_names)

    def __len__(self) -> int:
        """How many columns."""
        return int(self._table.num_columns)

    def stored(self, name: str) -> Any:
        """A column as Arrow has it, with its own type."""
        return self._table.column(name)

    def _values(self, name: str) -> list[Any]:
        if name not in self:
            raise KeyError(name)
        column = self.stored(name)
        try:
            return list(column.to_pylist())
        except Exception:  # whatever Arrow finds wrong, the row is looked for and named
            return [self._value(name, k, each) for k, each in enumerate(column, start=1)]

    def _value(self, name: str, row: int, cell: Any) -> Any:
        try:
            return cell.as_py()
        except UnicodeDecodeError as error:
            raise DataError(
                f"{self._file}, row {row}: '{name}' is not UTF-8 (byte {error.start}); write the file again from texts"
            ) from error
        except Exception as error:
            raise DataError(
                f"{self._file}, row {row}: '{name}' is a value that Python cannot hold ({_first_line(error)}); "
                "leave the column out or write it as text"
            ) from error


def unreadable(path: Path, error: OSError) -> DataError:
    """The error for a file or folder that the system does not let us read."""
    return DataError(f"{_named(path)} cannot be read ({error.strerror or error}); check its name and its permissions")


def _named(path: Path) -> str:
    name = str(path)
    return name if len(name) <= 200 else f"{name[:100]}…"


def read_parquet(path: Path, only: Sequence[str] | None = None, either: Sequence[str] = ()) -> Columns:
    """A parquet file.

    Args:
        path: of the file.
        only: read only these columns, if it has them; None reads all …
        either: … or, if it has one of them, the first of these.

    Raises:
        DataError: it is something else.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not _first_byte(path):
        return Columns({}, [])
    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            wanted = list(dict.fromkeys(each for each in (only or either) if each in names))[: None if only else 1]
            table = file.read(columns=wanted or None)
    except (pa.ArrowException, OSError, ValueError, OverflowError, MemoryError) as error:
        raise DataError(f"{path} is not a parquet file; write it again or name it by what it is") from error
    return from_arrow(table, str(path))


def _first_byte(path: Path) -> bytes:
    """The first byte of a file; nothing where it is empty.

    Raises:
        DataError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return file.read(1)
    except OSError as error:
        raise unreadable(path, error) from error


def read_arrow(path: Path) -> Columns:
    """A stream of Arrow, as ``datasets`` saves it.

    Raises:
        DataError: it is something else.
    """
    import pyarrow as pa

    try:
        with pa.memory_map(str(path)) as source:
            table = pa.ipc.open_stream(source).read_all()
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        raise DataError(f"{path} is not an arrow stream; save the data set again") from error
    return from_arrow(table, str(path))


def from_arrow(table: Any, file: str) -> Columns:
    """The columns of an Arrow table.

    Raises:
        DataError: two have one name.
    """
    names = table.column_names
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"{file} has two columns of one name ({twice!r}); rename one")
    return Columns(ArrowColumns(table, file), [f"row {i}" for i in range(1, table.num_rows + 1)])


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
