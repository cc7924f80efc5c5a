"""What a stage is: its name, what determines its result, and the function that makes it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from semdpo.data.records import Curve
from semdpo.engine import store
from semdpo.engine.providers import Models
from semdpo.engine.shards import Shards
from semdpo.progress import Progress
from semdpo.recipe.schema import Recipe

T = TypeVar("T")
Made = tuple[Sequence[Any], Mapping[str, int]]


@dataclass(frozen=True)
class Run:
    """A run's folder, its recipe and its models."""

    folder: Path
    recipe: Recipe
    models: Models

    def rows(self, stage: str, kind: type[T], unread: Mapping[str, Any] | None = None) -> list[T]:
        """The records of a finished stage; see ``store.read_rows``."""
        return store.read_rows(self.folder / stage, kind, unread)

    def shards(self, stage: str, kind: type[T]) -> Shards[T]:
        """The records of a finished stage, to be read piece by piece."""
        return Shards(self.folder / stage, kind)


@dataclass(frozen=True)
class Shard:
    """One file of a stage: how many units of work it holds, and the function that makes its rows and counts."""

    size: int
    make: Callable[[Progress], Made]


@dataclass(frozen=True)
class TableStage:
    """A stage whose result is rows, made shard by shard.

    Attributes:
        name: its folder in the run.
        title: what it does, for people.
        config: everything of the recipe that its result depends on.
        inputs: the stages that it reads.
        outside: the files and models that it reads; name in the recipe to name of the thing.
        kind: the class of its rows.
        shards: the work, in order; models are loaded by the first shard that is made.
        line: stages that follow each other with one line are told to people as one.
    """

    name: str
    title: str
    config: Mapping[str, Any]
    inputs: tuple[str, ...]
    outside: Mapping[str, str]
    kind: type[Any]
    shards: Callable[[Run], list[Shard]]
    line: str = ""


@dataclass(frozen=True)
class ModelStage:
    """A stage whose result is a model's folder; attributes as in ``TableStage``.

    Attributes:
        train: writes the model into a folder and returns its curves.
    """

    name: str
    title: str
    config: Mapping[str, Any]
    inputs: tuple[str, ...]
    outside: Mapping[str, str]
    train: Callable[[Run, Path, Progress], list[Curve]]
    line: str = ""


AnyStage = TableStage | ModelStage


def line_of(stage: AnyStage) -> str:
    """What people are told of a stage's name."""
    return stage.line or stage.name


def batched(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """The items in groups of ``size``, the last one smaller."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def once(load: Callable[[], T]) -> Callable[[], T]:
    """Loads at the first call, so that a stage without work loads nothing."""
    loaded: list[T] = []

    def get() -> T:
        if not loaded:
            loaded.append(load())
        return loaded[0]

    return get
