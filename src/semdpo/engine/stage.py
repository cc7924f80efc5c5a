"""What a stage is: its name, what its result depends on, and the function that makes the result."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from semdpo.data.records import Curve
from semdpo.engine import store
from semdpo.engine.claims import Claims
from semdpo.engine.mirror import Mirror
from semdpo.engine.providers import Models
from semdpo.engine.shards import Shards
from semdpo.engine.workers import Workforce
from semdpo.progress import Progress
from semdpo.recipe.schema import Recipe

T = TypeVar("T")
Made = tuple[Sequence[Any], Mapping[str, int]]
Pool = Literal["render", "score"]


@dataclass(frozen=True)
class Run:
    """A run's folder, its recipe and its models.

    Attributes:
        workers: processes that make the shards of stages with a pool; None makes them in this one.
        claims: what divides the work among processes that share the folder; None where this one has it alone.
        mirror: what gets the files that are final, besides the folder.
        names: a stage's name in the first round → the stage that takes its place in this one; see ``stages.rounds``.
    """

    folder: Path
    recipe: Recipe
    models: Models
    workers: Workforce | None = None
    claims: Claims | None = None
    mirror: Mirror = field(default_factory=Mirror)
    names: Mapping[str, str] = field(default_factory=dict)

    def path(self, stage: str) -> Path:
        """The folder of a stage."""
        return self.folder / self.names.get(stage, stage)

    def rows(self, stage: str, kind: type[T], unread: Mapping[str, Any] | None = None) -> list[T]:
        """The records of a finished stage; see ``store.read_rows``."""
        return store.read_rows(self.path(stage), kind, unread)

    def shards(self, stage: str, kind: type[T]) -> Shards[T]:
        """The records of a finished stage, to be read one shard at a time."""
        return Shards(self.path(stage), kind)


@dataclass(frozen=True)
class Shard:
    """One file of a stage.

    Attributes:
        size: the number of its units of work, for the progress that is shown.
        make: makes its rows and counts; it calls the ``Progress`` that it gets.
    """

    size: int
    make: Callable[[Progress], Made]


@dataclass(frozen=True)
class TableStage:
    """A stage whose result is rows, made shard by shard.

    Attributes:
        name: the stage's folder in the run.
        title: what the stage does, as the progress bar shows it.
        config: all settings of the recipe that the result depends on.
        inputs: the names of the stages that it reads.
        outside: key in the recipe → the file or model that the stage reads.
        kind: the class of its rows.
        shards: gives the work of a run, in order; the first shard that is made loads the models.
        shown_as: the name that the run prints instead of ``name``; consecutive stages with one such name are shown as
            one.
        pool: the workers that make its shards, where there are any: those that rewrite and render, or those that only
            score images; None: its shards take no time, and the first process makes them.
        remark: gives a sentence to print after the stage, from its counts; empty where there is nothing to say.
    """

    name: str
    title: str
    config: Mapping[str, Any]
    inputs: tuple[str, ...]
    outside: Mapping[str, str]
    kind: type[Any]
    shards: Callable[[Run], list[Shard]]
    shown_as: str = ""
    pool: Pool | None = None
    remark: Callable[[Mapping[str, int]], str] | None = None


@dataclass(frozen=True)
class ModelStage:
    """A stage whose result is a model's folder; the other attributes are those of ``TableStage``.

    Attributes:
        train: writes the model into a folder, and returns the training curves.
    """

    name: str
    title: str
    config: Mapping[str, Any]
    inputs: tuple[str, ...]
    outside: Mapping[str, str]
    train: Callable[[Run, Path, Progress], list[Curve]]
    shown_as: str = ""


AnyStage = TableStage | ModelStage


def shown_name(stage: AnyStage) -> str:
    """The name under which a run shows a stage."""
    return stage.shown_as or stage.name
