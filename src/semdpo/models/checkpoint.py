"""Checkpoints in their publishers' own formats: read without running code, and loaded name by name."""

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
    """The tensors of a checkpoint, by name; they may be nested under ``state_dict``.

    Args:
        path: A ``.safetensors`` file, or a file of ``torch.save``, which is read with ``weights_only``.

    Raises:
        ModelError: The file cannot be read (it may be only partly downloaded), or holds more than tensors.
    """
    try:
        if path.suffix == ".safetensors":
            whole: dict[str, Tensor] = load_file(path)
            return whole
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError, SafetensorError) as error:
        size = path.stat().st_size if path.is_file() else 0
        raise ModelError(
            f"'{path}' ({size:,} bytes) is not a readable checkpoint of weights; download it again, since a part may "
            "be missing"
        ) from error
    state = content.get("state_dict", content) if isinstance(content, Mapping) else content
    if not isinstance(state, Mapping) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise ModelError(f"'{path}' does not hold a mapping of names to tensors; give the published file")
    return dict(state)


def load_strictly(model: nn.Module, state: Mapping[str, Tensor], source: str | Path) -> None:
    """Puts weights into a model; every weight must be present and of the right shape.

    Args:
        model: The model; it takes the tensors as they are, with their precision.
        state: The weights, by the model's own names.
        source: The name of the weights' file, for the message.

    Raises:
        ModelError: Names are missing or unknown, or shapes differ; they are named.
    """
    expected = {name: tuple(weight.shape) for name, weight in model.state_dict().items()}
    shapes = [
        f"{name} {tuple(weight.shape)} instead of {expected[name]}"
        for name, weight in state.items()
        if name in expected and tuple(weight.shape) != expected[name]
    ]
    problems = {
        "missing": sorted(expected.keys() - state.keys()),
        "unknown": sorted(state.keys() - expected.keys()),
        "of another shape": shapes,
    }
    if lines := [f"{len(names)} {what}: {_some(names)}" for what, names in problems.items() if names]:
        raise ModelError(
            f"the weights of '{source}' do not fit this model; {'; '.join(lines)}; give the published file"
        )
    model.load_state_dict(state, assign=True)


def _some(names: list[Any]) -> str:
    return ", ".join(map(str, names[:SHOWN])) + (" …" if len(names) > SHOWN else "")
