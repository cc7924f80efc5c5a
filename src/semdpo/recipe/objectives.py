"""The settings of each training objective, as a recipe or a command names it."""

from __future__ import annotations

import math
from contextlib import suppress
from typing import Annotated, Literal

from pydantic import Field, PlainValidator, model_validator

from semdpo.recipe import defaults
from semdpo.recipe.base import LearningRate, Stage


class _Objective(Stage):
    """What all objectives may say.

    Attributes:
        nll_coef: weight of an added −log π(y_w|x) per token, which keeps the chosen rewrites probable.
        beta: strength of the tie to the reference, and …
        learning_rate: … at its highest, for this method alone; None is what all methods share.
        normalize: ``pairs`` divides a batch's loss by its pairs, as the paper does, so that small weights mean small
            steps; ``mean`` divides by the sum of the weights.
    """

    nll_coef: float = Field(default=0.0, ge=0)
    beta: float | None = Field(default=None, gt=0)
    learning_rate: LearningRate | None = None
    normalize: Literal["pairs", "mean"] = "pairs"


def _refuse_beta(objective: _Objective) -> None:
    if objective.beta is not None:
        raise ValueError("beta has no effect on sft and orpo, which have no reference; remove it")


class SFTObjective(_Objective):
    """More supervised fine-tuning, on the chosen rewrites; it has no reference and no β."""

    name: Literal["sft"]

    @model_validator(mode="after")
    def _has_an_effect(self) -> SFTObjective:
        _refuse_beta(self)
        return self


class DPOObjective(_Objective):
    """−log σ(Δ)."""

    name: Literal["dpo"]


def _strength(value: object) -> float | Literal["auto"]:
    if value == "auto":
        return "auto"
    if isinstance(value, str):  # of the command line
        with suppress(ValueError):
            value = float(value)
    if isinstance(value, int) and not isinstance(value, bool):
        value = float(value) if abs(value) < 2**1000 else math.inf
    if not isinstance(value, float) or not 0 <= value < math.inf:
        raise ValueError(f"it must be a number ≥ 0, or auto, not {_short(value)}")
    return value


def _short(value: object) -> str:
    number = isinstance(value, float) and value.is_integer()
    return f"{value:g}" if number else repr(value)


class SemDPOObjective(_Objective):
    """exp(−alpha·d)·(−log σ(Δ)); ``alpha`` auto is where the effective sample size is ``kept_share`` of the pairs."""

    name: Literal["sem_dpo"]
    alpha: Annotated[float | Literal["auto"], PlainValidator(_strength)] = defaults.ALPHA
    kept_share: float = Field(default=0.8, gt=0, le=1)


class BetaDPOObjective(_Objective):
    """β follows the batch: ``sensitivity`` is the paper's a, ``share`` of the pairs is kept."""

    name: Literal["beta_dpo"]
    sensitivity: float = Field(default=0.6, gt=0)
    share: float = Field(default=0.8, gt=0, le=1)


class KTOObjective(_Objective):
    """Chosen and rejected as examples of their own, with the weights of each kind."""

    name: Literal["kto"]
    desirable_weight: float = Field(default=1.0, gt=0)
    undesirable_weight: float = Field(default=1.0, gt=0)


class ORPOObjective(_Objective):
    """Negative log-likelihood and odds ratio; ``odds_weight`` is the paper's λ. It has no reference and no β."""

    name: Literal["orpo"]
    odds_weight: float = Field(default=0.1, gt=0)

    @model_validator(mode="after")
    def _has_an_effect(self) -> ORPOObjective:
        _refuse_beta(self)
        return self


class AdditiveObjective(_Objective):
    """The preference score plus ``strength`` times the fidelity score, both on one scale, decides who is chosen."""

    name: Literal["additive"]
    strength: float = Field(default=1.0, ge=0)


ObjectiveConfig = Annotated[
    SFTObjective | DPOObjective | SemDPOObjective | BetaDPOObjective | KTOObjective | ORPOObjective | AdditiveObjective,
    Field(discriminator="name"),
]


class OneObjective(Stage):
    """An objective on its own, as a command names it."""

    objective: ObjectiveConfig
