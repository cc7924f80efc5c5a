"""Models that run their own Python code: loaded completely, once the user has allowed the code to run."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any, ClassVar

import torch
from transformers import AutoConfig, PreTrainedModel

from semdpo.errors import ModelError
from semdpo.models.device import Compute
from semdpo.models.loading import quiet, read_json, reason, refuse_missing


class _Complete(PreTrainedModel):  # type: ignore[misc]
    """A class between a remote class and transformers, which notices weights that are not in the files.

    A remote class may call ``from_pretrained`` and then change the model (jina-embeddings-v4 wraps it in adapters), so
    it cannot be called with ``output_loading_info``, which returns a pair. This class asks for that information, keeps
    it, and returns the model alone.
    """

    # The remote code reads it; transformers 5 keeps these renamings elsewhere, and applies them itself.
    _checkpoint_conversion_mapping: ClassVar[dict[str, str]] = {}
    info: ClassVar[dict[str, Any]]

    @classmethod
    def from_pretrained(cls, *arguments: Any, **named: Any) -> Any:
        """transformers' own method; the loading information is kept in ``info``."""
        model, cls.info = super().from_pretrained(*arguments, **{**named, "output_loading_info": True})
        return model


def has_remote_code(folder: Path) -> bool:
    """Whether a model's ``config.json`` names Python code of the model's own."""
    return (folder / "config.json").is_file() and "AutoModel" in (read_json(folder / "config.json").get("auto_map", {}))


def load_remote(folder: Path, where: Compute) -> Any:
    """A model of its own Python class, in evaluation mode, with every weight read from the folder.

    Args:
        folder: The folder of a saved model with Python files. They run, so the user must have allowed it.
        where: The device and the weights' type.

    Raises:
        ModelError: The code does not run with the installed libraries, or weights are missing.
    """
    try:
        model_class, config = _class_of(folder)
        with quiet(), warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            model = model_class.from_pretrained(str(folder), config=config, dtype=where.dtype, local_files_only=True)
        if any("missing adapter keys" in str(warning.message) for warning in caught):
            _fill_adapters(folder, model)
    except ModelError:
        raise
    except Exception as error:  # remote code may raise anything
        raise _unusable(folder, error) from error
    if (info := getattr(model_class, "info", None)) is not None:
        refuse_missing(folder, info)
    return model.to(where.device).eval()


def _fill_adapters(folder: Path, model: Any) -> None:
    """Reads adapters that peft left at their initial values, at which they have no effect.

    The layers of jina-embeddings-v4 hold one adapter per task, named ``lora_A.default.TASK.weight``. The files leave
    ``default`` out. Older releases of peft put it back here; 0.21 does so only where nothing but ``weight`` follows.
    """
    from peft import load_peft_weights

    files = sorted(folder.rglob("adapter_model.safetensors"))
    if len(files) != 1:
        raise ModelError(f"'{folder}' has {len(files)} files of adapters, and its own code left some of them unread")
    renamed = getattr(model.get_base_model(), "_checkpoint_conversion_mapping", None)
    stored = load_peft_weights(str(files[0].parent), device="cpu", key_mapping=renamed)
    names = "|".join(re.escape(name) for name in model.peft_config)
    names_in_file = {
        key: re.sub(rf"(\.lora_\w+)\.({names})(?=\.)", r"\1", key) for key in model.state_dict() if ".lora_" in key
    }
    refuse_missing(
        folder, {"missing_keys": [key for key in names_in_file.values() if key not in stored], "mismatched_keys": []}
    )
    model.load_state_dict({key: stored[name] for key, name in names_in_file.items()}, strict=False)


def try_remote(folder: Path) -> None:
    """Imports a model's own code and builds its class without memory for weights, to find out early if that fails.

    Args:
        folder: As for ``load_remote``.

    Raises:
        ModelError: The code fails; without this check it would fail after hours of rendering.
    """
    try:
        model_class, config = _class_of(folder)
        with quiet(), torch.device("meta"):
            model_class(config)
    except ModelError:
        raise
    except Exception as error:  # remote code may raise anything
        raise _unusable(folder, error) from error


def _class_of(folder: Path) -> tuple[Any, Any]:
    from transformers.dynamic_module_utils import get_class_from_dynamic_module

    settings = read_json(folder / "config.json")
    with quiet():
        # The code may be in another repository of the hub; it is downloaded unless HF_HUB_OFFLINE is set.
        model_class: Any = get_class_from_dynamic_module(settings["auto_map"]["AutoModel"], str(folder))
        config = AutoConfig.from_pretrained(str(folder), trust_remote_code=True)
    if issubclass(model_class, PreTrainedModel):
        # In the method resolution order, _Complete comes after all remote classes and before transformers' own.
        model_class = type(model_class.__name__, (model_class, _Complete), {"__module__": model_class.__module__})
    return model_class, config


def _unusable(folder: Path, error: BaseException) -> ModelError:
    import transformers

    fourth = "JinaEmbeddingsV4Model" in (read_json(folder / "config.json").get("architectures") or [])
    instead = ", use jina-clip-v2 in its place" if fourth else ""
    return ModelError(
        f"the Python code that comes with '{folder}' does not run with transformers {transformers.__version__} "
        f"({reason(error)}); install what it needs{instead}, or remove the model from the recipe"
    )
