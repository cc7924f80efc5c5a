"""Whether something lies at a path, where the path is whatever a user wrote: too long a name is nowhere."""

from __future__ import annotations

from pathlib import Path


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
