"""Writing and removing: a file is whole or not there, and nothing is removed but what this package wrote.

A folder that may be removed holds a mark: ``.semdpo.json``, a rewriter's ``semdpo.json``, or a stage's ``started.json``
or ``manifest.json``. Links are never followed when something is removed or replaced.
"""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from semdpo.errors import StoreError

MARK = ".semdpo.json"  # in folders that hold no stage, such as a training's
MADE = b'{"made by": "semdpo"}\n'
REWRITER = "semdpo.json"  # in a trained rewriter's folder
_STAGE = ("started.json", "manifest.json")
_LEFTOVER = re.compile(r"\..+\.[0-9a-f]{16}\.tmp")
CACHE = "SEMDPO_CACHE"  # environment variable: the folder of what can be computed again
NO_SPACE = "there is no space left to write {}; free some, then run the same command again"
# What torch says when a file could not be written whole; it keeps the system's reason to itself.
_SHORT = ("unexpected pos", "PytorchStreamWriter failed writing", "iostream error")


def write_bytes(path: Path, data: bytes) -> None:
    """Writes a file to a temporary name and renames it: under its own name it is whole or not there.

    The temporary name is one that nobody can know beforehand, and is made for this file alone. Where several processes
    write one file at once, the last one stays.

    Raises:
        StoreError: no space is left, or the folder cannot be written.
    """
    temporary = path.with_name(f".{path.name[:100]}.{secrets.token_hex(8)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0), 0o666)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise unwritable(path, error) from error


def sweep(folder: Path) -> None:
    """Removes what killed processes left half-written in one of our folders."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if _LEFTOVER.fullmatch(path.name) and path.is_file() and not path.is_symlink():
            path.unlink(missing_ok=True)


def sync(folder: Path) -> None:
    """Makes sure that a folder's files are on the disk before the folder gets its final name.

    Raises:
        OSError: no space is left.
    """
    for place, _, names in os.walk(folder):
        for name in names:
            with Path(place, name).open("rb") as file:
                os.fsync(file.fileno())
    _sync_names(folder)


def _sync_names(folder: Path) -> None:
    with suppress(OSError):  # some systems open no folders
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def rename(source: Path, target: Path) -> None:
    """Gives a finished folder its final name, where nothing lies but an empty folder.

    Raises:
        StoreError: something lies there, or the folder around cannot be written.
    """
    refuse_foreign(target)
    try:
        source.replace(target)
    except OSError as error:
        raise unwritable(target, error) from error
    _sync_names(target.parent)


# ------------------------------------------------------------------------------------------------- what is ours


def mark(folder: Path) -> None:
    """Makes a folder one of ours, which ``remove`` may remove; the folder is made when it is not there.

    Raises:
        StoreError: something else lies there, or it cannot be written.
    """
    if not is_ours(folder):
        refuse_foreign(folder)
        write_bytes(folder / MARK, MADE)


def is_ours(folder: Path) -> bool:
    """Whether a folder is no link, and one of our marks is in it."""
    if folder.is_symlink() or not folder.is_dir():
        return False
    if _is_file(folder / REWRITER) or (_is_file(folder / MARK) and "made by" in _object(folder / MARK)):
        return True
    return any(
        _is_file(folder / name) and {"config", "inputs", "versions"} <= _object(folder / name).keys() for name in _STAGE
    )


def refuse_foreign(path: Path) -> None:
    """Refuses a place where something lies that is not ours; an empty folder is nothing.

    Raises:
        StoreError: with the cure.
    """
    if path.is_symlink():
        raise StoreError(f"{path} is a link, and nothing is removed or replaced behind links; remove it yourself")
    if path.exists() and not is_ours(path) and not (path.is_dir() and not any(path.iterdir())):
        raise StoreError(f"{path} was not made by semdpo and would be lost; move it, or choose another folder")


def remove(path: Path) -> None:
    """Removes one of our folders; links inside of it go, and not what they lead to.

    The marks go last, so that what a kill leaves is still ours; a manifest goes first, so that no half is taken for a
    whole.

    Args:
        path: may be absent or empty.

    Raises:
        StoreError: it is a link, was not made by this package, or cannot be removed.
    """
    refuse_foreign(path)
    if not path.exists():
        return
    try:
        if any(_is_file(path / name) for name in ("started.json", MARK, REWRITER)):
            (path / "manifest.json").unlink(missing_ok=True)
        marks = {MARK, REWRITER, *_STAGE}
        for each in sorted(path.iterdir(), key=lambda each: each.name in marks):
            if each.is_dir() and not each.is_symlink():
                shutil.rmtree(each)
            else:
                each.unlink(missing_ok=True)
        path.rmdir()
    except OSError as error:
        raise unwritable(path, error) from error


def remove_file(folder: Path, name: str) -> None:
    """Removes a file of a folder by its relative name, unless that name leads out of the folder.

    Args:
        folder: of ours.
        name: relative, with ``/`` between its parts; from a list that somebody may have edited.
    """
    path = folder / name
    parts = Path(name).parts
    inside = not Path(name).is_absolute() and ".." not in parts
    linked = any(folder.joinpath(*parts[:n]).is_symlink() for n in range(1, len(parts)))
    if inside and not linked and (path.is_file() or path.is_symlink()):
        path.unlink(missing_ok=True)


@contextmanager
def held(lock: Path, refusal: str) -> Iterator[None]:
    """Holds a lock file for this process.

    Args:
        lock: its path; the file stays.
        refusal: what to say when another process holds it; ``{}`` is that process's number.

    Raises:
        StoreError: another process holds it, or it cannot be written.
    """
    from filelock import FileLock, Timeout

    holder = lock.with_name(f"{lock.name}.pid")
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        own = FileLock(lock, timeout=0)
        own.acquire()
    except Timeout as error:
        known = holder.read_text().strip() if _is_file(holder) else ""
        raise StoreError(refusal.format(known if known.isdecimal() else "unknown")) from error
    except OSError as error:
        raise unwritable(lock.parent, error) from error
    try:
        write_bytes(holder, f"{os.getpid()}\n".encode())
        yield
    finally:
        with suppress(OSError):
            holder.unlink(missing_ok=True)
        own.release()


def _is_file(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def _object(path: Path) -> dict[str, object]:
    """A JSON object; empty where the file holds none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


# ------------------------------------------------------------------------------------------------- failures


def unwritable(path: Path, error: Exception) -> StoreError:
    """The error for a file or folder that could not be written."""
    if out_of_space(error):
        return StoreError(NO_SPACE.format(path))
    reason = getattr(error, "strerror", None) or str(error)
    return StoreError(f"{path} cannot be written ({reason}); choose another folder or correct its permissions")


def out_of_space(error: BaseException) -> bool:
    """Whether the disk, a quota or a size limit is exhausted (safetensors and torch say so in words only)."""
    full = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
    said = any(f"code: {number}," in str(error) or f"os error {number}" in str(error) for number in full)
    short = isinstance(error, RuntimeError) and any(each in str(error) for each in _SHORT)
    return getattr(error, "errno", None) in full or said or short or "No space left" in str(error)


@contextmanager
def full_disk_told(path: Path) -> Iterator[None]:
    """Turns what libraries raise when a disk is full into the one sentence that helps.

    Raises:
        StoreError: no space is left.
    """
    try:
        yield
    except Exception as error:
        if not isinstance(error, StoreError) and out_of_space(error):
            raise unwritable(path, error) from error
        raise


# ------------------------------------------------------------------------------------------------- places


def is_dir(path: str | Path) -> bool:
    """Whether it is a folder; False where the system refuses to look."""
    try:
        return Path(path).is_dir()
    except (OSError, ValueError):
        return False


def is_file(path: str | Path) -> bool:
    """Whether it is a file; False where the system refuses to look."""
    try:
        return Path(path).is_file()
    except (OSError, ValueError):
        return False


def cache_folder() -> Path:
    """Where this user keeps what can be computed again: ``$SEMDPO_CACHE``, or the system's usual place."""
    from platformdirs import user_cache_path

    named = os.environ.get(CACHE)
    return Path(named) if named else user_cache_path("semdpo", appauthor=False)


def refuse_unwritable(path: Path, *, folder: bool = False) -> None:
    """Refuses a place that cannot be written, before anything is loaded; nothing is made.

    Args:
        path: of the file or folder that will be written; the folders above it need not be there.
        folder: whether it will be a folder.

    Raises:
        StoreError: something else lies there or above it, its name is too long, or permission is missing.
    """
    try:
        if path.is_dir() and not folder:
            raise StoreError(f"{path} is a folder; name a file in it")
        whole = path.absolute()
        above = next(each for each in (whole, *whole.parents) if (folder or each != whole) and each.exists())
    except (OSError, ValueError) as error:
        raise unwritable(path, error) from error
    if not above.is_dir():
        raise StoreError(f"{path} cannot be written, for {above} is a file; choose another folder")
    if not os.access(above, os.W_OK | os.X_OK):
        raise StoreError(f"{path} cannot be written (no permission in {above}); choose another folder")
