"""Stage 7: the rewriter learns preferences, by any of the objectives."""

from __future__ import annotations

from pathlib import Path

from semdpo.data.records import Curve, Pair
from semdpo.engine.stage import ModelStage, Run
from semdpo.progress import Progress
from semdpo.recipe.objectives import ObjectiveSettings
from semdpo.recipe.schema import Recipe


def name_of(method: str) -> str:
    """The stage of one of the recipe's methods."""
    return f"train/{method}"


def stage(recipe: Recipe, name: str, method: str, objective: ObjectiveSettings) -> ModelStage:
    """Preference training with one objective.

    Args:
        recipe: settings that all methods share.
        name: of the stage.
        method: the curves' name.
        objective: what is minimised.
    """

    def work(run: Run, output: Path, progress: Progress) -> list[Curve]:
        from semdpo.training.preference import train  # here, since it imports torch

        pairs, model = run.rows("drift", Pair), str(run.folder / "sft")
        reference = run.folder / "reference"  # which all methods share
        curves = train(pairs, model, objective, run.recipe.train, output, reference, progress)
        return [Curve(method, curve.step, curve.name, curve.value) for curve in curves]

    own = {"objective": objective.model_dump(mode="json")}
    config = recipe.train.model_dump(mode="json", exclude={"methods"}) | own
    return ModelStage(name, "training", config, ("sft", "drift"), {}, work)
