"""Locks: one process holds a file for itself, or several share it."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from semdpo import locks
from semdpo.errors import StoreError


def test_one_process_holds_a_lock(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from semdpo import locks\n"
        "with locks.hold(Path(sys.argv[1]), 'held by {}'): print('held', flush=True); time.sleep(60)"
    )
    lock = tmp_path / "lock"
    with subprocess.Popen([sys.executable, "-c", code, str(lock)], stdout=subprocess.PIPE, text=True) as other:
        try:
            assert other.stdout is not None
            assert other.stdout.readline() == "held\n"
            with pytest.raises(StoreError, match=f"held by process {other.pid}"), locks.hold(lock, "held by {}"):
                pass
        finally:
            other.kill()
    with locks.hold(lock, "held by {}"):
        pass


@pytest.mark.parametrize("content", [b"", b"\xff\xfe1", b"soon", None])
def test_a_lock_whose_holder_cannot_be_read(content: bytes | None, tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with locks.hold(lock, "held by {}"):
        (tmp_path / "lock.pid").unlink()
        if content is not None:
            (tmp_path / "lock.pid").write_bytes(content)
        with pytest.raises(StoreError, match="held by another process"), locks.hold(lock, "held by {}"):
            pass


def test_a_shared_lock(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    shared, alone = partial(locks.share, lock, "held by {}"), partial(locks.hold, lock, "held by {}")
    with shared(), shared(), pytest.raises(StoreError, match="held by another process"), alone():
        pass
    with alone(), pytest.raises(StoreError, match=f"held by process {os.getpid()}"), shared():
        pass
    with alone():
        pass
