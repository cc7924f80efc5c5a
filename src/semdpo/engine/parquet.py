"""Records as parquet files: equal rows give equal bytes."""

from __future__ import annotations

import hashlib
import json
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import astuple, fields
from pathlib import Path
from typing import Any, TypeVar

from semdpo.errors import StoreError

Row = TypeVar("Row")
PAGE_ROWS = 8  # after which a page that has grown large ends, so that of many images a few can be read
BUFFER = 2**16  # bytes
COUNTS = b"semdpo.counts"
SEAL = b"semdpo.sha256"


def encode(kind: type[Row], rows: Sequence[Row], counts: Mapping[str, int], sealed: bool = False) -> bytes:
    """Records as the bytes of a parquet file; equal rows give equal bytes.

    Args:
        kind: the record's class, which gives the columns and their types.
        rows: its records; a field of type ``dict[str, float]`` becomes a column for each key.
        counts: what was counted on the way, kept in the file's metadata.
        sealed: keep the rows' own hash in the metadata too, for files that no manifest speaks of.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns, wide = _columns(kind)
    arrays = {name: pa.array([getattr(row, name) for row in rows], type=each) for name, each in columns.items()}
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
        path: of the file.
        kind: the records' class.
        sealed: the file must have the hash of its rows, and the rows must be those.
        unread: columns that stay on disk, and the value that every record gets in their place.

    Raises:
        StoreError: the file is damaged.
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
        found = [kind(**row, **unread) for row in rows]
    if sealed and (table.schema.metadata or {}).get(SEAL) != _hash(found):
        raise _damaged(path)
    return found


def read_column(path: Path, name: str) -> list[Any]:
    """The values of one column.

    Raises:
        StoreError: the file is damaged.
    """
    import pyarrow.parquet as pq

    with _readable(path), pq.ParquetFile(path) as file:
        return list(file.read([name]).column(name).to_pylist())


def read_cells(path: Path, name: str, rows: Sequence[int]) -> list[Any]:
    """Values of one column in some rows; what stands behind the last of them is not read.

    Args:
        path: of the file.
        name: of the column.
        rows: counted from 0.

    Raises:
        StoreError: the file is damaged, or has fewer rows.
    """
    import pyarrow.parquet as pq

    wanted, found, before = set(rows), dict[int, Any](), 0
    with _readable(path), pq.ParquetFile(path, pre_buffer=False, buffer_size=BUFFER) as file:
        for batch in file.iter_batches(PAGE_ROWS, columns=[name]) if rows else ():
            values = batch.column(name)
            found |= {row: values[row - before].as_py() for row in wanted & {*range(before, before + len(values))}}
            before += len(values)
            if len(found) == len(wanted):
                break
        return [found[row] for row in rows]


def counts(path: Path) -> dict[str, int]:
    """What was counted when a file was written; ``rows`` is always there.

    Raises:
        StoreError: the file is damaged.
    """
    import pyarrow.parquet as pq

    with _readable(path):
        metadata = pq.read_metadata(path)
        return {"rows": metadata.num_rows, **json.loads(metadata.metadata[COUNTS])}


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """What pyarrow and our records say of a damaged file, in our words."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError, MemoryError) as error:
        raise _damaged(path) from error


def _hash(rows: Sequence[Any]) -> bytes:
    return hashlib.sha256(repr([astuple(row) for row in rows]).encode()).hexdigest().encode()


def _damaged(path: Path) -> StoreError:
    return StoreError(f"{path} is damaged; remove it and manifest.json beside it, and run again")


def _columns(kind: type[Any]) -> tuple[dict[str, Any], str | None]:
    """Column types of a record, and the name of its field that is spread over columns."""
    import pyarrow as pa

    known = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_(), bytes: pa.binary()}
    hints = typing.get_type_hints(kind)
    columns, wide = {}, None
    for name in (field.name for field in fields(kind)):
        hint = hints[name]
        if typing.get_origin(hint) is types.UnionType:
            hint = next(a for a in typing.get_args(hint) if a is not type(None))
        if typing.get_origin(hint) is dict:
            wide = name
        else:
            columns[name] = known[hint]
    return columns, wide
