"""A finished stage's rows, read one shard at a time, so that a large table is never in memory as a whole."""

from __future__ import annotations

from bisect import bisect_right
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
    ends, rows = [0], 0
    for number, (_, of_prompt) in enumerate(groupby(prompt_ids), start=1):
        rows += sum(1 for _ in of_prompt)
        if number % size == 0:
            ends.append(rows)
    return list(pairwise(ends if ends[-1] == rows else [*ends, rows]))


def in_groups(values: Iterable[str], wanted: str, size: int) -> list[tuple[int, int]]:
    """Splits the rows that have a value in one column into groups.

    Args:
        values: the values of all rows, in order; equal values follow each other.
        wanted: the value.
        size: the number of rows in a group.

    Returns:
        Each group's first row, and the first row after it.

    Raises:
        ValueError: rows with the value do not follow each other.
    """
    groups, first = list[tuple[int, int]](), 0
    for value, rows in groupby(values):
        count = sum(1 for _ in rows)
        if value == wanted:
            if groups:
                raise ValueError(f"the rows with {wanted!r} do not follow each other")
            groups = [(row, min(row + size, first + count)) for row in range(first, first + count, size)]
        first += count
    return groups


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
        self._names = parquet.shard_names(self._hashes)
        self._latest: tuple[int, list[T]] = -1, []  # the shard that ``between`` read last

    @cached_property
    def sizes(self) -> list[int]:
        """The number of rows in each shard."""
        return [parquet.counts(self._intact_path(index))["rows"] for index in range(len(self._names))]

    def read(self, index: int) -> list[T]:
        """The records of one shard."""
        return parquet.read_file(self._intact_path(index), self._kind)

    def between(self, start: int, stop: int) -> list[T]:
        """The records from row ``start`` up to, not including, row ``stop``, counted over all shards."""
        found: list[T] = []
        for index in range(bisect_right(self._ends, start), len(self._names)):
            first = self._ends[index] - self.sizes[index]
            if first >= stop:
                break
            if index != self._latest[0]:  # the next rows often lie in the same shard
                self._latest = -1, []  # before the next one needs the memory
                self._latest = index, self.read(index)
            found += self._latest[1][max(start - first, 0) : stop - first]
        return found

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
        for index, (first, end) in enumerate(pairwise([0, *self._ends])):
            if in_shard := [row - first for row in rows if first <= row < end]:
                cells += parquet.read_cells(self._intact_path(index), name, in_shard)
        return cells

    @cached_property
    def _ends(self) -> list[int]:
        """The first row after each shard."""
        return list(accumulate(self.sizes))

    def _intact_path(self, index: int) -> Path:
        """The file of a shard; refused where it has changed since it was written."""
        path: Path = self._folder / self._names[index]
        if not path.is_file() or fingerprint.file(path) != self._hashes[path.name]:
            store.refuse_damaged_stage(self._folder)
        return path
