"""Stage 8: the loss of a trained rewriter on every training pair, which Proposition 1 bounds."""

from __future__ import annotations

from semdpo.data.records import Pair, PairLoss
from semdpo.engine.stage import Made, Run, Shard, TableStage
from semdpo.progress import Progress
from semdpo.recipe.objectives import ObjectiveSettings
from semdpo.recipe.schema import Recipe


def stage(recipe: Recipe, method: str, objective: ObjectiveSettings) -> TableStage:
    """The stage that computes a method's losses.

    Args:
        recipe: the recipe that trains the method.
        method: the method's name.
        objective: the settings of the method's objective.
    """
    beta, trained = objective.beta or recipe.train.beta, f"train/{method}"

    def work(run: Run) -> list[Shard]:
        from semdpo.training.losses import pair_losses  # here, since it imports torch

        def make(progress: Progress) -> Made:
            policy, reference = str(run.folder / trained), str(run.folder / "sft")
            pairs, cache = run.rows("drift", Pair), run.folder / "reference"
            return pair_losses(pairs, policy, reference, beta, run.recipe.train, cache, progress), {}

        return [Shard(1, make)]

    shared = recipe.train.model_dump(mode="json", include={"template", "precision", "max_length"})
    inputs = ("sft", "drift", trained)
    return TableStage(f"losses/{method}", "computing losses", shared | {"beta": beta}, inputs, {}, PairLoss, work)
