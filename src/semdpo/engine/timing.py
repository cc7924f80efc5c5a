"""How long stages took. Times are stored in files of their own, because no result depends on them."""

from __future__ import annotations

import time
from pathlib import Path

from semdpo.disk import write_bytes
from semdpo.engine import model_folders, store
from semdpo.errors import StoreError

FOREVER = 1e9  # seconds; thirty years


def seconds(folder: Path) -> float:
    """How long a stage took, in seconds, the times before it was resumed included."""
    return _noted(folder / store.TIMING)


def _noted(path: Path) -> float:
    """The seconds in a file; 0 where it is missing or damaged, because no result depends on them."""
    try:
        spent = store.read_json(path).get("seconds", 0.0)
    except StoreError:
        return 0.0
    return float(spent) if isinstance(spent, int | float) and 0 <= spent < FOREVER else 0.0


def note_seconds(folder: Path, spent: float) -> None:
    """Notes how long a stage of a model took, in seconds; ``shard_files.finish`` does it for a stage of rows."""
    write_bytes(folder / store.TIMING, store.canonical({"seconds": round(spent, 3)}))


class Clock:
    """Measures how long a model's training takes, the times before it was resumed or killed included.

    Args:
        folder: the model's final folder; the time of earlier attempts is noted in a file next to it.
    """

    def __init__(self, folder: Path) -> None:
        self._note, self._begun, self._noted = model_folders.time_note(folder), time.monotonic(), 0.0
        self._before = _noted(self._note)

    @property
    def seconds(self) -> float:
        """The time spent so far."""
        return self._before + time.monotonic() - self._begun

    def tick(self, every: float = 2.0) -> None:
        """Notes the time on disk, if ``every`` seconds have passed since the last note."""
        if time.monotonic() - self._noted >= every:
            write_bytes(self._note, store.canonical({"seconds": round(self.seconds, 3)}))
            self._noted = time.monotonic()
