"""The whole method as a list that one can read: each stage's own file says what it reads and what it does."""

from __future__ import annotations

from semdpo.engine.stage import AnyStage
from semdpo.recipe.schema import Recipe
from semdpo.stages import candidates, drift, label, losses, pairs, prompts, sft, train
from semdpo.stages.evaluate import evaluation


def flow(recipe: Recipe) -> list[AnyStage]:
    """The stages of a recipe, in the order in which data flows; the report comes after them."""
    methods = recipe.train.methods
    return [
        *data_flow(recipe),
        *(train.stage(recipe, train.name_of(method), method, objective) for method, objective in methods.items()),
        *(losses.stage(recipe, method, own) for method, own in methods.items() if own.needs_distance),
        *evaluation(recipe).stages(recipe),
    ]


def data_flow(recipe: Recipe) -> list[AnyStage]:
    """From prompts to pairs with distances."""
    return [
        prompts.stage(recipe),
        sft.stage(recipe),
        candidates.stage(recipe),
        label.stage(recipe),
        pairs.stage(recipe),
        drift.stage(recipe),
    ]


def is_file(key: str) -> bool:
    """Whether what a recipe's key names from outside is a file; otherwise it is a model."""
    return key.startswith(("prompts.", "sweep.prompts")) or key == "sft.file"
