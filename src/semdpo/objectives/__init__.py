"""The objectives of preference training: pure functions of log-probabilities that return one loss per pair.

Every objective is one file with its formula and its ``compute`` function, which applies the formula to a batch. All
objectives compute in float32 or wider, and all take a ``weight`` per pair.
"""

from semdpo.objectives.additive import additive, coefficient_of
from semdpo.objectives.base import PairLosses
from semdpo.objectives.beta_dpo import BetaDPOLosses, GapState, beta_dpo
from semdpo.objectives.dpo import dpo
from semdpo.objectives.ipo import ipo
from semdpo.objectives.kto import ExampleLosses, kto
from semdpo.objectives.orpo import orpo
from semdpo.objectives.sem_dpo import sem_dpo, semantic_weight
from semdpo.objectives.sft import sft
from semdpo.objectives.simpo import simpo

__all__ = [
    "BetaDPOLosses",
    "ExampleLosses",
    "GapState",
    "PairLosses",
    "additive",
    "beta_dpo",
    "coefficient_of",
    "dpo",
    "ipo",
    "kto",
    "orpo",
    "sem_dpo",
    "semantic_weight",
    "sft",
    "simpo",
]
