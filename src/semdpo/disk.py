"""Writing and removing: a file is written whole or not at all, and only files that semdpo wrote are removed.

A folder that may be removed holds a mark: ``.semdpo.json``, a rewriter's ``semdpo.json``, or a stage's ``started.json``
or ``manifest.json``. Symbolic links are never followed when files are removed or replaced.
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

MARK = ".semdpo.json"  # the mark of a folder that holds no stage, such as a training's
MADE = b'{"made by": "semdpo"}\n'
REWRITER = "semdpo.json"  # the mark of a trained rewriter's folder
_STAGE = ("started.json", "manifest.json")
_LEFTOVER = re.compile(r"\..+\.[0-9a-f]{16}\.tmp")
CACHE = "SEMDPO_CACHE"  # environment variable: the folder of files that can be computed again
NO_SPACE = "there is no space left to write {}; free some space, then run the same command again"
# What torch reports when a file could not be written whole; it does not pass on the system's reason.
_TORCH_FAILED = ("unexpected pos", "PytorchStreamWriter failed writing", "iostream error")


def write_bytes(path: Path, data: bytes) -> None:
    """Writes a file under a temporary name and renames it, so that a file of that name is always whole.

    The temporary name is random and used once. Where several processes write one file at the same time, the file
    of the last one stays.

    Args:
        path: the file; missing folders above it are made.
        data: its content.

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


def remove_half_written(folder: Path) -> None:
    """Removes the half-written files of killed processes from a folder that semdpo made."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if _LEFTOVER.fullmatch(path.name) and path.is_file() and not path.is_symlink():
            path.unlink(missing_ok=True)


def sync(folder: Path) -> None:
    """Waits until a folder's files are on the disk, before the folder gets its final name.

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
    """Gives a finished folder its final name.

    Args:
        source: the finished folder.
        target: its final name; there may be an empty folder of that name.

    Raises:
        StoreError: files that semdpo did not make are in the way, or the folder above cannot be written.
    """
    refuse_foreign(target)
    try:
        source.replace(target)
    except OSError as error:
        raise unwritable(target, error) from error
    _sync_names(target.parent)


# ------------------------------------------------------------------------------------------------- own folders


def mark(folder: Path) -> None:
    """Marks a folder as made by semdpo, so that ``remove`` may remove it; a missing folder is made.

    Raises:
        StoreError: the folder holds files that semdpo did not make, or cannot be written.
    """
    if not was_made_by_semdpo(folder):
        refuse_foreign(folder)
        write_bytes(folder / MARK, MADE)


def was_made_by_semdpo(folder: Path) -> bool:
    """Whether a folder holds one of semdpo's marks; a symbolic link to a folder never counts."""
    if folder.is_symlink() or not folder.is_dir():
        return False
    if _is_file(folder / REWRITER) or (_is_file(folder / MARK) and "made by" in _object(folder / MARK)):
        return True
    return any(
        _is_file(folder / name) and {"config", "inputs", "versions"} <= _object(folder / name).keys() for name in _STAGE
    )


def refuse_foreign(path: Path) -> None:
    """Refuses a path where there is a file or folder that semdpo did not make; an empty folder passes.

    Raises:
        StoreError: there is one; the message names the cure.
    """
    if path.is_symlink():
        raise StoreError(f"{path} is a link, and semdpo removes or replaces nothing behind a link; remove it yourself")
    if path.exists() and not was_made_by_semdpo(path) and not (path.is_dir() and not any(path.iterdir())):
        raise StoreError(f"{path} was not made by semdpo and would be lost; move it, or choose another folder")


def remove(path: Path) -> None:
    """Removes a folder that semdpo made; symbolic links in it are removed, and their targets are not.

    The manifest is removed first, so that half a folder is never taken for a whole one. The marks are removed last,
    so that the rest of a folder can still be removed after a kill.

    Args:
        path: the folder, which may be missing or empty.

    Raises:
        StoreError: it is a link, was not made by semdpo, or cannot be removed.
    """
    refuse_foreign(path)
    if not path.exists():
        return
    try:
        if any(_is_file(path / name) for name in ("started.json", MARK, REWRITER)):
            (path / "manifest.json").unlink(missing_ok=True)
        marks = {MARK, REWRITER, *_STAGE}
        for entry in sorted(path.iterdir(), key=lambda entry: entry.name in marks):
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink(missing_ok=True)
        path.rmdir()
    except OSError as error:
        raise unwritable(path, error) from error


def remove_file(folder: Path, name: str) -> None:
    """Removes a file by its name in a folder, unless the name leads out of the folder.

    Args:
        folder: a folder that semdpo made.
        name: the file's path in the folder, with ``/``; it comes from a list that somebody may have edited.
    """
    path = folder / name
    parts = Path(name).parts
    inside = not Path(name).is_absolute() and ".." not in parts
    linked = any(folder.joinpath(*parts[:n]).is_symlink() for n in range(1, len(parts)))
    if inside and not linked and (path.is_file() or path.is_symlink()):
        path.unlink(missing_ok=True)


@contextmanager
def hold_lock(lock: Path, refusal: str) -> Iterator[None]:
    """Holds a lock file for this process.

    Args:
        lock: the lock file, which is not removed at the end.
        refusal: the message when another process holds the lock; ``{}`` in it becomes that process's id.

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
        process = holder.read_text().strip() if _is_file(holder) else ""
        raise StoreError(refusal.format(process if process.isdecimal() else "unknown")) from error
    except OSError as error:
        raise unwritable(lock.parent, error) from error
    try:
        write_bytes(holder, f"{os.getpid()}\n".encode())
        yield
    finally:
        with suppress(OSError):
            holder.unlink(missing_ok=True)
        file_lock.release()


def _is_file(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def _object(path: Path) -> dict[str, object]:
    """The JSON object in a file; empty where there is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


# ------------------------------------------------------------------------------------------------- failures


def unwritable(path: Path, error: Exception) -> StoreError:
    """The error for a file or folder that could not be written."""
    if out_of_space(error):
        return StoreError(NO_SPACE.format(path))
    reason = getattr(error, "strerror", None) or str(error)
    return StoreError(f"{path} cannot be written ({reason}); choose another folder or correct its permissions")


def out_of_space(error: BaseException) -> bool:
    """Whether a write failed because of a full disk, a quota or a size limit.

    The errors of safetensors and torch have no error number, so that their messages are searched.
    """
    full, message = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}, str(error)
    has_number = any(f"code: {number}," in message or f"os error {number}" in message for number in full)
    of_torch = isinstance(error, RuntimeError) and any(words in message for words in _TORCH_FAILED)
    return getattr(error, "errno", None) in full or has_number or of_torch or "No space left" in message


@contextmanager
def explain_full_disk(path: Path) -> Iterator[None]:
    """Turns the errors that libraries raise on a full disk into one sentence that names the cure.

    Args:
        path: the file or folder that is being written, for the message.

    Raises:
        StoreError: no space is left.
    """
    try:
        yield
    except Exception as error:
        if not isinstance(error, StoreError) and out_of_space(error):
            raise unwritable(path, error) from error
        raise


# ------------------------------------------------------------------------------------------------- paths


def is_dir(path: str | Path) -> bool:
    """Whether a path is a folder; False where the system refuses access."""
    try:
        return Path(path).is_dir()
    except (OSError, ValueError):
        return False


def is_file(path: str | Path) -> bool:
    """Whether a path is a file; False where the system refuses access."""
    try:
        return Path(path).is_file()
    except (OSError, ValueError):
        return False


def cache_folder() -> Path:
    """The folder of files that can be computed again: ``$SEMDPO_CACHE``, or the system's usual cache folder."""
    from platformdirs import user_cache_path

    given = os.environ.get(CACHE)
    return Path(given) if given else user_cache_path("semdpo", appauthor=False)


def refuse_unwritable(path: Path, *, folder: bool = False) -> None:
    """Refuses a path that cannot be written, before anything is loaded; no file or folder is made.

    Args:
        path: the file or folder that will be written; the folders above it need not exist.
        folder: whether it will be a folder.

    Raises:
        StoreError: a file is in the way, the name is too long, or permission is missing.
    """
    try:
        if path.is_dir() and not folder:
            raise StoreError(f"{path} is a folder; name a file in it")
        whole = path.absolute()
        above = next(place for place in (whole, *whole.parents) if (folder or place != whole) and place.exists())
    except (OSError, ValueError) as error:
        raise unwritable(path, error) from error
    if not above.is_dir():
        raise StoreError(f"{path} cannot be written because {above} is a file; choose another folder")
    if not os.access(above, os.W_OK | os.X_OK):
        raise StoreError(f"{path} cannot be written (no permission in {above}); choose another folder")
