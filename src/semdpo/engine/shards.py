"""A finished stage's rows, read piece by piece, so that no more of a large table is in memory than is used."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import accumulate, groupby, pairwise
from pathlib import Path
from typing import Any, Generic, TypeVar

from semdpo.engine import fingerprint, parquet, store

T = TypeVar("T")


def by_prompt(prompt_ids: Iterable[str], size: int) -> list[tuple[int, int]]:
    """Where the rows of each group of ``size`` prompts begin and end; those of one prompt stand together.

    Args:
        prompt_ids: of all rows, in order.
        size: prompts of a group.
    """
    lengths = [len(list(rows)) for _, rows in groupby(prompt_ids)]
    ends = [sum(lengths[start : start + size]) for start in range(0, len(lengths), size)]
    return list(pairwise([0, *accumulate(ends)]))


class Shards(Generic[T]):
    """The files of a finished stage; each is held to the hash in the manifest whenever it is read.

    Args:
        folder: of the stage.
        kind: the records' class.

    Raises:
        StoreError: the stage is not finished, or its manifest is damaged. All methods: a file is not as it was written.
    """

    def __init__(self, folder: Path, kind: type[T]) -> None:
        self._folder, self._kind = folder, kind
        self._hashes: dict[str, str] = store.manifest(folder)["files"]
        self._names = sorted(self._hashes)

    @cached_property
    def sizes(self) -> list[int]:
        """How many rows each shard has."""
        return [parquet.counts(self._checked(index))["rows"] for index in range(len(self._names))]

    def read(self, index: int) -> list[T]:
        """The records of one shard."""
        return parquet.read_file(self._checked(index), self._kind)

    def between(self, start: int, stop: int) -> list[T]:
        """The records from row ``start`` up to, not including, row ``stop``, whichever shards they lie in."""
        return [
            row
            for index, (first, end) in enumerate(self._places())
            if first < stop and start < end
            for row in self.read(index)[max(start - first, 0) : stop - first]
        ]

    def column(self, name: str) -> Iterator[Any]:
        """The values of one column."""
        for index in range(len(self._names)):
            yield from parquet.read_column(self._checked(index), name)

    def cells(self, name: str, rows: Sequence[int]) -> list[Any]:
        """Values of one column, in ascending rows."""
        found: list[Any] = []
        for index, (first, end) in enumerate(self._places()):
            if own := [row - first for row in rows if first <= row < end]:
                found += parquet.read_cells(self._checked(index), name, own)
        return found

    def _places(self) -> Iterator[tuple[int, int]]:
        """Of each shard its first row, and the first of the next."""
        return pairwise([0, *accumulate(self.sizes)])

    def _checked(self, index: int) -> Path:
        path: Path = self._folder / self._names[index]
        if not path.is_file() or fingerprint.file(path) != self._hashes[path.name]:
            store.refuse_damage(self._folder)
        return path
