"""Stage 7: preference training of the rewriter with any of the objectives."""

from __future__ import annotations

from pathlib import Path

from semdpo.analysis.render_budget import refuse_heavy
from semdpo.data.records import Curve, Pair
from semdpo.engine.stage import ModelStage, Run
from semdpo.progress import Progress
from semdpo.recipe.objectives import ObjectiveSettings, SemDPOSettings
from semdpo.recipe.schema import Recipe


def name_of(method: str) -> str:
    """The name of the stage that trains one of the recipe's methods."""
    return f"train/{method}"


def stage(recipe: Recipe, name: str, method: str, objective: ObjectiveSettings) -> ModelStage:
    """The stage that trains a rewriter with one objective.

    Args:
        recipe: the settings that all methods share.
        name: the stage's name.
        method: the method's name, for the curves.
        objective: the objective's settings.
    """

    def work(run: Run, output: Path, progress: Progress) -> list[Curve]:
        from semdpo.training.preference import train  # here, since it imports torch

        pairs, model = run.rows("drift", Pair), str(run.path("sft"))
        if recipe.render_budget is not None and isinstance(objective, SemDPOSettings):  # the recipe allows no other
            refuse_heavy(pairs, float(objective.alpha))
        reference = run.folder / "reference"  # all methods and rounds share it, since its files follow the model
        curves = train(pairs, model, objective, run.recipe.train, output, reference, progress)
        return [Curve(method, curve.step, curve.name, curve.value) for curve in curves]

    shared = recipe.train.model_dump(mode="json", exclude={"methods"})
    config = shared | {"objective": objective.model_dump(mode="json")}
    return ModelStage(name, "training", config, ("sft", "drift"), {}, work)
