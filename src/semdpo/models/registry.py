"""From the name of a model to the place where it lies."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

from semdpo.disk import is_dir, is_file
from semdpo.errors import ModelError, did_you_mean
from semdpo.tiny_world import shipped

TINY = shipped.WEIGHTS
OWN_MODELS = "SEMDPO_MODELS"  # environment variable: a folder of downloaded models, looked into before the hub

ADAPTERS = "adapter_config.json"  # PEFT's: the folder's weights are added to those of another model

CURE_OF_BASE = f"put the base's folder into base_model_name_or_path of its {ADAPTERS}"

WORDS = ("*.json", "*.txt", "*.model", "*.jinja")  # tokenizers and settings
_TRANSFORMERS = (*WORDS, "*.safetensors")


@dataclass(frozen=True, slots=True)
class Published:
    """A published model.

    Attributes:
        repository: of the hub.
        files: patterns of those that are needed.
        tokenizer: the repository of its tokenizer, where its own has none.
        gated: whether its licence must be accepted on the hub first.
        millions: of its parameters.
        gigabytes: of the files that are fetched, about; a safety checker is among them.
        runs_code: whether Python code that comes with it must run.
    """

    repository: str
    files: tuple[str, ...] = _TRANSFORMERS
    tokenizer: str | None = None
    gated: bool = False
    millions: int = 0
    gigabytes: float = 0.0
    runs_code: bool = False


_CLIP_H = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"
PUBLISHED = {
    "image-reward": Published(
        "THUDM/ImageReward",
        ("ImageReward.pt", "med_config.json"),
        "google-bert/bert-base-uncased",
        millions=449,
        gigabytes=1.8,
    ),
    "hpsv2.1": Published("xswu/HPSv2", ("HPS_v2.1_compressed.pt",), _CLIP_H, millions=986, gigabytes=2.0),
    "pickscore": Published("yuvalkirstain/PickScore_v1", tokenizer=_CLIP_H, millions=986, gigabytes=4.0),
    "clip-vit-large-patch14": Published("openai/clip-vit-large-patch14", millions=428, gigabytes=1.7),
    "blip-itm-base-coco": Published("Salesforce/blip-itm-base-coco", millions=224, gigabytes=0.9),
    "blip-itm-large-coco": Published("Salesforce/blip-itm-large-coco", millions=447, gigabytes=1.9),
    "jina-embeddings-v4": Published(
        "jinaai/jina-embeddings-v4", (*_TRANSFORMERS, "*.py"), millions=3940, gigabytes=8.0, runs_code=True
    ),
    "jina-clip-v2": Published(
        "jinaai/jina-clip-v2", (*_TRANSFORMERS, "*.py"), millions=865, gigabytes=1.8, runs_code=True
    ),
    "qwen2.5-vl-3b": Published("Qwen/Qwen2.5-VL-3B-Instruct", millions=3755, gigabytes=7.5),
    "stable-diffusion-v1-4": Published("CompVis/stable-diffusion-v1-4", millions=1066, gigabytes=5.5),
    "gpt2": Published("openai-community/gpt2", millions=124, gigabytes=0.6),
    "qwen1.5-1.8b": Published("Qwen/Qwen1.5-1.8B", millions=1837, gigabytes=3.7),
    "llama3.2-1b": Published("meta-llama/Llama-3.2-1B", gated=True, millions=1236, gigabytes=2.5),
    "qwen3-0.6b": Published("Qwen/Qwen3-0.6B", millions=596, gigabytes=1.5),
    "qwen3-1.7b": Published("Qwen/Qwen3-1.7B", millions=1721, gigabytes=4.1),
    "promptist": Published(
        "microsoft/Promptist", (*WORDS, "*.bin"), "openai-community/gpt2", millions=124, gigabytes=0.6
    ),
    "beautiful-prompt": Published(
        "alibaba-pai/pai-bloom-1b1-text2prompt-sd", (*_TRANSFORMERS, "*.bin"), millions=1065, gigabytes=2.2
    ),
}
SKIPPED = ("*.fp16.*", "*non_ema*", "onnx/*", "flax_*", "tf_*", "original/*")

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_TOKENIZERS = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "vocab.json")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a model lies.

    Attributes:
        name: what the user wrote.
        path: a folder's path, or a hub id.
        local: whether ``path`` is a folder.
        files: patterns of the files that are fetched from the hub.
        tokenizer: hub id of the tokenizer, for a folder without one.
    """

    name: str
    path: str
    local: bool
    files: tuple[str, ...] = _TRANSFORMERS
    tokenizer: str | None = None

    def folder(self) -> Path:
        """The folder; a hub id is looked up among what has been downloaded, and fetched when it is not there.

        Raises:
            ModelError: the hub cannot be reached, does not have it, or does not give it to this user.
        """
        if self.local:
            return Path(self.path)
        from semdpo.models.hub import fetch

        return fetch(self.path, self.name, self.files, SKIPPED)

    def tokenizer_folder(self) -> Path:
        """The folder with the tokenizer: the model's own where it has one.

        Raises:
            ModelError: as ``folder``.
        """
        own = self.folder()
        if self.tokenizer is None or has_tokenizer(own):
            return own
        place = resolve(self.tokenizer)
        return Place(place.name, place.path, place.local, WORDS).folder()

    def separate_tokenizer(self) -> str | None:
        """The hub id of the tokenizer that is needed beside the model; None when its own folder has one."""
        return None if self.local and has_tokenizer(Path(self.path)) else self.tokenizer


def resolve(name: str) -> Place:
    """Find a model.

    Args:
        name: ``tiny:NAME`` (the embedded world), an existing folder, a short published name, or ``owner/name``. The
            last two are looked for in the folder that the environment variable ``SEMDPO_MODELS`` names, before the
            hub is asked.

    Raises:
        ModelError: nothing of that name is known, or the folder is no model folder.
    """
    text = str(name).strip()
    if text.startswith("tiny:"):
        return Place(text, str(_tiny(text)), local=True)
    short = next((name for name, each in PUBLISHED.items() if text in (name, each.repository)), text)
    published = PUBLISHED.get(short, Published(text))
    own = _own(short) or _own(published.repository)
    if own:
        return Place(text, str(own), local=True, tokenizer=published.tokenizer)
    if text in PUBLISHED and not is_dir(text):
        return Place(text, published.repository, False, published.files, published.tokenizer)
    if text and is_dir(text):
        return Place(text, text, local=True, tokenizer=_companion(Path(text)))
    if text and is_file(text):
        raise ModelError(f"model '{text}' is a file; give the folder that it lies in")
    if _HUB_ID.fullmatch(text):
        return Place(text, text, False, published.files, published.tokenizer)
    known = [*PUBLISHED, *(f"tiny:{each}" for each in tiny_names())]
    raise ModelError(f"model '{text}' is neither a folder nor a known name{did_you_mean(text, known)}")


def base_of(folder: Path) -> str:
    """The name of the model that a folder's adapters are added to.

    Args:
        folder: with PEFT's ``adapter_config.json``.

    Raises:
        ModelError: it names none.
    """
    try:
        base = json.loads((folder / ADAPTERS).read_text(encoding="utf-8")).get("base_model_name_or_path")
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise ModelError(f"'{folder / ADAPTERS}' is not a JSON object; save the adapters again") from error
    if not isinstance(base, str) or not base:
        raise ModelError(f"'{folder}' holds adapters and does not name the model they belong to; {CURE_OF_BASE}")
    return base


def lasting(name: str) -> str:
    """A model's name that works in any working directory: a user's folder by its whole path, others as they are."""
    text = name.strip()
    if text.startswith("tiny:") or text in PUBLISHED or _own(text) or not is_dir(text):
        return text
    return str(Path(text).resolve())


def published(name: str) -> Published | None:
    """What is known of a published model, by its short name or its repository."""
    return next((each for short, each in PUBLISHED.items() if name in (short, each.repository)), None)


def tiny_names() -> list[str]:
    """The models of the embedded world, sorted."""
    return sorted(each.name for each in TINY.iterdir() if each.is_dir()) if TINY.is_dir() else []


def has_tokenizer(folder: Path) -> bool:
    """Whether a folder holds a tokenizer's files."""
    return any((folder / file).is_file() for file in _TOKENIZERS)


def _own(name: str) -> Path | None:
    """The user's own copy of a published model."""
    root = os.environ.get(OWN_MODELS)
    if not root or not name or name.startswith((".", "/")):
        return None
    folder = Path(root) / name
    return folder if is_dir(folder) else None


def _companion(folder: Path) -> str | None:
    """Hub id of the tokenizer that an upstream checkpoint in a user's folder needs."""
    for each in PUBLISHED.values():
        if each.tokenizer is not None and each.files[0].endswith(".pt") and (folder / each.files[0]).is_file():
            return each.tokenizer
    return None


def _tiny(name: str) -> Path:
    wanted = name.removeprefix("tiny:")
    known = tiny_names()
    if wanted in known:
        return TINY / wanted
    if not known:
        raise ModelError(f"model '{name}' is not there: build the embedded models with `semdpo world build`")
    raise ModelError(f"there is no model '{name}'{did_you_mean(name, [f'tiny:{each}' for each in known])}")
