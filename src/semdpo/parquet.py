"""Records as parquet files: equal rows give equal bytes."""

from __future__ import annotations

import hashlib
import json
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import astuple, fields
from pathlib import Path
from typing import Any, TypeVar

from semdpo.errors import StoreError

Row = TypeVar("Row")
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
    pq.write_table(table, sink, compression="zstd", compression_level=3, version="2.6", data_page_version="1.0")
    return bytes(sink.getvalue().to_pybytes())


def read_file(path: Path, kind: type[Row], sealed: bool = False) -> list[Row]:
    """The records of one file.

    Args:
        path: of the file.
        kind: the records' class.
        sealed: the file must have the hash of its rows, and the rows must be those.

    Raises:
        StoreError: the file is damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns, wide = _columns(kind)
    try:
        table = pq.ParquetFile(path).read()
        rows = table.to_pylist()
        if wide:
            keys = [name for name in table.column_names if name not in columns]
            rows = [{**{n: row[n] for n in columns}, wide: {k: row[k] for k in keys}} for row in rows]
        found = [kind(**row) for row in rows]
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError, MemoryError) as error:
        raise _damaged(path) from error
    if sealed and (table.schema.metadata or {}).get(SEAL) != _hash(found):
        raise _damaged(path)
    return found


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
