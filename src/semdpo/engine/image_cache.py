"""Images that earlier runs rendered, without loss, in one SQLite file in the cache folder.

A batch's key is the SHA-256 of all that its images depend on: the content of the renderer's files, its settings, the
libraries' versions, the device, the number of threads, and the texts and image seeds of the whole batch, because an
image's last digits depend on those beside it. So an image from here has the bytes that it would be rendered with.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from semdpo.disk import cache_folder
from semdpo.engine import cache_file, store
from semdpo.models.images import decode, lossless

if TYPE_CHECKING:
    from PIL import Image

Row = tuple[str, int]  # text, image seed
NAME = "images.sqlite"
_TABLE = (
    "images (batch TEXT, place INTEGER, image BLOB, error TEXT, too_long INTEGER, sha256 TEXT, "
    "PRIMARY KEY (batch, place))"
)


@dataclass(frozen=True, slots=True)
class Rendered:
    """The image of a text, or why it has none, and whether the text is longer than the renderer reads."""

    image: Image.Image | None
    error: str | None
    too_long: bool


@dataclass(frozen=True)
class ImageCache:
    """The images of one renderer.

    Attributes:
        depends_on: whatever the images depend on besides their batch's texts and seeds, as JSON values.
        path: the file; it is made when it does not exist.
        most: the bytes that the images of all renderers may take; the oldest are removed first.
    """

    depends_on: Mapping[str, Any]
    path: Path
    most: float

    def get(self, rows: Sequence[Row]) -> list[Rendered] | None:
        """The images of a batch; None where one is missing or damaged, so that the batch is rendered again.

        Raises:
            StoreError: the file is damaged or cannot be read.
        """
        batch = self._key(rows)
        with self._open() as file:
            found = file.execute(
                "SELECT CAST(image AS BLOB), error, too_long, sha256 FROM images WHERE batch = ? ORDER BY place",
                [batch],
            ).fetchall()
        whole = all(sha == _seal(batch, place, kept) for place, (*kept, sha) in enumerate(found))
        if not whole or len(found) != len(rows):
            return None
        return [
            Rendered(None if data is None else decode(data), error, bool(too_long))
            for data, error, too_long, _ in found
        ]

    def put(self, rows: Sequence[Row], images: Sequence[Rendered]) -> None:
        """Adds the images of a batch, [n] as its rows, in place of damaged ones.

        Raises:
            StoreError: the file is damaged or cannot be written.
        """
        batch = self._key(rows)
        kept = [[None if i.image is None else lossless(i.image), i.error, int(i.too_long)] for i in images]
        added = [(batch, place, *row, _seal(batch, place, row)) for place, row in enumerate(kept)]
        with self._open() as file:
            file.execute("DELETE FROM images WHERE batch = ?", [batch])
            file.executemany("INSERT INTO images VALUES (?, ?, ?, ?, ?, ?)", added)
            while _size(file) > self.most and (oldest := file.execute(_OLDEST).fetchone()) is not None:
                file.execute("DELETE FROM images WHERE batch = ?", oldest)

    def _key(self, rows: Sequence[Row]) -> str:
        return store.digest(store.canonical([self.depends_on, rows]))

    def _open(self) -> AbstractContextManager[sqlite3.Connection]:
        return cache_file.opened(self.path, _TABLE, "images", "label.reuse_images")


_OLDEST = "SELECT batch FROM images ORDER BY rowid LIMIT 1"


def _seal(batch: str, place: int, kept: Sequence[Any]) -> str:
    image, error, too_long = kept
    return store.digest(repr((batch, place, None if image is None else store.digest(image), error, too_long)).encode())


def _size(file: sqlite3.Connection) -> int:
    """The bytes that a file's rows take; the pages of removed rows are used again."""
    pages, free, size = (
        file.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - free) * size)


def default_path() -> Path:
    """Where images of all runs are kept."""
    return cache_folder() / NAME
