"""From an objective's settings to its formula: the one place where objectives are chosen."""

from __future__ import annotations

import importlib
from dataclasses import replace

from semdpo.objectives.base import Batch, Computed, Memory, Objective
from semdpo.objectives.sft import sft
from semdpo.recipe.objectives import ObjectiveSettings


def objective_of(settings: ObjectiveSettings) -> Objective:
    """The ``OBJECTIVE`` that settings belong to: of ``objectives/NAME.py``, or of the module of their own class.

    Args:
        settings: of any objective.
    """
    home = type(settings).__module__
    if home == ObjectiveSettings.__module__:
        home = f"semdpo.objectives.{settings.name}"
    found: Objective = importlib.import_module(home).OBJECTIVE
    return found


def apply(settings: ObjectiveSettings, batch: Batch, memory: Memory) -> Computed:
    """The losses of a batch, with the term that every preference objective may add: −log π(y_w|x) per token.

    Args:
        settings: which objective, and how.
        batch: n pairs.
        memory: β, and what is known from the data set and the batches before.
    """
    found = objective_of(settings).compute(batch, settings, memory)
    if not settings.nll_coef:
        return found
    nll = sft(batch.policy[:, 0], mean_tokens=batch.mean_tokens, weight=batch.weight)
    return replace(found, losses=found.losses + settings.nll_coef * nll)
