"""The settings of each training objective, and what the objective needs.

The formula of the objective ``NAME`` is in ``objectives/NAME.py``. ``discovery.py`` explains how another package adds
an objective.
"""

from __future__ import annotations

import math
from contextlib import suppress
from typing import Annotated, ClassVar, Literal

from pydantic import Field, PlainValidator, model_validator

from semdpo.recipe import defaults
from semdpo.recipe.base import LearningRate, Settings


class ObjectiveSettings(Settings):
    """The settings of all objectives, and what an objective needs.

    Attributes:
        nll_coef: the weight of an additional term −log π(y_w|x) per token, which keeps the chosen rewrites probable.
        beta: β for this method alone; None takes the β that all methods share.
        learning_rate: the highest learning rate for this method alone; None takes the one that all methods share.
        normalize: ``pairs`` divides a batch's loss by its number of pairs, as the paper does, so that small weights
            mean small steps; ``mean`` divides by the sum of the weights.
        name: the objective's name.
        needs_rejected: whether it compares two rewrites; fine-tuning trains on the chosen one alone.
        needs_reference: whether it uses the reference's log-probabilities; without them, β has no effect.
        needs_distance: whether every pair must have a distance.
        needs_fidelity: whether every pair must have preference scores and text-fidelity scores.
        needs_whole_batch: whether it compares the pairs of a batch with each other, which rules out micro-batches.
        needs_other_prompts: whether it also needs each prompt with completions of other prompts.
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
            raise ValueError(f"beta has no effect on {self.name}, which uses no reference; remove it")
        if self.nll_coef and not self.needs_rejected:
            raise ValueError(f"nll_coef has no effect on {self.name}, whose loss is that term alone; remove it")
        return self


class SFTSettings(ObjectiveSettings):
    """Further supervised fine-tuning on the chosen rewrites, without a reference and β."""

    needs_rejected = False
    needs_reference = False

    name: Literal["sft"]


class DPOSettings(ObjectiveSettings):
    """Direct preference optimization: −log σ(Δ)."""

    name: Literal["dpo"]


def _strength(value: object) -> float | Literal["auto"]:
    if value == "auto":
        return "auto"
    if isinstance(value, str):  # from the command line
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
    """Sem-DPO: exp(−alpha·d)·(−log σ(Δ)).

    With ``alpha`` ``auto``, the effective sample size of the weights is ``kept_share`` of the number of pairs.
    """

    needs_distance = True

    name: Literal["sem_dpo"]
    alpha: Annotated[float | Literal["auto"], PlainValidator(_strength)] = defaults.ALPHA
    kept_share: float = Field(default=0.8, gt=0, le=1)


class BetaDPOSettings(ObjectiveSettings):
    """β-DPO: β depends on the batch. ``sensitivity`` is the paper's a; ``share`` of the pairs is trained on."""

    needs_whole_batch = True

    name: Literal["beta_dpo"]
    sensitivity: float = Field(default=0.6, gt=0)
    share: float = Field(default=0.8, gt=0, le=1)


class IPOSettings(ObjectiveSettings):
    """IPO: (h − 1/(2β))², where h is the difference of the log-ratios per token; β is the paper's τ."""

    name: Literal["ipo"]


class KTOSettings(ObjectiveSettings):
    """KTO: chosen and rejected rewrites are separate examples, and each kind has a weight."""

    needs_whole_batch = True
    needs_other_prompts = True

    name: Literal["kto"]
    desirable_weight: float = Field(default=1.0, gt=0)
    undesirable_weight: float = Field(default=1.0, gt=0)


class ORPOSettings(ObjectiveSettings):
    """ORPO: negative log-likelihood plus odds ratio, without a reference and β; ``odds_weight`` is the paper's λ."""

    needs_reference = False

    name: Literal["orpo"]
    odds_weight: float = Field(default=0.1, gt=0)


class SimPOSettings(ObjectiveSettings):
    """SimPO: the reward is ``reward_scale`` times the log-probability per token; there is no reference.

    ``reward_scale`` is the paper's β, and ``margin`` its γ. The defaults are the starting point that the authors'
    repository (princeton-nlp/SimPO) recommends: β = 2 and γ = β/2.
    """

    needs_reference = False

    name: Literal["simpo"]
    reward_scale: float = Field(default=2.0, gt=0)
    margin: float = Field(default=1.0, ge=0)


class AdditiveSettings(ObjectiveSettings):
    """DPO in which the preference score plus ``strength`` times the fidelity score decides which rewrite is chosen.

    Both scores are first brought to the same scale.
    """

    needs_fidelity = True

    name: Literal["additive"]
    strength: float = Field(default=1.0, ge=0)
