"""A finished stage's rows, read one shard at a time, so that a large table is never in memory as a whole."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import accumulate, groupby, pairwise
from pathlib import Path
from typing import Any, Generic, TypeVar

from semdpo.engine import fingerprint, parquet, store

T = TypeVar("T")


def by_prompt(prompt_ids: Iterable[str], size: int) -> list[tuple[int, int]]:
    """Splits rows into groups of prompts; the rows of one prompt stay together.

    Args:
        prompt_ids: the prompt ids of all rows, in order; equal ids follow each other.
        size: the number of prompts in a group.

    Returns:
        Each group's first row, and the first row after it.
    """
    lengths = [len(list(rows)) for _, rows in groupby(prompt_ids)]
    ends = [sum(lengths[start : start + size]) for start in range(0, len(lengths), size)]
    return list(pairwise([0, *accumulate(ends)]))


class Shards(Generic[T]):
    """The files of a finished stage; whenever a file is read, its hash is compared with the manifest.

    Args:
        folder: the stage's folder.
        kind: the records' class.

    Raises:
        StoreError: the stage is not finished, or its manifest is damaged. All methods raise it when a file has changed
            since it was written.
    """

    def __init__(self, folder: Path, kind: type[T]) -> None:
        self._folder, self._kind = folder, kind
        self._hashes: dict[str, str] = store.manifest(folder)["files"]
        self._names = sorted(self._hashes)

    @cached_property
    def sizes(self) -> list[int]:
        """The number of rows in each shard."""
        return [parquet.counts(self._intact_path(index))["rows"] for index in range(len(self._names))]

    def read(self, index: int) -> list[T]:
        """The records of one shard."""
        return parquet.read_file(self._intact_path(index), self._kind)

    def between(self, start: int, stop: int) -> list[T]:
        """The records from row ``start`` up to, not including, row ``stop``, counted over all shards."""
        return [
            row
            for index, (first, end) in enumerate(self._places())
            if first < stop and start < end
            for row in self.read(index)[max(start - first, 0) : stop - first]
        ]

    def column(self, name: str) -> Iterator[Any]:
        """The values of one column."""
        for index in range(len(self._names)):
            yield from parquet.read_column(self._intact_path(index), name)

    def cells(self, name: str, rows: Sequence[int]) -> list[Any]:
        """Values of one column in some rows.

        Args:
            name: the column's name.
            rows: the numbers of the rows, counted over all shards from 0, in ascending order.
        """
        cells: list[Any] = []
        for index, (first, end) in enumerate(self._places()):
            if in_shard := [row - first for row in rows if first <= row < end]:
                cells += parquet.read_cells(self._intact_path(index), name, in_shard)
        return cells

    def _places(self) -> Iterator[tuple[int, int]]:
        """Each shard's first row, and the first row after it."""
        return pairwise([0, *accumulate(self.sizes)])

    def _intact_path(self, index: int) -> Path:
        """The file of a shard; refused where it has changed since it was written."""
        path: Path = self._folder / self._names[index]
        if not path.is_file() or fingerprint.file(path) != self._hashes[path.name]:
            store.refuse_damaged_stage(self._folder)
        return path
