"""Where a command writes: never over one of its own inputs, and a replaced file is mentioned."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from semdpo import disk
from semdpo.errors import ConfigError
from semdpo.progress import say


def refuse_inputs(path: Path, inputs: Iterable[str | Path | None]) -> None:
    """Refuses to write over what the command reads, by whatever name or link.

    Args:
        path: of the file that will be written.
        inputs: files and folders that are read; None is none, and names of the tiny world or the hub are no files.

    Raises:
        ConfigError: it is one of them, holds one of them, or lies in one of them.
    """
    for each in inputs:
        if each is not None and not str(each).startswith(("tiny:", "hub:")) and _overlap(path, Path(each)):
            raise ConfigError(f"{path} would overwrite {each}, which is read; write to another file")


def _overlap(path: Path, read: Path) -> bool:
    target, place = Path(os.path.realpath(path)), Path(os.path.realpath(read))
    try:
        if target == place or place in target.parents:
            return True
        return path.exists() and (target in place.parents or (read.exists() and path.samefile(read)))
    except OSError:
        return False  # whatever reads or writes it says what is wrong


def write(path: Path, data: bytes) -> None:
    """Writes a file that the user named, and says that it did; one that was there is replaced.

    Raises:
        StoreError: it cannot be written.
    """
    before = path.exists()
    disk.write_bytes(path, data)
    say(f"replaced {path}" if before else f"wrote {path}")
