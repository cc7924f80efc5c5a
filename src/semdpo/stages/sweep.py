"""The stages of a sweep over α: one Sem-DPO training for each, on one reference and one set of distances."""

from __future__ import annotations

from semdpo.engine.stage import AnyStage
from semdpo.errors import ConfigError
from semdpo.recipe.objectives import SemDPOSettings
from semdpo.recipe.schema import Recipe, SweepConfig
from semdpo.stages import prompts, train
from semdpo.stages.evaluate import Evaluation
from semdpo.stages.flow import data_flow

METHOD = "alpha-{:g}"


def settings(recipe: Recipe) -> SweepConfig:
    """The recipe's section.

    Raises:
        ConfigError: there is none.
    """
    if recipe.sweep is None:
        raise ConfigError("the recipe has no section 'sweep'; add one, as `semdpo init tiny` shows it")
    return recipe.sweep


def sweep_flow(recipe: Recipe) -> list[AnyStage]:
    """The stages of a sweep; those up to the weighed pairs are the recipe's own.

    Raises:
        ConfigError: the recipe has no section ``sweep``.
    """
    config = settings(recipe)
    tuning = prompts.tuning_stage("sweep/prompts", config.prompts)
    trainings = [
        train.stage(recipe, f"sweep/train/{method}", method, _objective(recipe).model_copy(update={"alpha": alpha}))
        for method, alpha in methods(config).items()
    ]
    return [*data_flow(recipe), tuning, *trainings, *sweep_evaluation(recipe).stages(recipe)]


def methods(config: SweepConfig) -> dict[str, float]:
    """Name of each training to its α."""
    return {METHOD.format(alpha): alpha for alpha in config.alphas}


def sweep_evaluation(recipe: Recipe) -> Evaluation:
    """The floor and every α on the tuning prompts, by the two scorers that the rule asks."""
    config = settings(recipe)
    scorers = {name: recipe.evaluate.metrics[name] for name in (config.fidelity, config.preference)}
    own = {"metrics": scorers, "image_seeds": config.image_seeds, "keep_images": 0, "rewriters": {}}
    models = {config.floor: "sft"} | {method: f"sweep/train/{method}" for method in methods(config)}
    evaluate = recipe.evaluate.model_copy(update=own)
    return Evaluation("sweep/evaluate", "sweep/prompts", "tune", models, evaluate)


def _objective(recipe: Recipe) -> SemDPOSettings:
    """The Sem-DPO that the recipe trains, with all its other settings."""
    named = recipe.train.methods.get(recipe.report.subject)
    found = [each for each in (named, *recipe.train.methods.values()) if isinstance(each, SemDPOSettings)]
    return found[0] if found else SemDPOSettings(name="sem_dpo")
