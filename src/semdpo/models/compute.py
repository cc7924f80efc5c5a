"""Where models compute, and how precisely."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from semdpo.errors import ModelError

PRECISIONS = ("auto", "float32", "bfloat16", "float16")


@dataclass(frozen=True, slots=True)
class Compute:
    """A device and the type of the weights on it."""

    device: torch.device
    dtype: torch.dtype


def compute(precision: str = "float32") -> Compute:
    """The first GPU where there is one, otherwise the processor.

    Args:
        precision: of the weights, one of ``PRECISIONS``; ``auto`` is bfloat16 on a GPU and float32 on a processor.

    Raises:
        ModelError: the precision is unknown, or is float16 on a processor, most of which cannot compute in it.
    """
    if precision not in PRECISIONS:
        raise ModelError(f"precision must be {', '.join(PRECISIONS[:-1])} or {PRECISIONS[-1]}, not {precision!r}")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if precision == "auto":
        precision = "float32" if device.type == "cpu" else "bfloat16"
    if precision == "float16" and device.type == "cpu":
        raise ModelError("a processor does not compute in float16; choose bfloat16 or float32")
    return Compute(device, getattr(torch, precision))
