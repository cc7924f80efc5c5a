"""The stages of a sweep over α: one Sem-DPO training per α, with one reference and one set of distances."""

from __future__ import annotations

from semdpo.engine.stage import AnyStage
from semdpo.errors import ConfigError
from semdpo.recipe.objectives import SemDPOSettings
from semdpo.recipe.schema import Recipe
from semdpo.recipe.sweep import SweepConfig
from semdpo.stages import prompts, train
from semdpo.stages.evaluate import Evaluation
from semdpo.stages.flow import data_flow

METHOD = "alpha-{:g}"


def settings(recipe: Recipe) -> SweepConfig:
    """The recipe's section ``sweep``.

    Raises:
        ConfigError: the recipe has none.
    """
    if recipe.sweep is None:
        raise ConfigError("the recipe has no section 'sweep'; add one such as that of `semdpo init tiny`")
    return recipe.sweep


def refuse_below_budget(recipe: Recipe) -> None:
    """Refuses a sweep whose weights would exceed 1, because an α is less than that of the render budget.

    Raises:
        ConfigError: there is such an α.
    """
    budget = recipe.render_budget
    if budget is not None and (lowest := min(settings(recipe).alphas)) < budget.alpha:
        raise ConfigError(
            f"sweep.alphas has {lowest:g}, less than render_budget.alpha, so that weights could exceed 1; remove it, "
            f"or set render_budget.alpha to {lowest:g} or less"
        )


def sweep_flow(recipe: Recipe) -> list[AnyStage]:
    """The stages of a sweep; those up to the pairs with distances are the recipe's own.

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
    """The name of each training → its α."""
    return {METHOD.format(alpha): alpha for alpha in config.alphas}


def sweep_evaluation(recipe: Recipe) -> Evaluation:
    """The evaluation of the floor and of every α on the tuning prompts, by the sweep's two scorers."""
    config = settings(recipe)
    scorers = {name: recipe.evaluate.metrics[name] for name in (config.fidelity, config.preference)}
    changes = {"metrics": scorers, "image_seeds": config.image_seeds, "keep_images": 0, "rewriters": {}}
    models = {config.floor: "sft"} | {method: f"sweep/train/{method}" for method in methods(config)}
    evaluate = recipe.evaluate.model_copy(update=changes)
    return Evaluation("sweep/evaluate", "sweep/prompts", "tune", models, evaluate)


def _objective(recipe: Recipe) -> SemDPOSettings:
    """The settings of the recipe's Sem-DPO; the defaults where it trains none."""
    subject = recipe.train.methods.get(recipe.report.subject)
    sem_dpo = [method for method in (subject, *recipe.train.methods.values()) if isinstance(method, SemDPOSettings)]
    return sem_dpo[0] if sem_dpo else SemDPOSettings(name="sem_dpo")
