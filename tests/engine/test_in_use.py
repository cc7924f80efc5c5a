"""The note of who works in a storage: others are refused until it is removed or lapses."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import fsspec
import pytest

from semdpo.engine import in_use
from semdpo.engine.in_use import NAME, held
from semdpo.engine.storage import Storage
from semdpo.errors import StoreError

ADDRESS = "memory://held/run"


@pytest.fixture
def storage() -> Iterator[Storage]:
    yield Storage(ADDRESS)
    files = fsspec.filesystem("memory")
    if files.exists("/held"):
        files.rm("/held", recursive=True)


def _note(seconds: float = 0.0, holder: str = "other") -> bytes:
    when = datetime.now(UTC) - timedelta(seconds=seconds)
    return json.dumps({"holder": holder, "host": "tower", "process": 41, "time": when.isoformat()}).encode()


def _until(true: Callable[[], object]) -> None:
    wait = threading.Event()
    for _ in range(1000):
        if true():
            return
        wait.wait(0.01)
    raise AssertionError("it did not happen within ten seconds")


def test_the_note_is_there_during_the_work_only(storage: Storage, tmp_path: Path) -> None:
    with held(storage, tmp_path):
        note = json.loads(storage.read(NAME) or b"")
        assert note.keys() == {"holder", "host", "process", "time"}
    assert storage.read(NAME) is None


def test_another_machine_is_refused(storage: Storage, tmp_path: Path) -> None:
    with held(storage, tmp_path / "one"):
        before = storage.read(NAME)
        with pytest.raises(
            StoreError, match=f"^{ADDRESS} is in use by process \\d+ on .+ ago\\); wait until it ends, or"
        ):
            held(storage, tmp_path / "two").__enter__()
        assert storage.read(NAME) == before
    with held(storage, tmp_path / "two"):
        pass


@pytest.mark.parametrize(("seconds", "taken"), [(299, False), (301, True), (-3600, False)])
def test_a_note_lapses(storage: Storage, tmp_path: Path, seconds: float, taken: bool) -> None:
    storage.write(NAME, _note(seconds))
    if taken:
        with held(storage, tmp_path):
            assert json.loads(storage.read(NAME) or b"")["host"] != "tower"
        return
    with pytest.raises(StoreError, match=r"is in use by process 41 on tower"):
        held(storage, tmp_path).__enter__()


def test_a_note_of_the_same_folder_is_taken_over_at_once(storage: Storage, tmp_path: Path) -> None:
    with held(storage, tmp_path):
        mine = storage.read(NAME) or b""
    storage.write(NAME, mine)  # as after a kill
    with held(storage, tmp_path):
        pass
    assert storage.read(NAME) is None


def test_of_two_that_begin_at_once_one_is_refused(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes = iter([None, _note()])  # the other's note is written between the look and the creation
    monkeypatch.setattr(storage, "read", lambda name: next(notes))
    Storage(ADDRESS).write(NAME, _note())
    with pytest.raises(StoreError, match="is in use by process 41 on tower"):
        held(storage, tmp_path).__enter__()


def test_the_heart_beats(storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_use, "BEAT", 0.01)
    with held(storage, tmp_path):
        aged = json.loads(storage.read(NAME) or b"") | {"time": "2020-01-01T00:00:00+00:00"}
        storage.write(NAME, json.dumps(aged).encode())
        _until(lambda: "2020" not in json.loads(storage.read(NAME) or b"{}")["time"])


def test_who_lost_the_storage_stops_and_leaves_the_note(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(in_use, "BEAT", 0.01)
    with held(storage, tmp_path) as refuse_if_lost:
        refuse_if_lost()
        storage.write(NAME, _note())

        def lost() -> bool:
            try:
                refuse_if_lost()
            except StoreError as error:
                return str(error).startswith(f"another process has begun to work in {ADDRESS}")
            return False

        _until(lost)
    assert json.loads(storage.read(NAME) or b"")["holder"] == "other"


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"time": 3}', b'{"time": "2026-01-01T00:00:00"}', b"\xff"])
def test_an_object_that_is_no_note_is_not_overwritten(storage: Storage, tmp_path: Path, content: bytes) -> None:
    storage.write(NAME, content)
    message = f"{ADDRESS}/in-use.json is damaged, or was not made by semdpo; remove it, then run this again"
    with pytest.raises(StoreError, match=f"^{re.escape(message)}$"):
        held(storage, tmp_path).__enter__()
    assert storage.read(NAME) == content
