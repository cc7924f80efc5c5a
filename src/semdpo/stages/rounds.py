"""The rounds after the first: the same stages again, with the rewriters that the round before trained.

In a later round a method's own rewriter writes the candidates, and its training starts there and refers to it, as in
iterative DPO (Xu et al. 2023, arXiv 2312.16682; Yuan et al. 2024, arXiv 2401.10020).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from semdpo.data.records import Curve
from semdpo.engine.stage import AnyStage, Run, Shard, TableStage
from semdpo.progress import Progress
from semdpo.recipe.rounds import LaterRound
from semdpo.recipe.schema import Recipe
from semdpo.stages import candidates, drift, label, pairs, render_budget, train


def stages(recipe: Recipe) -> list[AnyStage]:
    """The stages of all rounds after the first, round by round and method by method."""
    return [stage for each in recipe.later_rounds for stage in _of_round(recipe, each)]


def names_in(each: LaterRound) -> dict[str, str]:
    """The name of a stage of the first round → that of the stage that takes its place in a later one."""
    own = (candidates.NAME, render_budget.NAME, label.NAME, pairs.NAME, drift.NAME)
    return {name: f"{each.folder}/{name}" for name in own} | {
        "sft": each.before,
        train.name_of(each.method): each.trained,
    }


def _of_round(recipe: Recipe, each: LaterRound) -> list[AnyStage]:
    # The method's own rewriter writes the candidates, whoever wrote those of the first round.
    own = recipe.model_copy(update={"candidates": recipe.candidates.model_copy(update={"rewriter": None})})
    first: list[AnyStage] = [
        candidates.stage(own),
        *render_budget.stages(own, each.number),
        label.stage(own),
        pairs.stage(own),
        drift.stage(own),
        train.stage(own, train.name_of(each.method), each.name, recipe.train.methods[each.method]),
    ]
    return [_moved(stage, own, names_in(each)) for stage in first]


def _moved(stage: AnyStage, recipe: Recipe, names: Mapping[str, str]) -> AnyStage:
    """A stage of the first round as one of a later round: it reads and writes other folders, and does the same."""
    name, inputs = names[stage.name], tuple(names.get(name, name) for name in stage.inputs)

    def here(run: Run) -> Run:
        return replace(run, recipe=recipe, names=names)

    if isinstance(stage, TableStage):
        shards = stage.shards

        def work(run: Run) -> list[Shard]:
            return shards(here(run))

        return replace(stage, name=name, inputs=inputs, shards=work)
    begin = stage.train

    def training(run: Run, output: Path, progress: Progress) -> list[Curve]:
        return begin(here(run), output, progress)

    return replace(stage, name=name, inputs=inputs, train=training)
