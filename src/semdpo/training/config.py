"""``PreferenceConfig``: transformers' TrainingArguments, extended by the settings of the objectives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from math import inf
from numbers import Integral, Real
from typing import Any

import torch
from transformers import TrainingArguments

from semdpo.errors import ConfigError
from semdpo.recipe import defaults
from semdpo.recipe.base import TEMPLATE, Template
from semdpo.recipe.discovery import OneObjective
from semdpo.recipe.load import options
from semdpo.recipe.objectives import ObjectiveSettings
from semdpo.training.precision import resolve_precision

# TrainingArguments that a preference training does not use, and what to set instead.
_WITHOUT_EFFECT = {
    "data_seed": "seed sets the order of the pairs",
    "train_sampling_strategy": "the order of the pairs depends on seed only",
    "dataloader_drop_last": "every pair is used in every pass",
    "label_smoothing_factor": "the objective is the loss",
    "neftune_noise_alpha": "the policy trains without noise, as the reference is computed",
    "per_device_eval_batch_size": "evaluation has the batches of the training; set per_device_train_batch_size",
    "bf16_full_eval": "evaluation has the precision of the training; set bf16",
    "fp16_full_eval": "evaluation has the precision of the training; set bf16",
    "fp16": "float16 is not supported; set bf16=True",
    "auto_find_batch_size": "lower per_device_train_batch_size and raise gradient_accumulation_steps",
}
# Settings that PreferenceConfig has itself, which must not be given twice.
_OWN = {"name": "objective", "beta": "beta", "learning_rate": "learning_rate"}
# Numbers: the largest value that is too small, and whether they must be whole.
_NUMBERS = {
    "max_length": (1, True),
    "per_device_train_batch_size": (0, True),
    "gradient_accumulation_steps": (0, True),
}


@dataclass
class PreferenceConfig(TrainingArguments):  # type: ignore[misc]
    """The settings of a preference training.

    It has all settings of transformers' ``TrainingArguments``; those below are new or have other defaults. The
    defaults are those of the Sem-DPO paper where it names them. A step has ``per_device_train_batch_size`` ×
    ``gradient_accumulation_steps`` × processes pairs; its loss is the sum over all of them divided by their number.

    Args:
        objective: ``sem_dpo``, ``dpo``, ``beta_dpo``, ``ipo``, ``kto``, ``orpo``, ``simpo``, ``additive``, ``sft``, or
            an objective of another package (see ``recipe.discovery``).
        alpha: strength of ``sem_dpo``'s weight exp(−alpha·distance): a number ≥ 0, or ``auto``; None is 4.
        beta: strength of the regularisation towards the reference, > 0; None is 0.05. Objectives without a reference
            refuse it.
        objective_settings: the objective's other settings, such as ``{"nll_coef": 0.1}``.
        max_length: largest number of tokens of prompt and rewrite together; longer pairs are refused, not truncated.
        template: template of the prompt, which contains ``{prompt}``; or ``chat``, the chat template of the model's
            tokenizer; None uses the model's own.
        system: system message of the chat; None is none.
        learning_rate: peak learning rate; it rises linearly for ``warmup_steps`` and falls linearly to 0.
        num_train_epochs: number of passes over the pairs.
        per_device_train_batch_size: number of pairs that one process computes at once.
        warmup_steps: number of updates, or below 1 a share of all updates.
        logging_steps: number of updates between log entries, which are means over the updates since the last entry.
        weight_decay: 0; the optimizer is fused AdamW.
        bf16: whether to compute in bfloat16, with weights in float32; None does so where the device supports it
            natively.

    Raises:
        ConfigError: a setting is unknown, out of range, or has no effect.

    Source:
        Defaults: Sem-DPO (arXiv 2507.20133), section 4.

    Example:
        >>> from semdpo import PreferenceConfig
        >>> PreferenceConfig(output_dir="out", objective="sem_dpo", alpha=4, report_to="none").settings.alpha
        4.0
    """

    objective: str = defaults.OBJECTIVE
    alpha: float | str | None = None
    beta: float | None = None
    objective_settings: dict[str, Any] | None = None
    max_length: int = defaults.MAX_LENGTH
    template: str | None = None
    system: str | None = None
    learning_rate: float = defaults.LEARNING_RATE
    num_train_epochs: float = float(defaults.EPOCHS)
    per_device_train_batch_size: int = defaults.BATCH_SIZE
    warmup_steps: float = defaults.WARMUP_RATIO
    logging_steps: float = 1
    logging_first_step: bool = True
    logging_nan_inf_filter: bool = False
    weight_decay: float = 0.0
    bf16: bool | None = field(default=None)
    remove_unused_columns: bool = False
    dataloader_pin_memory: bool = False
    ddp_find_unused_parameters: bool | None = False

    def __post_init__(self) -> None:
        """Checks the settings that this class adds; transformers checks the others."""
        if not torch.cuda.is_available():
            self.use_cpu = True
        if self.bf16 is None:
            self.bf16 = not self.fp16 and resolve_precision("auto") == "bfloat16"
        self.refuse_bad_settings()
        super().__post_init__()

    @property
    def settings(self) -> ObjectiveSettings:
        """The settings of the objective, as the current values of ``objective``, ``alpha`` and others give them.

        Raises:
            ConfigError: a setting is unknown or out of range.
        """
        more = {} if self.objective_settings is None else self.objective_settings
        if not isinstance(more, Mapping):
            raise ConfigError(f"objective_settings must be a mapping of names to values, not {type(more).__name__}")
        if twice := [name for name in _OWN if name in more]:
            own = _OWN[twice[0]]
            raise ConfigError(f"objective_settings contains {twice[0]}; give it as PreferenceConfig({own}=…)")
        given = {"name": self.objective, **more}
        if self.alpha is not None:
            given["alpha"] = self.alpha
        return options(OneObjective, {("objective",): "PreferenceConfig"}, objective=given).objective

    @property
    def reads(self) -> Template | None:
        """What the model reads around a prompt; None is the model's own template.

        Raises:
            ConfigError: ``template`` or ``system`` is not valid.
        """
        if self.template is None and self.system is None:
            return None
        try:
            return Template(TEMPLATE if self.template is None else self.template, self.system)
        except ValueError as error:
            raise ConfigError(f"template: {error}") from error

    def refuse_bad_settings(self) -> None:
        """Checks the settings again, because they may have been changed since the object was made.

        Raises:
            ConfigError: a setting is unknown, out of range, or has no effect.
        """
        _ = self.reads
        settings = self.settings
        if self.beta is not None:
            _refuse_no_number("beta", self.beta, 0)
            if not settings.needs_reference:
                raise ConfigError(f"beta has no effect on {settings.name}, which uses no reference; remove it")
        for name, (below, whole) in _NUMBERS.items():
            _refuse_no_number(name, getattr(self, name), below, whole)
        if self.max_steps <= 0:
            _refuse_no_number("num_train_epochs", self.num_train_epochs, 0)
        usual = {entry.name: entry.default for entry in fields(TrainingArguments)}
        for name, cure in _WITHOUT_EFFECT.items():
            if name in usual and getattr(self, name) != usual[name]:
                raise ConfigError(f"{name} has no effect on a preference training: {cure}")


def _refuse_no_number(name: str, value: Any, below: float, whole: bool = False) -> None:
    is_number = isinstance(value, Integral if whole else Real) and not isinstance(value, bool)
    if not is_number or not below < value < inf:
        raise ConfigError(f"{name} is {value!r}; it must be a {'whole ' if whole else ''}number > {below}")
