"""Locks: a file that one process holds for itself, or that several share."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from semdpo.disk import cache_folder, unwritable, write_bytes
from semdpo.errors import StoreError


@contextmanager
def hold(lock: Path, refusal: str) -> Iterator[None]:
    """Holds a lock file for this process.

    Args:
        lock: the lock file, which is not removed at the end.
        refusal: the message when another process holds the lock; ``{}`` in it becomes that process.

    Raises:
        StoreError: another process holds the lock, or the file cannot be written.
    """
    from filelock import FileLock, Timeout

    holder = lock.with_name(f"{lock.name}.pid")
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        file_lock = FileLock(lock, timeout=0)
        file_lock.acquire()
    except Timeout as error:
        raise StoreError(refusal.replace("{}", _named(holder))) from error
    except OSError as error:
        raise unwritable(lock.parent, error) from error
    try:
        write_bytes(holder, f"{os.getpid()}\n".encode())
        yield
    finally:
        with suppress(OSError):
            holder.unlink(missing_ok=True)
        file_lock.release()


@contextmanager
def share(lock: Path, refusal: str) -> Iterator[None]:
    """Holds a lock file together with all processes that share it, and against those that ``hold``.

    Args:
        lock: the lock file, which is not removed at the end.
        refusal: the message when a process holds the lock for itself; ``{}`` in it becomes that process.

    Raises:
        StoreError: a process holds the lock for itself, the file cannot be written, or the system has no such locks.
    """
    try:
        import fcntl
    except ImportError as error:
        raise StoreError("this system cannot share a run's folder; run without --shard") from error
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise unwritable(lock.parent, error) from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)  # of the kind that filelock takes
        except BlockingIOError as error:
            raise StoreError(refusal.replace("{}", _named(lock.with_name(f"{lock.name}.pid")))) from error
        except OSError as error:
            raise unwritable(lock.parent, error) from error
        yield
    finally:
        os.close(handle)


def _named(holder: Path) -> str:
    """The process that holds a lock for itself, in words."""
    process = ""
    with suppress(OSError, ValueError):  # it has just ended, or the file is damaged
        process = holder.read_text(encoding="ascii").strip()
    return f"process {process}" if process.isdecimal() else "another process"


def alone(out: Path, refusal: str) -> AbstractContextManager[None]:
    """Locks an output for this process; the lock file is in the cache folder, not in the user's data.

    Args:
        out: the file or folder that is written.
        refusal: the message when another process writes it; ``{}`` in it becomes that process.

    Raises:
        StoreError: another process writes it.
    """
    name = hashlib.sha256(str(out.absolute()).encode("utf-8", "surrogateescape")).hexdigest()[:32]
    locks = cache_folder() / "locks"
    try:
        locks.mkdir(parents=True, exist_ok=True)
    except OSError:
        locks = out.absolute().parent
    if not os.access(locks, os.W_OK):
        locks = out.absolute().parent
    return hold(locks / f".{name}.lock", refusal)
