"""How a command writes a file: never over one of its own inputs, and it says when it replaces one."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from semdpo import disk
from semdpo.errors import ConfigError
from semdpo.progress import say


def refuse_inputs(path: Path, inputs: Iterable[str | Path | None]) -> None:
    """Refuses to write over a file that the command reads, even through a link or under another name.

    Args:
        path: The file that will be written.
        inputs: The files and folders that are read. None is skipped, and so are names such as ``tiny:…`` and ``hub:…``.

    Raises:
        ConfigError: The file is an input, contains one, or lies in one.
    """
    for source in inputs:
        if source is not None and not str(source).startswith(("tiny:", "hub:")) and _overlap(path, Path(source)):
            raise ConfigError(f"{path} would overwrite {source}, which is read; write to another file")


def _overlap(path: Path, source: Path) -> bool:
    target, place = Path(os.path.realpath(path)), Path(os.path.realpath(source))
    try:
        if target == place or place in target.parents:
            return True
        return path.exists() and (target in place.parents or (source.exists() and path.samefile(source)))
    except OSError:
        return False  # the code that reads or writes it will report the error


def write(path: Path, data: bytes) -> None:
    """Writes a file that the user named, and says whether it is new or was replaced.

    Raises:
        StoreError: The file cannot be written.
    """
    existed = path.exists()
    disk.write_bytes(path, data)
    say(f"replaced {path}" if existed else f"wrote {path}")
