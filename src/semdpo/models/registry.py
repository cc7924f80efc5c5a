"""Finds the place of a model by its name: a folder or a repository of the hub."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

from semdpo import disk
from semdpo.disk import COPY_FIRST, address, is_dir, is_file
from semdpo.errors import ModelError, did_you_mean
from semdpo.models.catalogue import PUBLISHED, SKIPPED, TRANSFORMERS, WORDS, Published
from semdpo.recipe.endpoints import is_url, without_credentials
from semdpo.tiny_world import shipped

TINY = shipped.WEIGHTS
OWN_MODELS = "SEMDPO_MODELS"  # environment variable: a folder of downloaded models, searched before the hub

ADAPTERS = "adapter_config.json"  # PEFT's: the folder's weights are added to those of another model

CURE_OF_BASE = f"put the base's folder into base_model_name_or_path of its {ADAPTERS}"

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_TOKENIZERS = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "vocab.json")


@dataclass(frozen=True, slots=True)
class Place:
    """The place of a model: a folder, or a repository of the hub.

    Attributes:
        name: The name that the user wrote.
        path: The folder's path, or the hub id.
        local: Whether ``path`` is a folder.
        files: The patterns of the files to download from the hub.
        tokenizer: The hub id of the tokenizer, for a model without one.
        base: The name of the model that it stands on, for a model that is only a head.
    """

    name: str
    path: str
    local: bool
    files: tuple[str, ...] = TRANSFORMERS
    tokenizer: str | None = None
    base: str | None = None

    def folder(self) -> Path:
        """The model's folder; a model of the hub is downloaded unless it already was.

        Raises:
            ModelError: The hub cannot be reached, does not have the model, or does not give it to this user.
        """
        if self.local:
            return Path(self.path)
        from semdpo.models.hub import fetch

        return fetch(self.path, self.name, self.files, SKIPPED)

    def tokenizer_folder(self) -> Path:
        """The folder of the tokenizer: the model's own folder if it has one.

        Raises:
            ModelError: As for ``folder``.
        """
        folder = self.folder()
        if self.tokenizer is None or has_tokenizer(folder):
            return folder
        place = resolve(self.tokenizer)
        return Place(place.name, place.path, place.local, WORDS).folder()

    def separate_tokenizer(self) -> str | None:
        """The hub id of the tokenizer that must be downloaded too; None if the model's own folder has one."""
        return None if self.local and has_tokenizer(Path(self.path)) else self.tokenizer

    def separate_base(self) -> str | None:
        """The name of the model that it stands on; None if it stands on none, or its own folder holds that model."""
        return None if self.local and (Path(self.path) / "config.json").is_file() else self.base

    def base_place(self) -> Place:
        """The place of the model that it stands on: its own place if it stands on none, or holds that model.

        Raises:
            ModelError: As for ``resolve``.
        """
        base = self.separate_base()
        return self if base is None else resolve(base)


def resolve(name: str) -> Place:
    """Finds a model by name.

    Args:
        name: The model's name: ``tiny:NAME`` (the embedded world), an existing folder, a short published name, or
            ``owner/name``. The last two are searched in the folder that the environment variable ``SEMDPO_MODELS``
            names, and then on the hub.

    Raises:
        ModelError: The name is unknown, is a file, or is the URL of a server, which has no files.
    """
    text = str(name).strip()
    if is_url(text):
        raise ModelError(
            f"'{without_credentials(text)}' is a server; here a model with files is needed: give a folder or a "
            "published name"
        )
    if text.startswith("tiny:"):
        return Place(text, str(_tiny(text)), local=True)
    short = short_name(text)
    published = PUBLISHED.get(short, Published(text))
    copy = _users_copy(short) or _users_copy(published.repository)
    if copy:
        return Place(text, str(copy), local=True, tokenizer=published.tokenizer, base=published.base)
    if text in PUBLISHED and not is_dir(text):
        return Place(text, published.repository, False, published.files, published.tokenizer, published.base)
    if text and is_dir(text):
        held = held_in(Path(text))
        companions = (None, None) if held is None else (held.tokenizer, held.base)
        return Place(text, text, True, TRANSFORMERS, *companions)
    if text and is_file(text):
        raise ModelError(f"model '{text}' is a file; give the folder that contains it")
    if _HUB_ID.fullmatch(text):
        return Place(text, text, False, published.files, published.tokenizer, published.base)
    if (elsewhere := address(text)) is not None and not is_url(text):
        raise ModelError(f"model {elsewhere} {COPY_FIRST}")
    known = [*PUBLISHED, *(f"tiny:{name}" for name in tiny_names())]
    raise ModelError(f"model '{text}' is neither a folder nor a known name{did_you_mean(text, known)}")


def base_of(folder: Path) -> str:
    """The name of the model that a folder's adapters are added to.

    Args:
        folder: The adapters' folder, with PEFT's ``adapter_config.json``.

    Raises:
        ModelError: The folder names no base model.
    """
    try:
        base = json.loads(disk.read(folder / ADAPTERS).decode()).get("base_model_name_or_path")
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise ModelError(f"'{folder / ADAPTERS}' is not a JSON object; save the adapters again") from error
    if not isinstance(base, str) or not base:
        raise ModelError(f"'{folder}' holds adapters and does not name the model they belong to; {CURE_OF_BASE}")
    return base


def lasting(name: str) -> str:
    """A model's name that is valid in any working directory: a folder's absolute path, other names unchanged."""
    text = name.strip()
    if text.startswith("tiny:") or text in PUBLISHED or _users_copy(text) or not is_dir(text):
        return text
    return str(Path(text).resolve())


def published(name: str) -> Published | None:
    """The published model of a short name or a repository; None for other names."""
    return next((model for short, model in PUBLISHED.items() if name in (short, model.repository)), None)


def short_name(name: str) -> str:
    """The short name of a published model that is named by it or by its repository; other names unchanged."""
    return next((short for short, model in PUBLISHED.items() if name == model.repository), name)


def reads_prompt(name: str) -> bool:
    """Whether a scorer reads the prompt, as far as its name or the checkpoint in its folder tells; if not, True."""
    try:
        place = resolve(name)
    except ModelError:  # reported where the model is loaded
        return True
    model = published(name) or (held_in(Path(place.path)) if place.local else None)
    return model is None or model.reads_prompt


def tiny_names() -> list[str]:
    """The names of the embedded world's models, sorted."""
    return sorted(folder.name for folder in TINY.iterdir() if folder.is_dir()) if TINY.is_dir() else []


def has_tokenizer(folder: Path) -> bool:
    """Whether a folder contains a tokenizer."""
    return any((folder / file).is_file() for file in _TOKENIZERS)


def _users_copy(name: str) -> Path | None:
    """The folder of a published model under ``SEMDPO_MODELS``; None if the user has none."""
    root = os.environ.get(OWN_MODELS)
    if not root or not name or name.startswith((".", "/")):
        return None
    folder = Path(root) / name
    return folder if is_dir(folder) else None


def held_in(folder: Path) -> Published | None:
    """The published model whose checkpoint, in its authors' format, a user's folder holds; None if it holds none."""
    for model in PUBLISHED.values():
        checkpoints = (*model.files[:1], *model.also)
        if any("*" not in file and (folder / file).is_file() for file in checkpoints):
            return model
    return None


def _tiny(name: str) -> Path:
    short, names = name.removeprefix("tiny:"), tiny_names()
    if short in names:
        return TINY / short
    if not names:
        raise ModelError(f"model '{name}' is missing; build the embedded models with `semdpo world build --ship`")
    raise ModelError(f"there is no model '{name}'{did_you_mean(name, [f'tiny:{tiny}' for tiny in names])}")
