"""Scores of images that earlier runs rendered, in one SQLite file in the cache folder.

A score's key is the SHA-256 of all that it depends on: the content of the renderer's and the scorer's files, their
settings, the libraries' versions, the device, the rewrite, the image seed and the prompt.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from semdpo.disk import cache_folder
from semdpo.engine import cache_file, store

Image = tuple[str, int, str]  # rewrite, image seed, prompt
Kept = tuple[float, bool]  # score, whether a text was truncated
NAME = "scores.sqlite"
AT_ONCE = 500  # SQLite allows about 1,000 values in a statement
_TABLE = "scores (key TEXT PRIMARY KEY, score REAL, truncated INTEGER)"


@dataclass(frozen=True)
class ScoreCache:
    """The scores that one scorer gave to images of one renderer.

    Attributes:
        depends_on: whatever the scores depend on besides the image's text, seed and prompt, as JSON values.
        path: the file; it is made when it does not exist.
    """

    depends_on: Mapping[str, Any]
    path: Path

    def get(self, images: Sequence[Image]) -> dict[Image, Kept]:
        """The scores that are there.

        Raises:
            StoreError: the file is damaged or cannot be read.
        """
        found: dict[Image, Kept] = {}
        by_key = {self._key(image): image for image in images}
        keys = list(by_key)
        with self._open() as file:
            for start in range(0, len(keys), AT_ONCE):
                chunk = keys[start : start + AT_ONCE]
                marks = ",".join("?" * len(chunk))
                for key, score, truncated in file.execute(f"SELECT * FROM scores WHERE key IN ({marks})", chunk):
                    found[by_key[key]] = float(score), bool(truncated)
        return found

    def put(self, scores: Mapping[Image, Kept]) -> None:
        """Adds scores.

        Raises:
            StoreError: the file is damaged or cannot be written.
        """
        rows = [(self._key(image), score, truncated) for image, (score, truncated) in scores.items()]
        with self._open() as file:
            file.executemany("INSERT OR REPLACE INTO scores VALUES (?, ?, ?)", rows)

    def _key(self, image: Image) -> str:
        return store.digest(store.canonical([self.depends_on, image]))

    def _open(self) -> AbstractContextManager[sqlite3.Connection]:
        return cache_file.opened(self.path, _TABLE, "scores", "label.reuse_scores")


def default_path() -> Path:
    """Where scores of all runs are kept."""
    return cache_folder() / NAME
