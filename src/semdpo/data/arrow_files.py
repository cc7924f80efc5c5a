"""Columns of Arrow tables, each read when it is first used: parquet files, saved data sets, and the hub's."""

from __future__ import annotations

import errno
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from semdpo import disk
from semdpo.errors import DataError
from semdpo.texts import given_twice, shown

BATCH = 256  # rows that are measured at a time
CELL = 64  # bytes of a Python value, about
MOST, FACTOR = 2**30, 200  # bytes that any file may hold, and how often its own size; real tables hold 10 times as much

BUFFER = 2**16  # bytes that are read of a column at a time


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
    too_large = error.errno == errno.ENOMEM
    cure = "split it, or use a machine with more memory" if too_large else "check its name and its permissions"
    return DataError(f"{_short_name(path)} cannot be read ({error.strerror or error}); {cure}")


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
        DataError: the file is not a parquet file, or holds far more than its size.
    """
    import pyarrow.parquet as pq

    if not _first_byte(path):
        return Columns({}, [])
    with _readable(path), pq.ParquetFile(path) as file:
        names = file.schema_arrow.names
        existing = list(dict.fromkeys(name for name in (only or either) if name in names))
        columns = existing[: None if only else 1] or None
        _refuse_bomb(path, [CELL * _claimed(file.metadata)])  # before room is made for so many rows
        _refuse_bomb(path, (_size(batch) for batch in file.iter_batches(BATCH, columns=columns)))
        table = file.read(columns=columns)
    return from_arrow(table, str(path))


def parquet_rows(path: Path) -> int:
    """The number of rows of a parquet file; the error is that of ``read_parquet``."""
    import pyarrow.parquet as pq

    if not _first_byte(path):
        return 0
    with _readable(path):
        metadata = pq.read_metadata(path)
        _refuse_bomb(path, [CELL * _claimed(metadata)])
        return int(metadata.num_rows)


def parquet_pieces(path: Path, size: int) -> Iterator[Columns]:
    """The rows of a parquet file in pieces of up to ``size`` rows; the error is that of ``read_parquet``."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    first = 1
    with _readable(path):
        file = pq.ParquetFile(path, pre_buffer=False, buffer_size=BUFFER)
    with file:
        with _readable(path):  # each of few rows, for a row can be large
            _refuse_bomb(path, (_size(batch) for batch in file.iter_batches(BATCH)))
        batches = file.iter_batches(size)
        while True:
            with _readable(path):
                batch = next(batches, None)
            if batch is None:
                return
            yield from_arrow(pa.Table.from_batches([batch]), str(path), first)
            first += batch.num_rows


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turns pyarrow's errors into the message for a file that is not parquet."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError, ValueError, OverflowError, MemoryError) as error:
        raise DataError(f"{path} is not a parquet file; write it again, or give it the suffix of its format") from error


def _first_byte(path: Path) -> bytes:
    """The first byte of a file; empty where the file is empty.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        return disk.read(path, 1)
    except OSError as error:
        raise unreadable(path, error) from error


def read_arrow(path: Path) -> Columns:
    """Reads an Arrow stream, the format in which ``datasets`` saves a data set.

    Raises:
        DataError: the file is not an Arrow stream, or holds far more than its size.
    """
    import pyarrow as pa

    _first_byte(path)
    try:
        with pa.memory_map(str(path)) as source:
            _refuse_bomb(path, (_size(batch) for batch in pa.ipc.open_stream(source)))
            source.seek(0)
            table = pa.ipc.open_stream(source).read_all()
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        raise DataError(f"{path} is not an Arrow stream; save the data set again") from error
    return from_arrow(table, str(path))


def _refuse_bomb(path: Path, sizes: Iterable[int]) -> None:
    """Refuses a file whose rows take far more memory than the file: some kilobytes can hold a billion equal rows.

    Args:
        path: the file.
        sizes: the sizes of its parts as Python values, in bytes; they are taken one by one.
    """
    file_size = path.stat().st_size
    most = max(MOST, FACTOR * file_size)
    if any(total > most for total in itertools.accumulate(sizes)):
        raise DataError(
            f"{path} holds more than {most / 2**30:,.0f} GB of rows in {file_size:,} bytes, and would fill the memory; "
            "if its rows are right, write them as .jsonl"
        )


def _claimed(metadata: Any) -> int:
    """The largest number of rows that a parquet file says it has; it says so in three places."""
    groups = [metadata.row_group(k) for k in range(metadata.num_row_groups)]
    values = [group.column(k).num_values for group in groups for k in range(group.num_columns)]
    return int(max(metadata.num_rows, *(group.num_rows for group in groups), *values, 0))


def _size(batch: Any) -> int:
    """About how many bytes some rows of an Arrow table take as Python values."""
    import pyarrow as pa
    import pyarrow.compute as pc

    size = 0
    for column in batch.columns:
        size += CELL * len(column)
        if pa.types.is_dictionary(column.type) and pa.types.is_string(column.type.value_type):
            size += pc.sum(pc.binary_length(column.dictionary).take(column.indices)).as_py() or 0
        elif not pa.types.is_dictionary(column.type):
            size += column.nbytes
    return size


def from_arrow(table: Any, file: str, first: int = 1) -> Columns:
    """The columns of an Arrow table, whose first row has the number ``first`` in messages.

    Raises:
        DataError: two columns have the same name.
    """
    names = table.column_names
    if (twice := given_twice(names)) is not None:
        raise DataError(f"{file} has two columns with the same name ({shown(twice)}); rename one")
    return Columns(ArrowColumns(table, file), [f"row {i}" for i in range(first, first + table.num_rows)])


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
