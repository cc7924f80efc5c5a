"""What the files of a sentence-transformers model say of its use: what stands before every text, and code of its own.

Prompt and rewrite are texts of one kind, so both get the same prefix: the one that the model's files name as default;
without a default, the one that its authors ask for (in the catalogue), or the one that its files name for the task STS,
in which two texts of one kind are compared. Names of tasks are those of MTEB.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from semdpo import disk
from semdpo.errors import ModelError
from semdpo.models.registry import published

MODULES, SETTINGS = "modules.json", "config_sentence_transformers.json"
SIMILARITY = "STS"
_THEIRS = "sentence_transformers."  # what the names of the library's own modules begin with


@dataclass(frozen=True, slots=True)
class Prefix:
    """What stands before every text.

    Attributes:
        text: The prefix; empty for none.
        chosen_here: Whether semdpo chose it, so that the files alone do not determine the vectors.
        unused: The names of the model's prompts, where none of them is used.
    """

    text: str = ""
    chosen_here: bool = False
    unused: tuple[str, ...] = ()


def is_sentence_model(folder: Path) -> bool:
    """Whether a folder holds a sentence-transformers model."""
    return (folder / MODULES).is_file()


def prefix_of(name: str, folder: Path) -> Prefix:
    """The prefix of a model's texts.

    Args:
        name: The name that the user wrote.
        folder: The model's folder; one that holds no sentence-transformers model gives no prefix.

    Raises:
        ModelError: The files of the folder cannot be read, or name a default that is none of its prompts.
    """
    if not is_sentence_model(folder):
        return Prefix()
    settings = _read(folder / SETTINGS) if (folder / SETTINGS).is_file() else {}
    prompts = settings.get("prompts") if isinstance(settings, dict) else None
    if not isinstance(settings, dict) or not isinstance(prompts or {}, dict):
        raise ModelError(f"'{folder / SETTINGS}' does not hold prompts by name; save the model again")
    prompts = {key: text for key, text in (prompts or {}).items() if isinstance(text, str)}
    default = settings.get("default_prompt_name")
    if default is not None:
        if not isinstance(default, str) or default not in prompts:
            raise ModelError(
                f"'{folder / SETTINGS}' names the prompt {default!r} as default and does not have it; add it to prompts"
            )
        return Prefix(prompts[default])
    model = published(name)
    asked_for = "" if model is None or model.encoder is None else model.encoder.prefix
    text = asked_for or prompts.get(SIMILARITY, "")
    return Prefix(text, bool(text), () if text else tuple(key for key, prompt in prompts.items() if prompt))


def runs_code(folder: Path) -> bool:
    """Whether a sentence-transformers model has modules of its own, or a network that it brings itself.

    Raises:
        ModelError: Its files cannot be read.
    """
    modules = _read(folder / MODULES)
    if not isinstance(modules, list) or not all(isinstance(each, dict) for each in modules):
        raise ModelError(f"'{folder / MODULES}' must hold a list of modules; save the model again")
    if not all(str(each.get("type", "")).startswith(_THEIRS) for each in modules):
        return True
    configs = {folder / str(each.get("path", "")) / "config.json" for each in modules}
    return any(_brings_network(path) for path in configs if path.is_file())


def _brings_network(path: Path) -> bool:
    """Whether a configuration names Python files for a kind of network that transformers does not know."""
    config = _read(path)
    if not isinstance(config, dict) or not config.get("auto_map"):
        return False
    from transformers import CONFIG_MAPPING  # here, since it imports torch

    return str(config.get("model_type")) not in CONFIG_MAPPING


def _read(path: Path) -> Any:
    try:
        return json.loads(disk.read(path).decode())
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"'{path}' is not readable JSON; save or download the model again") from error
