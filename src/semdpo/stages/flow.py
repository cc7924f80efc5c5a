"""The whole method as a list of stages; the file of each stage says what it reads and what it does."""

from __future__ import annotations

from semdpo.engine.stage import AnyStage
from semdpo.recipe.schema import Recipe
from semdpo.stages import (
    atom_answers,
    atoms,
    benchmarks,
    candidates,
    drift,
    label,
    losses,
    pairs,
    prompts,
    render_budget,
    rounds,
    sft,
    train,
)
from semdpo.stages.evaluate import evaluation, on_benchmark


def flow(recipe: Recipe) -> list[AnyStage]:
    """A recipe's stages, in the order in which data flows; the report comes after them."""
    methods, evaluated = recipe.train.methods, evaluation(recipe)
    reading, *others = data_flow(recipe)
    return [
        reading,
        *(stage for name in recipe.benchmarks for stage in benchmarks.stages(recipe, name)),  # a leak shows at once
        *others,
        *(train.stage(recipe, train.name_of(method), method, objective) for method, objective in methods.items()),
        *(losses.stage(recipe, method, objective) for method, objective in methods.items() if objective.needs_distance),
        *rounds.stages(recipe),
        *evaluated.stages(recipe),
        *atom_answers.stages(recipe, {method: evaluated.images_stage(method) for method in evaluated.models}),
        *(stage for name in recipe.benchmarks for stage in _on_benchmark(recipe, name)),
    ]


def _on_benchmark(recipe: Recipe, name: str) -> list[AnyStage]:
    """The evaluation on a benchmark."""
    plan = on_benchmark(recipe, name)
    images = {method: plan.images_stage(method) for method in plan.models}
    return [
        *atoms.of_benchmark(recipe, name),
        *plan.stages(recipe),
        *atom_answers.on_benchmark(recipe, name, images),
    ]


def data_flow(recipe: Recipe) -> list[AnyStage]:
    """The stages from the prompts to the pairs with distances."""
    return [
        prompts.stage(recipe),
        *atoms.stages(recipe),
        sft.stage(recipe),
        candidates.stage(recipe),
        *render_budget.stages(recipe),
        label.stage(recipe),
        pairs.stage(recipe),
        drift.stage(recipe),
    ]


def is_file(key: str) -> bool:
    """Whether a key in ``outside`` names a file; otherwise it names a model."""
    return key.startswith(("prompts.", "sweep.prompts", "benchmarks.")) or key in ("sft.file", "atoms.file")
