"""The starting model of ``PreferenceTrainer``, which is also the reference: loads it, checks it, adds adapters."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from semdpo.engine import fingerprint, model_folders
from semdpo.errors import ConfigError, ModelError
from semdpo.models.adapters import is_adapters, name_of_base
from semdpo.models.loading import quiet
from semdpo.models.registry import resolve
from semdpo.models.rewriter import SETTINGS, load_causal
from semdpo.models.rewriter_settings import RewriterSettings, read_settings
from semdpo.recipe.base import TEMPLATE
from semdpo.training.config import PreferenceConfig


@dataclass(frozen=True)
class Start:
    """The starting model.

    Attributes:
        model: the model, which training changes.
        tokenizer: the model's tokenizer.
        kept: settings that the rewriter needs for use.
        name: name or folder of the model; None where a model object was given.
        content: SHA-256 of the model's files; None where a model object was given.
    """

    model: Any
    tokenizer: Any
    kept: RewriterSettings
    name: str | None = None
    content: str | None = None


def start_of(model: str | Path | Any, tokenizer: Any, args: PreferenceConfig, peft_config: Any = None) -> Start:
    """Loads the starting model, or checks a given one.

    Args:
        model: name or folder of the model, or a causal language model.
        tokenizer: the model's tokenizer; None uses the model's own.
        args: settings of the training; their template replaces the model's own.
        peft_config: configuration of the adapters that will be trained; None where all weights are.

    Raises:
        ConfigError: the model, the tokenizer and the adapters do not fit together.
        ModelError: the model cannot be loaded.
    """
    named = isinstance(model, str | Path)
    start = _loaded(str(model), tokenizer) if named else _given(model, tokenizer, peft_config)
    if getattr(start.tokenizer, "eos_token_id", 0) is None:
        raise ConfigError("processing_class has no end token, without which no rewrite ends; set its eos_token")
    reads = args.reads or start.kept.reads
    return replace(start, kept=replace(start.kept, template=reads.text, system=reads.system))


def _loaded(name: str, tokenizer: Any) -> Start:
    place = resolve(name)
    model_folders.refuse_damaged(place.folder())
    with fingerprint.unchanged(name):
        model, own_tokenizer = load_causal(place.folder(), place.tokenizer_folder())
    return Start(model, tokenizer or own_tokenizer, read_settings(place.folder()), name, fingerprint.model(name))


def _given(model: Any, tokenizer: Any, peft_config: Any) -> Start:
    if tokenizer is None:
        raise ConfigError("the model is an object, so its tokenizer is not known; give processing_class")
    if peft_config is None:
        refuse_half_precision(model)
    elif hasattr(model, "peft_config"):
        raise ConfigError("the model has adapters of PEFT already; leave peft_config out, or give the model without")
    for adapters in getattr(model, "peft_config", {}).values():
        _refuse_virtual_tokens(adapters)
    # A model that semdpo trained knows the template of its training.
    folder = str(getattr(model, "name_or_path", "") or "")
    has_settings = bool(folder) and (Path(folder) / SETTINGS).is_file()
    return Start(model, tokenizer, read_settings(Path(folder)) if has_settings else RewriterSettings(TEMPLATE))


def refuse_half_precision(model: Any) -> None:
    """Refuses weights that are trained in float16 or bfloat16, where most updates are lost to rounding.

    Args:
        model: the policy; quantised models are accepted.

    Raises:
        ConfigError: a trainable weight is not float32.
    """
    if getattr(model, "is_quantized", False):
        return
    for name, weight in model.named_parameters():
        if weight.requires_grad and weight.dtype != torch.float32:
            kind = str(weight.dtype).removeprefix("torch.")
            raise ConfigError(
                f"the weights to be trained are {kind} ({name}), whose rounding loses most updates; load the model "
                "with dtype=torch.float32; bf16=True computes in bfloat16"
            )


def _refuse_virtual_tokens(peft_config: Any) -> None:
    if getattr(peft_config, "is_prompt_learning", False):
        raise ConfigError(
            f"{type(peft_config).__name__} trains virtual tokens before the prompt, which is not supported; use "
            "LoraConfig"
        )


def move(model: Any, args: PreferenceConfig) -> None:
    """Moves a model to the training's device, unless it is quantised or spread over devices."""
    spread = getattr(model, "hf_device_map", None) or getattr(model, "is_quantized", False)
    if not spread and args.place_model_on_device is not False:
        model.to(args.device)


def loaded_again(start: Start, args: PreferenceConfig) -> Any:
    """A second copy of the starting model, because training has changed the first one.

    Raises:
        ConfigError: the model was given as an object, so there is no second copy.
        ModelError: the model's files have changed since the trainer was made.
    """
    cure = "give eval_dataset when the trainer is made"
    if start.name is None:
        raise ConfigError(
            "the reference's log-probabilities of new pairs cannot be computed, because training has changed the "
            f"model object that was the reference; {cure}, or give the model's folder instead of the object"
        )
    if fingerprint.model(start.name) != start.content:
        raise ModelError(
            f"the reference's log-probabilities of new pairs cannot be computed, because the files of '{start.name}' "
            f"have changed since the trainer was made; {cure}"
        )
    place = resolve(start.name)
    model, _ = load_causal(place.folder(), place.tokenizer_folder())
    move(model, args)
    return model


def with_adapters(start: Start, peft_config: Any, seed: int) -> Any:
    """The starting model with new adapters, which leave its output unchanged at first.

    Args:
        start: the starting model.
        peft_config: configuration of PEFT.
        seed: seed of the adapters' initial weights.

    Raises:
        ConfigError: the adapters do not fit the model.
    """
    from peft import get_peft_model

    place = None if start.name is None else resolve(start.name)
    if place is not None and is_adapters(place.folder()):
        raise ConfigError(
            f"'{start.name}' holds adapters already; leave peft_config out, which trains its whole model, or use "
            "semdpo.train with lora_rank, which saves a whole model"
        )
    _refuse_virtual_tokens(peft_config)
    try:
        with quiet(), torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            adapted = get_peft_model(start.model, peft_config)
    except ValueError as error:
        raise ConfigError(f"peft_config does not fit {type(start.model).__name__}: {error}") from error
    if place is not None:
        adapted.peft_config["default"].base_model_name_or_path = name_of_base(place)
    refuse_half_precision(adapted)
    return adapted
