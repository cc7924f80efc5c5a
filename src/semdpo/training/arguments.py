"""The ``TrainingArguments`` that all trainings share."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import TrainingArguments, set_seed


def training_arguments(
    output: Path,
    *,
    learning_rate: float,
    seed: int = 0,
    precision: str = "float32",
    checkpoint_steps: int | None = None,
    report_to: Sequence[str] = (),
    **more: Any,
) -> TrainingArguments:
    """Arguments for fused AdamW without weight decay and a learning rate with linear warm-up and linear decay to 0.

    Args:
        output: folder of the checkpoints.
        learning_rate: peak learning rate.
        seed: seed of dropout, where the model has any.
        precision: ``float32`` or ``bfloat16``.
        checkpoint_steps: number of updates between checkpoints; None writes none.
        report_to: names of the trackers.
        more: further ``TrainingArguments``.
    """
    settings: dict[str, Any] = {
        "output_dir": str(output),
        "learning_rate": learning_rate,
        "lr_scheduler_type": "linear",
        "optim": "adamw_torch_fused",
        "weight_decay": 0.0,
        "per_device_train_batch_size": 1,  # one micro-batch, which holds many rows
        "logging_strategy": "steps",
        "logging_steps": 1,
        "logging_first_step": True,
        "logging_nan_inf_filter": False,
        "save_strategy": "no" if checkpoint_steps is None else "steps",
        "save_steps": checkpoint_steps or 500,
        "save_total_limit": 2,
        "bf16": precision == "bfloat16",
        "report_to": list(report_to) or "none",
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "dataloader_pin_memory": False,
        "ddp_find_unused_parameters": False,
        "seed": seed % 2**32,  # numpy's generators accept no larger seed
        "use_cpu": not torch.cuda.is_available(),
    }
    return TrainingArguments(**(settings | more))


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seeds all random generators inside the context and restores their state after it.

    Args:
        seed: seed of the generators of Python, numpy and torch, on every device.
    """
    python, numpy = random.getstate(), np.random.get_state()
    devices = range(torch.cuda.device_count()) if torch.cuda.is_available() else ()
    try:
        with torch.random.fork_rng(list(devices)):
            set_seed(seed)
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
