"""A note in a storage that says who works there. It is a courtesy and no lock: object storages have none."""

from __future__ import annotations

import json
import os
import secrets
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from semdpo.disk import write_bytes
from semdpo.engine.storage import Storage
from semdpo.errors import StoreError

NAME = "in-use.json"
BEAT = 60.0  # seconds after which the note is written again
LAPSE = 300.0  # seconds after which a note that was not written again counts for nothing
_HOLDER = ".holder"  # in the working folder: the token of everybody who works there, one after the other


@contextmanager
def held(storage: Storage, place: Path) -> Iterator[Callable[[], None]]:
    """Notes in a storage that this process works there, again and again until the ``with`` block ends.

    A process that was killed leaves its note behind. Whoever resumes in the same working folder takes it over at
    once; everybody else waits until it lapses.

    Args:
        storage: the storage.
        place: the working folder, which this process has locked.

    Returns:
        A function that raises StoreError once another process has taken the storage.

    Raises:
        StoreError: another process works there.
    """
    token = _token(place)
    _take(storage, token)
    over, lost = threading.Event(), threading.Event()

    def beat() -> None:
        while not over.wait(BEAT) and not lost.is_set():
            with suppress(StoreError):  # without a connection the note lapses, and the run itself will say why
                if (now := _note(storage)) is not None and now["holder"] != token:
                    lost.set()
                elif not over.is_set():
                    storage.write(NAME, _written(token))

    def refuse_if_lost() -> None:
        if lost.is_set():
            raise StoreError(f"another process has begun to work in {storage.address}; let it end, then run this again")

    beating = threading.Thread(target=beat, daemon=True)
    beating.start()
    try:
        yield refuse_if_lost
    finally:
        over.set()
        beating.join(timeout=10)
        with suppress(StoreError):
            if not lost.is_set() and (_note(storage) or {}).get("holder") == token:
                storage.remove(NAME)


def _take(storage: Storage, token: str) -> None:
    before = _note(storage)
    if before is None and storage.create(NAME, _written(token)):
        return
    if before is None:  # written since
        before = _note(storage)
    if before is not None and before["holder"] != token and (age := _age(before)) < LAPSE:
        raise StoreError(
            f"{storage.address} is in use by process {before['process']} on {before['host']} (seen {age:.0f} s ago); "
            f"wait until it ends, or {LAPSE / 60:.0f} minutes if it was killed, or choose another folder with --out"
        )
    storage.write(NAME, _written(token))


def _token(place: Path) -> str:
    path = place / _HOLDER
    if not path.is_file():
        write_bytes(path, secrets.token_hex(16).encode())
    return path.read_text()


def _written(token: str) -> bytes:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    note = {"holder": token, "host": socket.gethostname(), "process": os.getpid(), "time": now}
    return json.dumps(note, indent=1).encode()


def _note(storage: Storage) -> dict[str, Any] | None:
    """The note in a storage; None where there is none.

    Raises:
        StoreError: the object of that name is no such note.
    """
    data = storage.read(NAME)
    if data is None:
        return None
    try:
        note = json.loads(data)
        datetime.fromisoformat(note["time"]).astimezone(UTC)
        if {"holder", "host", "process"} <= note.keys():
            return dict(note)
    except (ValueError, TypeError, KeyError, RecursionError):
        pass
    raise StoreError(f"{storage.address}/{NAME} is damaged, or was not made by semdpo; remove it, then run this again")


def _age(note: dict[str, Any]) -> float:
    """The seconds since a note was written; clocks of two machines may differ, so that none is negative."""
    return max(0.0, (datetime.now(UTC) - datetime.fromisoformat(note["time"]).astimezone(UTC)).total_seconds())
