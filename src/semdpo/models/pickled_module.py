"""The weights of a whole module that was pickled, read without running any of the pickle's code.

``torch.save(model)`` writes the objects of a module, and reading them back the usual way imports and calls whatever the
file names. Here every class that the file names is replaced by an inert stand-in that only keeps what it is given.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from semdpo.errors import ModelError

_PARTS = ("_parameters", "_buffers", "_modules")


class _Inert:
    """Stands for an object of any class: it keeps its state, and does nothing."""

    state: Any = None

    def __new__(cls, *_given: object, **_named: object) -> _Inert:
        return object.__new__(cls)

    def __init__(self, *_given: object, **_named: object) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        self.state = state


def read_module(path: Path) -> dict[str, Tensor]:
    """The weights of a pickled ``torch.nn.Module``, by the names of its ``state_dict``.

    torch's ``weights_only`` reader does the reading, which calls nothing but its own short list of tensor functions;
    the other names in the file are given to it as stand-ins.

    Args:
        path: A file of ``torch.save(model)``.

    Raises:
        ModelError: The file cannot be read (it may be only partly downloaded), or holds no module.
    """
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
        stand_ins: list[Any] = [(type("Inert", (_Inert,), {}), name) for name in names]
        with torch.serialization.safe_globals(stand_ins):
            module = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError, AttributeError, TypeError) as error:
        size = path.stat().st_size if path.is_file() else 0
        raise ModelError(
            f"'{path}' ({size:,} bytes) is not a readable checkpoint of a model; download the published file again, "
            "since a part may be missing"
        ) from error
    weights = dict(_weights(module, ""))
    if not weights:
        raise ModelError(f"'{path}' does not hold a whole model; give the published file")
    return weights


def _weights(module: Any, above: str) -> Iterator[tuple[str, Tensor]]:
    """The persistent weights of a module and of those inside it."""
    state = module.state if isinstance(module, _Inert) else None
    if not isinstance(state, Mapping) or not all(isinstance(state.get(part), Mapping) for part in _PARTS):
        return
    passing = state.get("_non_persistent_buffers_set") or ()
    for part in _PARTS[:2]:
        for name, value in state[part].items():
            if isinstance(value, Tensor) and name not in passing:
                yield f"{above}{name}", value.detach()
    for name, inner in state["_modules"].items():
        yield from _weights(inner, f"{above}{name}.")
