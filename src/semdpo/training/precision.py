"""In which precision a training computes; its weights are float32 always."""

from __future__ import annotations

import torch

from semdpo.models.device import native_bfloat16


def resolve_precision(asked: str) -> str:
    """``float32`` or ``bfloat16``; ``auto`` is bfloat16 where the GPU or the processor computes in it natively.

    Args:
        asked: ``auto``, ``float32`` or ``bfloat16``.
    """
    if asked != "auto":
        return asked
    return "bfloat16" if native_bfloat16() else "float32"


def autocast(precision: str, model: torch.nn.Module) -> torch.autocast:
    """The context in which a model computes in ``precision``, as the trainer's does.

    Args:
        precision: ``float32`` or ``bfloat16``.
        model: on the device on which it computes, which need not be the GPU that a machine has.
    """
    device = next(model.parameters()).device.type
    return torch.autocast(device, torch.bfloat16, enabled=precision == "bfloat16")
