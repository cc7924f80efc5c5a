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
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, BinaryIO

from semdpo.errors import StoreError

MARK = ".semdpo.json"  # the mark of a folder that holds no stage, such as a training's
MADE = b'{"made by": "semdpo"}\n'
REWRITER = "semdpo.json"  # the mark of a trained rewriter's folder
_STAGE = ("started.json", "manifest.json")
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.:-]+):/{1,3}([^/].*)")
_LEFTOVER = re.compile(r"\..+\.[0-9a-f]{16}\.tmp")
CACHE = "SEMDPO_CACHE"  # environment variable: the folder of files that can be computed again
NO_FILE = "it is a pipe or a device, not a file"
LARGE = 2**30  # bytes from which a file's size is compared with the free memory before it is read
NO_SPACE = "there is no space left to write {}; free some space, then run the same command again"
COPY_FIRST = "is not on this machine; copy it here with the storage's own tools, and give the copy"
# What torch reports when a file could not be written whole; it does not pass on the system's reason.
_TORCH_FAILED = ("unexpected pos", "PytorchStreamWriter failed writing", "iostream error")


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """Opens a file to read it. A pipe or a device is refused, because reading it may never end.

    Args:
        path: the file, or a link to one.

    Raises:
        OSError: the file cannot be read, or is no ordinary file.
    """
    with open(path, "rb", opener=_without_waiting) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, NO_FILE, str(path))
        yield file


def read(path: Path, most: int | None = None) -> bytes:
    """The content of a file. A pipe or a device is refused, because reading it may never end.

    Args:
        path: the file, or a link to one.
        most: the number of bytes after which reading ends; None reads the whole file.

    Raises:
        OSError: the file cannot be read, is no ordinary file, or is larger than the free memory.
    """
    with opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        if most is None and size > LARGE:
            import psutil

            if size > psutil.virtual_memory().available:
                raise OSError(errno.ENOMEM, f"its {size / 1e9:,.1f} GB do not fit into memory", str(path))
        return file.read(-1 if most is None else most)


def _without_waiting(path: str, flags: int) -> int:
    """Opens a file; a pipe too is opened at once, where others would wait for somebody who writes into it."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


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
    with whole_file(path) as file:
        file.write(data)


@contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """A file to write piece by piece; it gets its name at the end of the block, and is removed where that fails.

    Args:
        path: the file, as for ``write_bytes``.

    Raises:
        StoreError: no space is left, or the folder cannot be written.
    """
    temporary = path.with_name(f".{path.name[:100]}.{secrets.token_hex(8)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0), 0o666)
        try:
            with os.fdopen(handle, "wb") as file:
                yield file
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
    """Removes the half-written files of killed processes from a folder that semdpo made, and from those in it."""
    for place, _, names in os.walk(folder):
        for path in (Path(place, name) for name in names if _LEFTOVER.fullmatch(name)):
            if _is_file(path):
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

    A folder passes, too, in which another process is just writing the mark.

    Raises:
        StoreError: there is one; the message names the cure.
    """
    if path.is_symlink():
        raise StoreError(f"{path} is a link, and semdpo removes or replaces nothing behind a link; remove it yourself")
    if path.exists() and not (path.is_dir() and _is_empty(path)) and not was_made_by_semdpo(path):
        raise StoreError(f"{path} was not made by semdpo and would be lost; move it, or choose another folder")


def _is_empty(folder: Path) -> bool:
    return all(_LEFTOVER.fullmatch(entry.name) for entry in folder.iterdir())


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


def _is_file(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def _object(path: Path) -> dict[str, object]:
    """The JSON object in a file; empty where there is none."""
    try:
        content = json.loads(read(path).decode())
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


def address(path: str | Path) -> str | None:
    """The address of an object storage, such as ``s3://bucket/my-run``; None for a path of this machine.

    Args:
        path: a path or an address; ``Path("s3://bucket/my-run")``, which has lost a slash, is an address too.
    """
    found = _ADDRESS.fullmatch(str(path))
    return f"{found[1].lower()}://{found[2]}" if found else None


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
        StoreError: a file, a pipe or a device is in the way, the name is too long, permission is missing, or it is no
            path of this machine.
    """
    if (elsewhere := address(path)) is not None:
        raise StoreError(
            f"{elsewhere} is not on this machine, and only runs can be stored elsewhere; choose a path here, and copy "
            "it with the storage's own tools"
        )
    try:
        if path.is_dir() and not folder:
            raise StoreError(f"{path} is a folder; name a file in it")
        if path.exists() and not path.is_file() and not path.is_dir():
            raise StoreError(f"{path} cannot be written ({NO_FILE}); choose another file")
        whole = path.absolute()
        above = next(place for place in (whole, *whole.parents) if (folder or place != whole) and place.exists())
    except (OSError, ValueError) as error:
        raise unwritable(path, error) from error
    if not above.is_dir():
        raise StoreError(f"{path} cannot be written because {above} is a file; choose another folder")
    if not os.access(above, os.W_OK | os.X_OK):
        raise StoreError(f"{path} cannot be written (no permission in {above}); choose another folder")
