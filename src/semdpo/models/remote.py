"""Models that bring Python code of their own: found, tried and read completely, once the user has allowed it."""

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
    """A class between a remote class and transformers while its weights are read.

    A remote class whose own ``from_pretrained`` goes on working with the model (jina-embeddings-v4 wraps it in
    adapters) cannot be asked for transformers' loading information: it would get a pair. Here it gets the model, and
    the information is kept, so that weights that are not in the files are noticed all the same.
    """

    # Read by such code; transformers 5 keeps these renamings elsewhere, and applies them by itself.
    _checkpoint_conversion_mapping: ClassVar[dict[str, str]] = {}
    info: ClassVar[dict[str, Any]]

    @classmethod
    def from_pretrained(cls, *arguments: Any, **named: Any) -> Any:
        """transformers' own, which keeps the information for us."""
        model, cls.info = super().from_pretrained(*arguments, **{**named, "output_loading_info": True})
        return model


def has_remote_code(folder: Path) -> bool:
    """Whether a model's ``config.json`` names code of its own for the model."""
    return (folder / "config.json").is_file() and "AutoModel" in (read_json(folder / "config.json").get("auto_map", {}))


def load_remote(folder: Path, where: Compute) -> Any:
    """A model of a class of its own, in evaluation mode, every weight read from the folder.

    Args:
        folder: a saved model with Python files; they run, so the user must have allowed it.
        where: the device and the type of the weights.

    Raises:
        ModelError: the code does not run with the libraries that are installed, or weights are absent.
    """
    try:
        found, config = _class_of(folder)
        with quiet(), warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            model = found.from_pretrained(str(folder), config=config, dtype=where.dtype, local_files_only=True)
        if any("missing adapter keys" in str(each.message) for each in caught):
            _fill_adapters(folder, model)
    except ModelError:
        raise
    except Exception as error:  # whatever code that is not ours may raise
        raise _unusable(folder, error) from error
    if (info := getattr(found, "info", None)) is not None:
        refuse_missing(folder, info)
    return model.to(where.device).eval()


def _fill_adapters(folder: Path, model: Any) -> None:
    """Reads adapters that peft left as they were initialised, without any effect.

    The layers of jina-embeddings-v4 hold an adapter a task, as ``lora_A.default.TASK.weight``. Files lack ``default``,
    which older releases of peft put back at this place; 0.21 does so only where nothing but ``weight`` follows.
    """
    from peft import load_peft_weights

    files = sorted(folder.rglob("adapter_model.safetensors"))
    if len(files) != 1:
        raise ModelError(f"'{folder}' has {len(files)} files of adapters, and its own code left some of them unread")
    renamed = getattr(model.get_base_model(), "_checkpoint_conversion_mapping", None)
    stored = load_peft_weights(str(files[0].parent), device="cpu", key_mapping=renamed)
    names = "|".join(re.escape(name) for name in model.peft_config)
    wanted = {
        key: re.sub(rf"(\.lora_\w+)\.({names})(?=\.)", r"\1", key) for key in model.state_dict() if ".lora_" in key
    }
    refuse_missing(
        folder, {"missing_keys": [key for key in wanted.values() if key not in stored], "mismatched_keys": []}
    )
    model.load_state_dict({key: stored[name] for key, name in wanted.items()}, strict=False)


def try_remote(folder: Path) -> None:
    """Imports a model's own code and builds its class without memory for weights, as far as loading would go.

    Args:
        folder: as of ``load_remote``.

    Raises:
        ModelError: it fails, and would otherwise fail after hours of rendering.
    """
    try:
        found, config = _class_of(folder)
        with quiet(), torch.device("meta"):
            found(config)
    except ModelError:
        raise
    except Exception as error:  # whatever code that is not ours may raise
        raise _unusable(folder, error) from error


def _class_of(folder: Path) -> tuple[Any, Any]:
    from transformers.dynamic_module_utils import get_class_from_dynamic_module

    settings = read_json(folder / "config.json")
    with quiet():
        # The code may lie in another repository of the hub, from where it is fetched unless HF_HUB_OFFLINE is set.
        found: Any = get_class_from_dynamic_module(settings["auto_map"]["AutoModel"], str(folder))
        config = AutoConfig.from_pretrained(str(folder), trust_remote_code=True)
    if issubclass(found, PreTrainedModel):
        # In the order of resolution we stand after all of the remote classes, and before transformers' own.
        found = type(found.__name__, (found, _Complete), {"__module__": found.__module__})
    return found, config


def _unusable(folder: Path, error: BaseException) -> ModelError:
    import transformers

    fourth = "JinaEmbeddingsV4Model" in (read_json(folder / "config.json").get("architectures") or [])
    instead = ", use jina-clip-v2 in its place" if fourth else ""
    return ModelError(
        f"the Python code that comes with '{folder}' does not run with transformers {transformers.__version__} "
        f"({reason(error)}); install what it asks for{instead}, or remove the model from the recipe"
    )
