"""Checkpoints in upstream's own form: read without running anything in them, and loaded name by name."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from semdpo.errors import ModelError

SHOWN = 5


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint, which may lie under ``state_dict``.

    Args:
        path: ``.safetensors``, or a file of ``torch.save``, which is read with ``weights_only``.

    Raises:
        ModelError: the file cannot be read, as when it was downloaded in part, or holds more than tensors.
    """
    try:
        if path.suffix == ".safetensors":
            whole: dict[str, Tensor] = load_file(path)
            return whole
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError, SafetensorError) as error:
        size = path.stat().st_size if path.is_file() else 0
        raise ModelError(
            f"'{path}' ({size:,} bytes) is no readable checkpoint of weights; download it again, for a part of it may "
            "be missing"
        ) from error
    state = found.get("state_dict", found) if isinstance(found, Mapping) else found
    if not isinstance(state, Mapping) or not all(isinstance(each, Tensor) for each in state.values()):
        raise ModelError(f"'{path}' does not hold a mapping of names to tensors; give the published file")
    return dict(state)


def load_strictly(model: nn.Module, state: Mapping[str, Tensor], source: str | Path) -> None:
    """Puts weights into a model; every one must be there, and fit.

    Args:
        model: which takes over the weights as they are, precision and all.
        state: by the model's own names.
        source: of the weights, for the message.

    Raises:
        ModelError: with the missing, unknown and mis-shaped names.
    """
    wanted = {name: tuple(each.shape) for name, each in model.state_dict().items()}
    shapes = [
        f"{name} {tuple(each.shape)} instead of {wanted[name]}"
        for name, each in state.items()
        if name in wanted and tuple(each.shape) != wanted[name]
    ]
    problems = {
        "missing": sorted(wanted.keys() - state.keys()),
        "unknown": sorted(state.keys() - wanted.keys()),
        "of another shape": shapes,
    }
    if lines := [f"{len(names)} {what}: {_some(names)}" for what, names in problems.items() if names]:
        raise ModelError(
            f"the weights of '{source}' do not fit this model; {'; '.join(lines)}; give the published file"
        )
    model.load_state_dict(state, assign=True)


def _some(names: list[Any]) -> str:
    return ", ".join(map(str, names[:SHOWN])) + (" …" if len(names) > SHOWN else "")
