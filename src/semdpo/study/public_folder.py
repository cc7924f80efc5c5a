"""Writes a folder that others will see: whole or not at all, and with one time of change for all files."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path

from semdpo import disk

TIME = 1_577_836_800  # of every file, seconds since 1970: a web host shows when a file was changed


def write_folder(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Writes the folder; one that semdpo made is replaced.

    Args:
        folder: the folder.
        contents: the file's path in the folder → its bytes.

    Raises:
        StoreError: the folder holds files that semdpo did not make, or cannot be written. Nothing is changed then.
    """
    disk.refuse_unwritable(folder, folder=True)
    disk.refuse_foreign(folder)
    made = folder.with_name(f".{folder.name}.{secrets.token_hex(8)}.partial")
    try:
        disk.mark(made)
        for name, data in contents.items():
            disk.write_bytes(made / name, data)
        for path in made.rglob("*"):
            os.utime(path, (TIME, TIME))
        disk.sync(made)
        disk.remove(folder)
        disk.rename(made, folder)
    except OSError as error:
        raise disk.unwritable(folder, error) from error
    finally:
        shutil.rmtree(made, ignore_errors=True)
