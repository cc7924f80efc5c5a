"""The precision in which a training computes; its weights are always float32."""

from __future__ import annotations

import torch

from semdpo.models.device import native_bfloat16


def resolve_precision(setting: str) -> str:
    """``float32`` or ``bfloat16``; ``auto`` is bfloat16 where the GPU or CPU supports it natively.

    Args:
        setting: ``auto``, ``float32`` or ``bfloat16``.
    """
    if setting != "auto":
        return setting
    return "bfloat16" if native_bfloat16() else "float32"


def autocast(precision: str, model: torch.nn.Module) -> torch.autocast:
    """A context in which a model computes in ``precision``, as it does in training.

    Args:
        precision: ``float32`` or ``bfloat16``.
        model: the model, on the device on which it computes.
    """
    device = next(model.parameters()).device.type
    return torch.autocast(device, torch.bfloat16, enabled=precision == "bfloat16")
