"""A SQLite file in the cache folder, which several processes read and write at once."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from semdpo.errors import StoreError

PATIENCE = 60.0  # seconds that a process waits for others that write


@contextmanager
def opened(path: Path, table: str, keeps: str, setting: str) -> Iterator[sqlite3.Connection]:
    """Opens a file in the cache folder; what is written in the block is there whole at its end, or not at all.

    Args:
        path: the file; it is made when it does not exist.
        table: the table's name and columns, as SQL.
        keeps: what the file keeps, for the message.
        setting: the setting of a recipe that uses the file, for the message.

    Raises:
        StoreError: the file is damaged, or cannot be read or written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(path, timeout=PATIENCE)) as file, file:
            file.execute(f"CREATE TABLE IF NOT EXISTS {table}")
            yield file
    except (sqlite3.Error, OSError) as error:
        raise StoreError(
            f"{path}, which keeps {keeps} of earlier runs, cannot be used ({error}); remove it, or set {setting}=false"
        ) from error
