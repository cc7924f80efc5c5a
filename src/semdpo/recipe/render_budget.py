"""The section ``render_budget``, and which objectives may train on what it keeps."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field

from semdpo.recipe.base import Seed, Settings
from semdpo.recipe.objectives import ObjectiveSettings, SemDPOSettings


class RenderBudgetConfig(Settings):
    """Renders the candidates of some prompts only, and leaves the expected gradient of Sem-DPO as it is.

    A prompt's candidates are kept with the probability p, the largest weight exp(−alpha·d) among them; a pair that is
    kept has the weight exp(−α·d)/p ≤ 1. The encoder is that of the section drift.

    Attributes:
        alpha: the strength of the weight that gives p, ≥ 0; the α of every method must be at least as large.
        seed: the seed of the draws.
    """

    alpha: float = Field(ge=0)
    seed: Seed = 0


def refuse_unsuited(budget: RenderBudgetConfig, methods: Mapping[str, ObjectiveSettings]) -> None:
    """Refuses methods that the kept pairs would bias, or whose weights could exceed 1.

    Args:
        budget: the render budget.
        methods: name → settings of its objective.

    Raises:
        ValueError: a method does not weigh every term of its loss by meaning, has a smaller α than the budget or one
            that depends on which pairs are kept, or divides by the weights of the kept pairs.
    """
    for name, objective in methods.items():
        key = f"train.methods.{name}"
        if not isinstance(objective, SemDPOSettings) or objective.name != "sem_dpo":  # another package's may differ
            raise ValueError(
                f"{key} is {objective.name}, which does not weigh pairs by their meaning, so that render_budget would "
                "bias it or give it weights above 1; train sem_dpo alone, or remove render_budget"
            )
        if objective.alpha == "auto":
            raise ValueError(
                f"{key}.alpha is auto, which follows from the pairs that render_budget keeps; set it to a number ≥ "
                f"{budget.alpha:g}"
            )
        if objective.alpha < budget.alpha:
            raise ValueError(
                f"{key}.alpha is {objective.alpha:g}, less than render_budget.alpha, so that weights could exceed 1; "
                f"set render_budget.alpha to {objective.alpha:g} or less"
            )
        if objective.normalize != "pairs":
            raise ValueError(
                f"{key}.normalize is {objective.normalize}, which divides by the weights of the pairs that "
                "render_budget keeps; set it to pairs"
            )
        if objective.nll_coef:
            raise ValueError(
                f"{key}.nll_coef adds a term that is not weighed by meaning, which render_budget needs; set it to 0"
            )
