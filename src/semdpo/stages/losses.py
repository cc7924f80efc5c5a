"""Stage 8: the loss of a trained rewriter on every training pair, which Proposition 1 bounds."""

from __future__ import annotations

from functools import cache, partial
from typing import TYPE_CHECKING

from semdpo.data.records import Pair, PairLoss
from semdpo.engine.stage import Made, Run, Shard, TableStage
from semdpo.progress import Progress
from semdpo.recipe.objectives import ObjectiveSettings
from semdpo.recipe.schema import Recipe

if TYPE_CHECKING:
    from semdpo.training.losses import Losses


def stage(recipe: Recipe, method: str, objective: ObjectiveSettings) -> TableStage:
    """The stage that computes a method's losses.

    Args:
        recipe: the recipe that trains the method.
        method: the method's name.
        objective: the settings of the method's objective.
    """
    beta, trained = objective.beta or recipe.train.beta, f"train/{method}"

    def work(run: Run) -> list[Shard]:
        pairs = run.shards("drift", Pair)

        @cache
        def losses() -> Losses:
            from semdpo.training.losses import losses_of  # here, since it imports torch

            policy, reference = str(run.folder / trained), str(run.folder / "sft")
            parts = (pairs.read(index) for index in range(len(pairs.sizes)))
            return losses_of(parts, policy, reference, beta, run.recipe.train, run.folder / "reference")

        def make(index: int, progress: Progress) -> Made:
            shard = pairs.read(index)
            return losses()(shard, progress) if shard else [], {}

        return [Shard(size, partial(make, index)) for index, size in enumerate(pairs.sizes)]

    shared = recipe.train.model_dump(mode="json", include={"template", "system", "precision", "max_length"})
    inputs = ("sft", "drift", trained)
    return TableStage(f"losses/{method}", "computing losses", shared | {"beta": beta}, inputs, {}, PairLoss, work)
