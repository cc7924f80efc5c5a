"""Single files that are too large for memory: written under another name, renamed at the end."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from semdpo import disk
from semdpo.errors import StoreError

MADE = "semdpo.settings"  # a key in the first bytes of the files that are written here
_HEAD = 4096  # bytes in which the key stands


def refuse_foreign(path: Path) -> None:
    """Refuses a file to write if something that semdpo did not export exists there.

    Raises:
        StoreError: There is a folder, a link or another file, or the file cannot be written.
    """
    disk.refuse_unwritable(path)
    if path.is_symlink():
        raise StoreError(f"{path} is a link, and semdpo replaces nothing behind a link; remove it yourself")
    try:
        with path.open("rb") as file:
            ours = MADE.encode() in file.read(_HEAD)
    except FileNotFoundError:
        return
    except OSError as error:
        raise disk.unwritable(path, error) from error
    if not ours:
        raise StoreError(f"{path} was not exported by semdpo and would be lost; move it, or choose another file")


@contextmanager
def renamed_at_the_end(path: Path) -> Iterator[Path]:
    """The path of a temporary file next to ``path``, renamed to it on success and removed on failure.

    Args:
        path: The final file: absent, or exported by semdpo, in which case it is replaced.

    Raises:
        StoreError: Something else exists there, or no space is left.
    """
    refuse_foreign(path)
    temporary = path.with_name(f".{path.name[:100]}.{secrets.token_hex(8)}.tmp")
    try:
        with disk.explain_full_disk(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
    except OSError as error:
        raise disk.unwritable(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)
