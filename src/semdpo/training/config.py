"""``PreferenceConfig``: transformers' TrainingArguments, extended by the settings of the objectives."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import TrainingArguments

from semdpo.errors import ConfigError
from semdpo.recipe import defaults
from semdpo.recipe.base import one_slot
from semdpo.recipe.discovery import OneObjective
from semdpo.recipe.load import options
from semdpo.recipe.objectives import ObjectiveSettings
from semdpo.training.precision import resolve_precision


@dataclass
class PreferenceConfig(TrainingArguments):  # type: ignore[misc]
    """The settings of a preference training.

    It has all settings of transformers' ``TrainingArguments``; those below are new or have other defaults. The
    defaults are those of the Sem-DPO paper where it names them. A step has ``per_device_train_batch_size`` ×
    ``gradient_accumulation_steps`` × processes pairs; its loss is the sum over all of them divided by their number.

    Args:
        objective: ``sem_dpo``, ``dpo``, ``beta_dpo``, ``kto``, ``orpo``, ``additive``, ``sft``, or an objective of
            another package (see ``recipe.discovery``).
        alpha: strength of ``sem_dpo``'s weight exp(−alpha·distance): a number ≥ 0, or ``auto``; None is 4.
        beta: strength of the regularisation towards the reference, > 0.
        objective_settings: the objective's other settings, such as ``{"nll_coef": 0.1}``.
        max_length: largest number of tokens of prompt and rewrite together; longer pairs are refused, not truncated.
        template: template of the prompt, which contains ``{prompt}``; None uses the model's own.
        learning_rate: peak learning rate; it rises linearly for ``warmup_steps`` and falls linearly to 0.
        num_train_epochs: number of passes over the pairs.
        per_device_train_batch_size: number of pairs that one process computes at once.
        warmup_steps: number of updates, or below 1 a share of all updates.
        logging_steps: number of updates between log entries, which are means over the updates since the last entry.
        weight_decay: 0; the optimizer is fused AdamW.
        bf16: whether to compute in bfloat16, with weights in float32; None does so where the device supports it
            natively.

    Raises:
        ConfigError: a setting is unknown or out of range.

    Example:
        >>> from semdpo import PreferenceConfig
        >>> PreferenceConfig(output_dir="out", objective="sem_dpo", alpha=4, report_to="none").settings.alpha
        4.0
    """

    objective: str = defaults.OBJECTIVE
    alpha: float | str | None = None
    beta: float = defaults.BETA
    objective_settings: dict[str, Any] | None = None
    max_length: int = defaults.MAX_LENGTH
    template: str | None = None
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
            self.bf16 = resolve_precision("auto") == "bfloat16"
        if self.template is not None:
            try:
                one_slot(self.template)
            except ValueError as error:
                raise ConfigError(f"template: {error}") from error
        self.settings = self._settings()
        super().__post_init__()

    def _settings(self) -> ObjectiveSettings:
        given = {"name": self.objective, **(self.objective_settings or {})}
        if self.alpha is not None:
            given["alpha"] = self.alpha
        settings = options(OneObjective, {("objective",): "PreferenceConfig"}, objective=given).objective
        if not 0 < self.beta < float("inf"):
            raise ConfigError(f"beta is {self.beta}; it must be a number > 0")
        return settings
