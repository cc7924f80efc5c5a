"""The device that models compute on, and the precision they compute in."""

from __future__ import annotations

import gc
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import nn

from semdpo.errors import ModelError

Network = TypeVar("Network", bound=nn.Module)
PRECISIONS = ("auto", "float32", "bfloat16", "float16")


@dataclass(frozen=True, slots=True)
class Compute:
    """A device and the type of the weights on it."""

    device: torch.device
    dtype: torch.dtype


def native_bfloat16() -> bool:
    """Whether the device that models compute on, the GPU if there is one, computes in bfloat16 natively.

    Only this rule of ``auto`` chooses bfloat16 by itself. Older GPUs merely emulate bfloat16, slowly.
    """
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return cpu_has_bfloat16()


def cpu_has_bfloat16() -> bool:
    """Whether the CPU computes in bfloat16 natively."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def compute(precision: str = "float32") -> Compute:
    """The first GPU if there is one, otherwise the CPU, and the type of the weights.

    Args:
        precision: The precision of the weights, one of ``PRECISIONS``. ``auto`` is bfloat16 on a GPU that has it
            natively, and float32 elsewhere. On a CPU, ``auto`` keeps weights in float32; only training computes in
            bfloat16 there, and its weights are always float32.

    Raises:
        ModelError: The precision is unknown, or is float16 on a CPU; most CPUs cannot compute in it.
    """
    if precision not in PRECISIONS:
        raise ModelError(f"precision must be {', '.join(PRECISIONS[:-1])} or {PRECISIONS[-1]}, not {precision!r}")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if precision == "auto":
        precision = "bfloat16" if device.type != "cpu" and native_bfloat16() else "float32"
    if precision == "float16" and device.type == "cpu":
        raise ModelError("a CPU does not compute in float16; choose bfloat16 or float32")
    return Compute(device, getattr(torch, precision))


def moved(network: Network, where: Compute) -> Network:
    """A network on a device, with weights of a type.

    Buffers keep their type, as in transformers' ``from_pretrained``. ``network.to(dtype)`` would also round constants
    that are computed with in float32, such as the frequencies of rotary positions, and so move far tokens.

    Args:
        network: The network, which is changed.
        where: The device and the weights' type.
    """
    for weight in network.parameters():
        weight.data = weight.data.to(where.dtype)
    return network.to(where.device)


def collect_garbage() -> None:
    """Frees the memory on a GPU of networks that nothing uses and that refer to themselves.

    A pipeline with hooks and a trainer with its optimizer do so. Python removes them when it has made many objects
    more, whatever their tensors take; without a GPU, that is early enough.
    """
    if torch.cuda.is_available():
        gc.collect()
