"""Where a command writes: looked at before any work, never one of its own inputs, and a replaced file is mentioned."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from semdpo import disk
from semdpo.errors import ConfigError, StoreError
from semdpo.progress import say


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
        raise disk.unwritable(path, error) from error
    if not above.is_dir():
        raise StoreError(f"{path} cannot be written, for {above} is a file; choose another folder")
    if not os.access(above, os.W_OK | os.X_OK):
        raise StoreError(f"{path} cannot be written (no permission in {above}); choose another folder")


def refuse_inputs(path: Path, inputs: Iterable[str | Path | None]) -> None:
    """Refuses to write over what the command reads.

    Args:
        path: of the file that will be written.
        inputs: files and folders that are read; None is none.

    Raises:
        ConfigError: it is one of them, or lies in one of them.
    """
    target = path.resolve()
    for each in inputs:
        if each is not None and target in (read := Path(each).resolve(), *read.parents) and path.exists():
            raise ConfigError(f"{path} would be written over {each}, which is read; choose another name")


def write(path: Path, data: bytes) -> None:
    """Writes a file that the user named, and says that it did; one that was there is replaced.

    Raises:
        StoreError: it cannot be written.
    """
    before = path.exists()
    disk.write_bytes(path, data)
    say(f"replaced {path}" if before else f"wrote {path}")
