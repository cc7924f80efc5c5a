"""Who rewrites, renders and scores for a run in place of its own process: other processes, or a Ray cluster."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from semdpo.engine import store
from semdpo.engine.making import encoded
from semdpo.engine.providers import Models, own_models
from semdpo.engine.ray_workers import RayWorkers
from semdpo.engine.stage import AnyStage, Run, Shard, TableStage
from semdpo.engine.workers import Workers, Workforce, gpus
from semdpo.errors import ConfigError, ModelError, StoreError
from semdpo.progress import quiet_libraries, silent
from semdpo.recipe.schema import Recipe


@dataclass(frozen=True)
class Opener:
    """What a worker gets: from it, the function that makes a shard's bytes, and with how many threads.

    Attributes:
        folder: the run's folder.
        recipe: the run's recipe.
        models: functions that load the run's models; None takes semdpo's own.
        flow: gives the recipe's stages.
        home: the working directory of the run's first process, where the worker may be on another machine.
    """

    folder: Path
    recipe: Recipe
    models: Models | None
    flow: Callable[[Recipe], list[AnyStage]]
    home: Path | None = None

    def __call__(self) -> Callable[[str, int], tuple[bytes, int]]:
        """Opens the run. Each stage's models are loaded when the first of its shards is asked for."""
        quiet_libraries()
        if self.home is not None and self.home.is_dir():
            os.chdir(self.home)  # the recipe may name models by paths from there
        run = Run(self.folder, self.recipe, self.models or own_models(self.recipe.scoring.allow_remote_code))
        tables = {stage.name: stage for stage in self.flow(self.recipe) if isinstance(stage, TableStage)}
        opened: dict[str, list[Shard]] = {}

        def make(name: str, index: int) -> tuple[bytes, int]:
            if name not in opened:
                opened.clear()  # and with it the models of the stage before
                if self.home is not None:
                    _refuse_other_machine(tables[name], run)
                opened[name] = tables[name].shards(run)
            return encoded(tables[name], opened[name][index], silent)

        return make


def workforce(
    count: int | None, opener: Opener, stages: Sequence[AnyStage]
) -> AbstractContextManager[Workforce | None]:
    """The workers that the recipe's ``engine`` asks for; they start with the first shard.

    Args:
        count: the number of workers. None is none on this machine, and as many as a Ray cluster has room for.
        opener: what each worker gets.
        stages: the stages that are to be made.

    Raises:
        ConfigError: the number is less than 1.
    """
    if count is not None and count < 1:
        raise ConfigError(f"workers is {count}; it must be a number ≥ 1")
    if opener.recipe.engine == "local":
        return nullcontext() if count is None else Workers(count, opener, gpus())
    settings = opener.recipe.ray
    scoring = settings.gpus if settings.score_gpus is None else settings.score_gpus
    pools = {stage.name: stage.pool for stage in stages if isinstance(stage, TableStage) and stage.pool is not None}
    needed = {name: scoring if pool == "score" else settings.gpus for name, pool in pools.items()}
    if not needed:  # a cluster would have nothing to do
        return nullcontext()
    return RayWorkers(count, replace(opener, folder=opener.folder.absolute(), home=Path.cwd()), needed)


def _refuse_other_machine(stage: TableStage, run: Run) -> None:
    """Refuses a machine that has another folder, other libraries or other models than the run's first process.

    The first process has noted all of them in the stage's folder. Equal manifests mean equal files of the stage's
    inputs, which need not be read again.
    """
    here = platform.node()
    started = store.read_json(run.folder / stage.name / "started.json")
    manifests = [run.folder / name / "manifest.json" for name in stage.inputs]
    noted = [started.get("inputs", {}).get(name) for name in stage.inputs]
    if not started or [store.digest(path.read_bytes()) for path in manifests if path.is_file()] != noted:
        raise StoreError(
            f"{run.folder} on the machine {here} is not the run's folder; put the run into a folder that all machines "
            "of the cluster share, under one path"
        )
    for name in started["versions"].keys() | store.versions().keys():
        there, own = started["versions"].get(name, "absent"), store.versions().get(name, "absent")
        if there != own:
            raise ConfigError(
                f"{name} is {own} on the machine {here} and {there} where the run was started; install the same "
                "libraries on all machines of the cluster"
            )
    for key, name in stage.outside.items():
        if run.models.fingerprint(name) != started["inputs"].get(key):
            raise ModelError(
                f"{key}: {name} has other files on the machine {here} than where the run was started; copy them, or "
                "put them into a folder that all machines of the cluster share"
            )
