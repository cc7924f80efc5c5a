"""Maps an objective's settings to its formula; no other module selects objectives."""

from __future__ import annotations

import importlib
from dataclasses import replace

from semdpo.objectives.base import Batch, Computed, Memory, Objective
from semdpo.objectives.sft import sft
from semdpo.recipe.objectives import ObjectiveSettings


def objective_of(settings: ObjectiveSettings) -> Objective:
    """The ``OBJECTIVE`` that settings belong to: in ``objectives/NAME.py``, or in the module that defines their class.

    Args:
        settings: settings of any objective.
    """
    module = type(settings).__module__
    if module == ObjectiveSettings.__module__:
        module = f"semdpo.objectives.{settings.name}"
    objective: Objective = importlib.import_module(module).OBJECTIVE
    return objective


def apply(settings: ObjectiveSettings, batch: Batch, memory: Memory) -> Computed:
    """The losses of a batch; with ``nll_coef`` they include that factor times −log π(y_w|x) per token.

    Args:
        settings: settings of the objective.
        batch: the pairs, n.
        memory: β, the constants of the data set, and the state after the previous batch.
    """
    computed = objective_of(settings).compute(batch, settings, memory)
    if not settings.nll_coef:
        return computed
    nll = sft(batch.policy[:, 0], mean_tokens=batch.mean_tokens, weight=batch.weight)
    return replace(computed, losses=computed.losses + settings.nll_coef * nll)
