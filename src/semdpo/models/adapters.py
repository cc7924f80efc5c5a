"""Folders of PEFT adapters: finds their base model, and adds their weights to its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from semdpo import extras
from semdpo.errors import ModelError
from semdpo.models.loading import UNREADABLE, quiet, unreadable
from semdpo.models.registry import ADAPTERS, CURE_OF_BASE, Place, base_of, resolve


def is_adapters(folder: Path) -> bool:
    """Whether a folder holds adapters and no whole model."""
    return (folder / ADAPTERS).is_file() and not (folder / "config.json").is_file()


def place_of_base(folder: Path) -> Place:
    """The place of the base model of a folder's adapters; it may itself be a folder of adapters.

    Raises:
        ModelError: The folder does not name its base, or the base is missing.
    """
    base = base_of(folder)
    try:
        place = resolve(base)
        if place.folder().resolve() == folder.resolve():
            raise ModelError("it is the same folder")
    except ModelError as error:
        raise ModelError(
            f"'{folder}' holds adapters of '{base}', which cannot be loaded ({error}); {CURE_OF_BASE}"
        ) from error
    return place


def name_of_base(place: Place) -> str:
    """The name of the base for adapters to store, valid from any folder: a hub id, or a folder's absolute path."""
    return str(Path(place.path).resolve()) if place.local else place.path


def merged(base: Any, folder: Path) -> Any:
    """A model with a folder's adapters added to its weights; it is an ordinary model afterwards.

    Args:
        base: The base model, with float32 weights; it is changed.
        folder: The adapters' folder, with ``adapter_config.json``.

    Raises:
        ConfigError: PEFT is not installed.
        ModelError: The adapters do not fit the base, or some of their weights are missing.
    """
    extras.require(lora=f"'{folder}', which holds adapters,")
    from peft import PeftConfig, PeftModel

    try:
        with quiet():
            adapted = PeftModel(base, PeftConfig.from_pretrained(str(folder)), autocast_adapter_dtype=False)
            loaded = adapted.load_adapter(
                str(folder), "default", torch_device=str(base.device), autocast_adapter_dtype=False
            )
    except UNREADABLE as error:
        raise unreadable(folder, "set of adapters", error) from error
    misfits = [*loaded.missing_keys, *loaded.unexpected_keys]
    if misfits:
        raise ModelError(
            f"the adapters in '{folder}' do not fit their base: {len(misfits)} weights are missing or unknown, such as "
            f"{misfits[0]}; save them again, or name the right base"
        )
    return merge(adapted)


def merge(adapted: Any) -> Any:
    """Adds a PEFT model's adapters to its weights.

    Args:
        adapted: A PEFT model; it is changed.

    Returns:
        The model without adapters. If embeddings and head shared one matrix and adapters changed only one of them, they
        have two matrices afterwards.

    Raises:
        ModelError: Adapters of this kind cannot be added to weights (prompt tuning, for example).
    """
    model = adapted.get_base_model()
    tied = _untie(model)
    try:
        with quiet():
            whole = adapted.merge_and_unload(safe_merge=True)
    except (AttributeError, NotImplementedError, ValueError) as error:
        raise ModelError(f"these adapters cannot be added to the model's weights ({error}); use LoRA") from error
    if tied:
        _retie(whole)
    return whole.requires_grad_(True).eval()  # PEFT had frozen them


def _untie(model: Any) -> bool:
    """Gives the head its own matrix while adapters are added, because they may belong to head or embeddings only.

    Returns:
        Whether the head shared the embeddings' matrix.
    """
    head, words = (_bare(module) for module in (model.get_output_embeddings(), model.get_input_embeddings()))
    if head is None or head.weight is not words.weight:
        return False
    head.weight = torch.nn.Parameter(words.weight.detach().clone(), words.weight.requires_grad)
    return True


def _bare(module: Any) -> Any:
    """The layer that adapters wrap."""
    for name in ("original_module", "base_layer"):
        module = getattr(module, name, module)
    return module


def _retie(model: Any) -> None:
    """Lets head and embeddings share one matrix again if they are equal; otherwise the configuration records two."""
    head, words = model.get_output_embeddings(), model.get_input_embeddings()
    equal = torch.equal(head.weight, words.weight)
    if equal:
        head.weight = words.weight
    model.config.tie_word_embeddings = equal
    model.all_tied_weights_keys = model.get_expanded_tied_weights_keys(all_submodels=False)
