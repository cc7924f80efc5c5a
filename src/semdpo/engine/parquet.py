"""Records as parquet files: equal rows give equal bytes."""

from __future__ import annotations

import hashlib
import json
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import astuple, fields
from pathlib import Path
from typing import Any, TypeVar

from semdpo.errors import StoreError

Row = TypeVar("Row")
PAGE_ROWS = 8  # rows after which a large page ends, so that a few of many images can be read
BUFFER = 2**16  # bytes
COUNTS = b"semdpo.counts"
SEAL = b"semdpo.sha256"


def encode(kind: type[Row], rows: Sequence[Row], counts: Mapping[str, int], sealed: bool = False) -> bytes:
    """Records as the bytes of a parquet file; equal rows give equal bytes.

    Args:
        kind: the records' class, which gives the columns and their types.
        rows: the records; a field of type ``dict[str, float]`` becomes one column per key.
        counts: name → count, stored in the file's metadata.
        sealed: whether the metadata also hold the rows' hash, for files that no manifest lists.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns, wide = _columns(kind)
    arrays = {name: pa.array([getattr(row, name) for row in rows], type=column) for name, column in columns.items()}
    if wide:
        keys = list(getattr(rows[0], wide)) if rows else []
        arrays |= {key: pa.array([getattr(row, wide)[key] for row in rows], pa.float64()) for key in keys}
    metadata = {COUNTS: (json.dumps(dict(counts), indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()}
    if sealed:
        metadata[SEAL] = _hash(rows)
    table = pa.table(arrays).replace_schema_metadata(metadata)
    sink = pa.BufferOutputStream()
    pq.write_table(
        table,
        sink,
        compression="zstd",
        compression_level=3,
        version="2.6",
        data_page_version="1.0",
        write_batch_size=PAGE_ROWS,
    )
    return bytes(sink.getvalue().to_pybytes())


def read_file(path: Path, kind: type[Row], sealed: bool = False, unread: Mapping[str, Any] | None = None) -> list[Row]:
    """The records of one file.

    Args:
        path: the file.
        kind: the records' class.
        sealed: whether the metadata must hold the rows' hash.
        unread: columns to leave on disk, and the value that every record gets in their place.

    Raises:
        StoreError: the file is damaged, or its hash is not that of its rows.
    """
    import pyarrow.parquet as pq

    columns, wide = _columns(kind)
    unread = unread or {}
    with _readable(path), pq.ParquetFile(path) as file:
        table = file.read([name for name in file.schema_arrow.names if name not in unread])
        rows = table.to_pylist()
        if wide:
            keys = [name for name in table.column_names if name not in columns]
            rows = [{**{n: row[n] for n in columns}, wide: {k: row[k] for k in keys}} for row in rows]
        records = [kind(**row, **unread) for row in rows]
    if sealed and (table.schema.metadata or {}).get(SEAL) != _hash(records):
        raise _damaged(path)
    return records


def read_column(path: Path, name: str) -> list[Any]:
    """The values of one column.

    Raises:
        StoreError: the file is damaged.
    """
    import pyarrow.parquet as pq

    with _readable(path), pq.ParquetFile(path) as file:
        return list(file.read([name]).column(name).to_pylist())


def read_cells(path: Path, name: str, rows: Sequence[int]) -> list[Any]:
    """Values of one column in some rows; the file is not read past the last of them.

    Args:
        path: the file.
        name: the column's name.
        rows: the numbers of the rows, counted from 0.

    Raises:
        StoreError: the file is damaged, or has fewer rows.
    """
    import pyarrow.parquet as pq

    numbers, cells, before = set(rows), dict[int, Any](), 0
    with _readable(path), pq.ParquetFile(path, pre_buffer=False, buffer_size=BUFFER) as file:
        for batch in file.iter_batches(PAGE_ROWS, columns=[name]) if rows else ():
            values = batch.column(name)
            cells |= {row: values[row - before].as_py() for row in numbers & {*range(before, before + len(values))}}
            before += len(values)
            if len(cells) == len(numbers):
                break
        return [cells[row] for row in rows]


def counts(path: Path) -> dict[str, int]:
    """The counts in a file's metadata; ``rows`` is always among them.

    Raises:
        StoreError: the file is damaged.
    """
    import pyarrow.parquet as pq

    with _readable(path):
        metadata = pq.read_metadata(path)
        return {"rows": metadata.num_rows, **json.loads(metadata.metadata[COUNTS])}


def shard_names(files: Iterable[str]) -> list[str]:
    """The names of a stage's files in the order of their indices; from 100,000 on, an index has six digits."""
    return sorted(files, key=lambda name: (len(name), name))


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turns the errors of pyarrow and of the records' classes into the message for a damaged file."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError, MemoryError) as error:
        raise _damaged(path) from error


def _hash(rows: Sequence[Any]) -> bytes:
    return hashlib.sha256(repr([astuple(row) for row in rows]).encode()).hexdigest().encode()


def _damaged(path: Path) -> StoreError:
    return StoreError(f"{path} is damaged; remove it and the manifest.json in its folder, and run again")


def _columns(kind: type[Any]) -> tuple[dict[str, Any], str | None]:
    """A record's columns with their types, and the name of the field that becomes several columns."""
    import pyarrow as pa

    arrow_types = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_(), bytes: pa.binary()}
    hints = typing.get_type_hints(kind)
    columns, wide = {}, None
    for name in (field.name for field in fields(kind)):
        hint = hints[name]
        if typing.get_origin(hint) is types.UnionType:
            hint = next(a for a in typing.get_args(hint) if a is not type(None))
        if typing.get_origin(hint) is dict:
            wide = name
        else:
            columns[name] = arrow_types[hint]
    return columns, wide
