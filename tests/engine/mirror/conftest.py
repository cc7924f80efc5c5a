"""A server of object storage, and a machine that has nothing yet."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from semdpo.engine import storage
from tests.engine.mirror.stored_run import move_to
from tests.object_storage import S3, s3_server, use


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    with s3_server() as server:
        yield server


@pytest.fixture
def bucket(s3: S3, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """A new bucket, of which this process knows the server."""
    use(s3, monkeypatch)
    monkeypatch.setattr(s3, "fails", lambda _: 0)
    monkeypatch.setattr(s3, "damage", lambda _, data: data)
    name = re.sub("[^a-z0-9]+", "-", request.node.name.lower()).strip("-")[-60:].strip("-")
    s3.client().create_bucket(Bucket=name)
    s3.asked.clear()
    return str(name)


@pytest.fixture(autouse=True)
def _memory() -> Iterator[None]:
    yield
    files = fsspec.filesystem("memory")
    if files.exists("/"):
        files.store.clear()
        files.pseudo_dirs[:] = [""]


@pytest.fixture(autouse=True)
def _machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    move_to(tmp_path / "machine", monkeypatch)
    monkeypatch.setattr(storage, "PAUSES", (0.01, 0.02, 0.05))
