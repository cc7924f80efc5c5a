"""Claims: how several processes, on one machine or on many, divide the work of a run whose folder they share.

A claim is a file that names the process that holds it. Each process touches a file of its own every few seconds; when
that file has grown old, the process is dead, and its claims lapse. The file system's clock alone is read, because the
clocks of machines differ. Claims only save work: two processes that make one shard write the same bytes.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
import secrets
import shutil
import socket
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from semdpo.disk import unwritable
from semdpo.errors import ConfigError

FOLDER = ".claims"  # in the run's folder
SILENCE = "SEMDPO_CLAIM_SECONDS"  # environment variable: after how many seconds of silence a process is dead
DEFAULT_SILENCE = 60.0
_NAME = re.compile(r"[\w.-]{1,200}", re.ASCII)  # of a process
BEATS = 12  # how often a process touches its file before it would be taken for dead


class Claims:
    """The claims of this process; they are given back at the end of the ``with`` block.

    Args:
        run: the run's folder.
        part: which of the processes this is, counted from 1; it begins at its own part of the shards, so that
            processes seldom want the same one.
        parts: how many processes there are. Fewer do all the work too.
    """

    def __init__(self, run: Path, part: int, parts: int) -> None:
        self._folder, self._part, self._parts = run / FOLDER, part, parts
        host = re.sub(r"[^\w.-]", "-", socket.gethostname(), flags=re.ASCII)[:100]
        self._name = f"{host}-{os.getpid()}-{secrets.token_hex(4)}"
        self._sign = self._folder / f"{self._name}.alive"
        self._silence = _silence()
        self._held: dict[tuple[str, int], Path] = {}
        self._over = threading.Event()
        self._heart = threading.Thread(target=self._beat, name="semdpo-claims", daemon=True)

    def __enter__(self) -> Self:
        """Shows that this process lives."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._sign.touch()
        except OSError as error:
            raise unwritable(self._folder, error) from error
        self._heart.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Gives all claims back."""
        self._over.set()
        self._heart.join()
        for stage, index in list(self._held):
            self.release(stage, index)
        with suppress(OSError):
            self._sign.unlink(missing_ok=True)

    def in_order(self, indices: Sequence[int], total: int) -> list[int]:
        """The shards in the order in which this process tries them: from its own part on.

        Args:
            indices: the shards that are missing.
            total: the number of all shards.
        """
        first = (self._part - 1) * total // self._parts
        return sorted(indices, key=lambda index: (index - first) % total)

    def take(self, stage: str, index: int) -> bool:
        """Claims a shard, unless a living process holds it, this one included.

        A dead process is followed by exactly one other: the name of the claim that follows comes from the dead one's.

        Args:
            stage: the stage's name.
            index: the shard, counted from 0; 0 for a whole stage.

        Raises:
            StoreError: the folder cannot be written.
        """
        path = self._folder / stage.replace("/", "%") / f"{index}"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            while not self._created(path):
                holder = _holder(path)
                if holder is None:  # it was given back a moment ago
                    continue
                if self._lives(self._folder / f"{holder}.alive" if holder else path):
                    return False
                path = _follower(path, holder)
        except OSError as error:
            raise unwritable(path, error) from error
        self._held[stage, index] = path
        return True

    def release(self, stage: str, index: int) -> None:
        """Gives a claim back; what is finished, nobody claims again."""
        with suppress(OSError):
            self._held.pop((stage, index)).unlink(missing_ok=True)

    def has_lost(self, stage: str, index: int) -> bool:
        """Whether another process took a claim over, because this one was silent for too long."""
        path = self._held[stage, index]
        return _holder(path) != self._name or _follower(path, self._name).exists()

    def wait(self) -> None:
        """Waits a moment for what others make."""
        time.sleep(min(1.0, self._silence / BEATS))

    def _created(self, path: Path) -> bool:
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        except FileExistsError:
            return False
        with os.fdopen(handle, "w") as file:
            file.write(self._name)
        return True

    def _lives(self, sign: Path) -> bool:
        """Whether a file was touched lately."""
        self._sign.touch()
        with suppress(FileNotFoundError):
            return self._sign.stat().st_mtime - sign.stat().st_mtime < self._silence
        return False

    def _beat(self) -> None:
        while not self._over.wait(self._silence / BEATS):
            with suppress(OSError):  # a disk that does not answer for a while
                self._sign.touch()


def _holder(path: Path) -> str | None:
    """The process that holds a claim: empty until it has written its name or where that is damaged, None is nobody."""
    try:
        name = path.read_text(encoding="ascii", errors="replace")
    except FileNotFoundError:
        return None
    return name if _NAME.fullmatch(name) else ""


def _follower(path: Path, holder: str) -> Path:
    """The claim of the process that follows a dead one."""
    index, _, _ = path.name.partition(".")
    chain = hashlib.sha256(f"{path.name} {holder}".encode()).hexdigest()  # of one length, however many have died
    return path.with_name(f"{index}.{chain[:32]}")


def _silence() -> float:
    given = os.environ.get(SILENCE, "")
    try:
        seconds = float(given) if given else DEFAULT_SILENCE
    except ValueError:
        seconds = math.nan
    if not 1 <= seconds <= 86400:
        raise ConfigError(f"{SILENCE} is {given!r}; it must be a number of seconds from 1 to 86400")
    return seconds


def remove(run: Path) -> None:
    """Removes the claims of processes that have died, from a run that this process has for itself."""
    shutil.rmtree(run / FOLDER, ignore_errors=True)
