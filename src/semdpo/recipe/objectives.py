"""The settings of each training objective, as a recipe or a command names it, and what each of them needs.

The formula of the objective ``NAME`` is ``objectives/NAME.py``, which is found by that name; ``discovery.py`` says how
another package brings an objective of its own.
"""

from __future__ import annotations

import math
from contextlib import suppress
from typing import Annotated, ClassVar, Literal

from pydantic import Field, PlainValidator, model_validator

from semdpo.recipe import defaults
from semdpo.recipe.base import LearningRate, Settings


class ObjectiveSettings(Settings):
    """What all objectives may say, and what they need.

    Attributes:
        nll_coef: weight of an added −log π(y_w|x) per token, which keeps the chosen rewrites probable.
        beta: strength of the tie to the reference, and …
        learning_rate: … at its highest, for this method alone; None is what all methods share.
        normalize: ``pairs`` divides a batch's loss by its pairs, as the paper does, so that small weights mean small
            steps; ``mean`` divides by the sum of the weights.
        name: of the objective.
        needs_rejected: whether it compares two rewrites; fine-tuning learns the chosen alone.
        needs_reference: whether it reads the reference's log-probabilities; without them, β has no effect.
        needs_distance: whether every pair must have a distance.
        needs_fidelity: whether every pair must have preference and text-fidelity scores.
        needs_whole_batch: whether it compares the pairs of a batch, which then cannot be computed in parts.
        needs_other_prompts: whether it reads each prompt with completions of other prompts too.
    """

    needs_rejected: ClassVar[bool] = True
    needs_reference: ClassVar[bool] = True
    needs_distance: ClassVar[bool] = False
    needs_fidelity: ClassVar[bool] = False
    needs_whole_batch: ClassVar[bool] = False
    needs_other_prompts: ClassVar[bool] = False

    nll_coef: float = Field(default=0.0, ge=0)
    beta: float | None = Field(default=None, gt=0)
    learning_rate: LearningRate | None = None
    normalize: Literal["pairs", "mean"] = "pairs"
    name: str

    @model_validator(mode="after")
    def _everything_has_an_effect(self) -> ObjectiveSettings:
        if self.beta is not None and not self.needs_reference:
            raise ValueError(f"beta has no effect on {self.name}, which has no reference; remove it")
        if self.nll_coef and not self.needs_rejected:
            raise ValueError(f"nll_coef has no effect on {self.name}, which is that term alone; remove it")
        return self


class SFTSettings(ObjectiveSettings):
    """More supervised fine-tuning, on the chosen rewrites; it has no reference and no β."""

    needs_rejected = False
    needs_reference = False

    name: Literal["sft"]


class DPOSettings(ObjectiveSettings):
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


class SemDPOSettings(ObjectiveSettings):
    """exp(−alpha·d)·(−log σ(Δ)); ``alpha`` auto is where the effective sample size is ``kept_share`` of the pairs."""

    needs_distance = True

    name: Literal["sem_dpo"]
    alpha: Annotated[float | Literal["auto"], PlainValidator(_strength)] = defaults.ALPHA
    kept_share: float = Field(default=0.8, gt=0, le=1)


class BetaDPOSettings(ObjectiveSettings):
    """β follows the batch: ``sensitivity`` is the paper's a, ``share`` of the pairs is kept."""

    needs_whole_batch = True

    name: Literal["beta_dpo"]
    sensitivity: float = Field(default=0.6, gt=0)
    share: float = Field(default=0.8, gt=0, le=1)


class IPOSettings(ObjectiveSettings):
    """(h − 1/(2β))² of mean log-probabilities per token; β is the paper's τ."""

    name: Literal["ipo"]


class KTOSettings(ObjectiveSettings):
    """Chosen and rejected as examples of their own, with the weights of each kind."""

    needs_whole_batch = True
    needs_other_prompts = True

    name: Literal["kto"]
    desirable_weight: float = Field(default=1.0, gt=0)
    undesirable_weight: float = Field(default=1.0, gt=0)


class ORPOSettings(ObjectiveSettings):
    """Negative log-likelihood and odds ratio; ``odds_weight`` is the paper's λ. It has no reference and no β."""

    needs_reference = False

    name: Literal["orpo"]
    odds_weight: float = Field(default=0.1, gt=0)


class SimPOSettings(ObjectiveSettings):
    """Rewards are ``reward_scale`` times the log-probability per token; it has no reference, and no β of ours.

    ``reward_scale`` is the paper's β, ``margin`` its γ. Their defaults are where the authors' repository
    (princeton-nlp/SimPO) advises to begin: β = 2 and γ = β/2.
    """

    needs_reference = False

    name: Literal["simpo"]
    reward_scale: float = Field(default=2.0, gt=0)
    margin: float = Field(default=1.0, ge=0)


class AdditiveSettings(ObjectiveSettings):
    """The preference score plus ``strength`` times the fidelity score, both on one scale, decides who is chosen."""

    needs_fidelity = True

    name: Literal["additive"]
    strength: float = Field(default=1.0, ge=0)
