"""How long stages took. Times lie in files of their own, for no result depends on them."""

from __future__ import annotations

import time
from pathlib import Path

from semdpo.disk import write_bytes
from semdpo.engine import store
from semdpo.errors import StoreError

FOREVER = 1e9  # seconds; thirty years


def seconds(folder: Path) -> float:
    """How long a stage worked, over all the times that it was resumed."""
    return _noted(folder / "timing.json")


def _noted(path: Path) -> float:
    """The seconds in a file; 0 where it says nothing of use, for no result depends on them."""
    try:
        found = store.read_json(path).get("seconds", 0.0)
    except StoreError:
        return 0.0
    return float(found) if isinstance(found, int | float) and 0 <= found < FOREVER else 0.0


def add_seconds(folder: Path, spent: float) -> None:
    """Adds to a stage's time."""
    write_bytes(folder / "timing.json", store.canonical({"seconds": round(seconds(folder) + spent, 3)}))


class Clock:
    """How long a model's training took, over all the times that it was resumed, even after a kill.

    Args:
        folder: of the model's stage; what earlier tries took is noted beside it.
    """

    def __init__(self, folder: Path) -> None:
        self._note, self._begun, self._noted = _beside(folder), time.monotonic(), 0.0
        self._before = _noted(self._note)

    @property
    def seconds(self) -> float:
        """Spent until now."""
        return self._before + time.monotonic() - self._begun

    def tick(self, every: float = 2.0) -> None:
        """Notes the time on disk, if ``every`` seconds have passed since it last did."""
        if time.monotonic() - self._noted >= every:
            write_bytes(self._note, store.canonical({"seconds": round(self.seconds, 3)}))
            self._noted = time.monotonic()

    def stop(self) -> None:
        """The training has ended: its folder has the time now."""
        self._note.unlink(missing_ok=True)


def _beside(folder: Path) -> Path:
    return store.partial(folder).with_name(f"{store.partial(folder).name}.seconds.json")
