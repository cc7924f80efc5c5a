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
from semdpo.recipe.endpoints import is_url, without_credentials
from semdpo.tiny_world import shipped

TINY = shipped.WEIGHTS
OWN_MODELS = "SEMDPO_MODELS"  # environment variable: a folder of downloaded models, searched before the hub

ADAPTERS = "adapter_config.json"  # PEFT's: the folder's weights are added to those of another model

CURE_OF_BASE = f"put the base's folder into base_model_name_or_path of its {ADAPTERS}"

WORDS = ("*.json", "*.txt", "*.model", "*.jinja")  # tokenizers and settings
_TRANSFORMERS = (*WORDS, "*.safetensors")


@dataclass(frozen=True, slots=True)
class Published:
    """A published model.

    Attributes:
        repository: The repository on the hub, ``owner/name``.
        files: The patterns of the files that are needed.
        tokenizer: The repository of the tokenizer, if the model's own repository has none.
        base: The name of the model that it stands on: its own files are only a head for that model's vectors.
        also: Other names under which its authors publish the same kind of checkpoint; a user's folder may hold one.
        reads_prompt: Whether it reads the prompt; a scorer that does not cannot tell whether an image shows it.
        licence: The licence of the weights, as far as this project has seen it named; empty where it has not.
        gated: Whether its licence must be accepted on the hub before a download.
        millions: The number of parameters, in millions.
        gigabytes: The approximate size of the downloaded files in GB, a safety checker included; 0 where not known.
        runs_code: Whether Python code that comes with the model must run.
        family: Of a text-to-image model: the key of its family in ``models/families.py``.
    """

    repository: str
    files: tuple[str, ...] = _TRANSFORMERS
    tokenizer: str | None = None
    base: str | None = None
    also: tuple[str, ...] = ()
    reads_prompt: bool = True
    licence: str = ""
    gated: bool = False
    millions: int = 0
    gigabytes: float = 0.0
    runs_code: bool = False
    family: str = ""


# Pipelines: the same weights may lie beside the parts' folders once more, in one file or in text_encoders/.
_PARTS = ("unet", "transformer", "text_encoder", "text_encoder_[23]", "vae")
_PIPELINE = (*WORDS, *(f"{part}/*.safetensors" for part in _PARTS))
_BFL, _STABILITY = "FLUX non-commercial", "Stability AI community"
_CLIP_H = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"
PUBLISHED = {
    "image-reward": Published(
        "THUDM/ImageReward",
        ("ImageReward.pt", "med_config.json"),
        "google-bert/bert-base-uncased",
        licence="Apache-2.0",
        millions=449,
        gigabytes=1.8,
    ),
    "hpsv2.1": Published(
        "xswu/HPSv2", ("HPS_v2.1_compressed.pt",), _CLIP_H, licence="Apache-2.0", millions=986, gigabytes=2.0
    ),
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
    "mps": Published(
        "DiffSynth-Studio/QualityMetric_reward_pretrained",
        ("MPS_overall_checkpoint/MPS_overall_checkpoint_diffsynth.safetensors",),
        _CLIP_H,
        also=("MPS_overall_checkpoint.pth",),
        licence="Apache-2.0",
        millions=1054,
        gigabytes=4.2,
    ),
    "hpsv3": Published(
        "MizzenAI/HPSv3",
        ("HPSv3.safetensors",),
        "Qwen/Qwen2-VL-7B-Instruct",
        licence="MIT",
        millions=8292,
        gigabytes=16.6,
    ),
    "laion-aesthetic": Published(
        "trl-lib/ddpo-aesthetic-predictor",
        ("aesthetic-model.pth",),
        base="clip-vit-large-patch14",
        also=("sac+logos+ava1-l14-linearMSE.pth", "ava+logos-l14-linearMSE.pth", "sa_0_4_vit_l_14_linear.pth"),
        reads_prompt=False,
        licence="Apache-2.0",
        millions=1,
        gigabytes=0.004,
    ),
    "unified-reward-qwen-3b": Published(
        "CodeGoat24/UnifiedReward-qwen-3b", licence="MIT", millions=3755, gigabytes=7.5
    ),
    "unified-reward-qwen-7b": Published(
        "CodeGoat24/UnifiedReward-qwen-7b", licence="MIT", millions=8292, gigabytes=16.6
    ),
    "unified-reward-2.0-qwen-3b": Published(
        "CodeGoat24/UnifiedReward-2.0-qwen-3b", licence="MIT", millions=3755, gigabytes=7.5
    ),
    "unified-reward-2.0-qwen-7b": Published(
        "CodeGoat24/UnifiedReward-2.0-qwen-7b", licence="MIT", millions=8292, gigabytes=16.6
    ),
    "unified-reward-2.0-qwen3vl-8b": Published(
        "CodeGoat24/UnifiedReward-2.0-qwen3vl-8b", licence="MIT", millions=8767, gigabytes=17.5
    ),
    "qwen2.5-vl-3b": Published("Qwen/Qwen2.5-VL-3B-Instruct", millions=3755, gigabytes=7.5),
    "stable-diffusion-v1-4": Published("CompVis/stable-diffusion-v1-4", millions=1066, gigabytes=5.5),
    # Parameters of denoiser, encoders and decoder, from diffusers' full-size defaults and the cards, in round numbers.
    # GB: two bytes for each where the files are in half precision; unknown where this project could not learn it.
    "sdxl": Published(
        "stabilityai/stable-diffusion-xl-base-1.0",
        _PIPELINE,
        millions=3469,
        gigabytes=13.9,
        licence="openrail++",
        family="sdxl",
    ),
    "sdxl-turbo": Published(
        "stabilityai/sdxl-turbo",
        _PIPELINE,
        millions=3469,
        gigabytes=13.9,
        licence="Stability AI non-commercial",
        family="sdxl-turbo",
    ),
    "sd3.5-large": Published(
        "stabilityai/stable-diffusion-3.5-large",
        _PIPELINE,
        gated=True,
        millions=13722,
        gigabytes=27.4,
        licence=_STABILITY,
        family="sd3.5-large",
    ),
    "sd3.5-large-turbo": Published(
        "stabilityai/stable-diffusion-3.5-large-turbo",
        _PIPELINE,
        gated=True,
        millions=13722,
        gigabytes=27.4,
        licence=_STABILITY,
        family="sd3.5-large-turbo",
    ),
    "sd3.5-medium": Published(
        "stabilityai/stable-diffusion-3.5-medium",
        _PIPELINE,
        gated=True,
        millions=8135,
        gigabytes=16.3,
        licence=_STABILITY,
        family="sd3.5-medium",
    ),
    "flux.1-schnell": Published(
        "black-forest-labs/FLUX.1-schnell",
        _PIPELINE,
        millions=16861,
        gigabytes=33.7,
        licence="Apache-2.0",
        family="flux-schnell",
    ),
    "flux.1-dev": Published(
        "black-forest-labs/FLUX.1-dev",
        _PIPELINE,
        gated=True,
        millions=16872,
        gigabytes=33.7,
        licence=_BFL,
        family="flux-dev",
    ),
    "flux.2-dev": Published(
        "black-forest-labs/FLUX.2-dev",
        _PIPELINE,
        gated=True,
        millions=56318,
        licence=_BFL,
        family="flux2",
    ),
    "flux.2-klein-4b": Published(
        "black-forest-labs/FLUX.2-klein-4B",
        _PIPELINE,
        millions=8000,
        licence="Apache-2.0",
        family="flux2-klein",
    ),
    "qwen-image": Published(
        "Qwen/Qwen-Image",
        _PIPELINE,
        millions=28850,
        gigabytes=57.7,
        licence="Apache-2.0",
        family="qwen-image",
    ),
    "z-image": Published(
        "Tongyi-MAI/Z-Image",
        _PIPELINE,
        millions=10261,
        licence="Apache-2.0",
        family="z-image",
    ),
    "z-image-turbo": Published(
        "Tongyi-MAI/Z-Image-Turbo",
        _PIPELINE,
        millions=10261,
        licence="Apache-2.0",
        family="z-image-turbo",
    ),
    "sana": Published(
        "Efficient-Large-Model/Sana_1600M_1024px_diffusers",
        _PIPELINE,
        millions=4531,
        family="sana",
    ),
    "pixart-sigma": Published(
        "PixArt-alpha/PixArt-Sigma-XL-2-1024-MS",
        _PIPELINE,
        millions=5457,
        gigabytes=21.8,
        licence="openrail++",
        family="pixart-sigma",
    ),
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
    files: tuple[str, ...] = _TRANSFORMERS
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
        held = _held(Path(text))
        companions = (None, None) if held is None else (held.tokenizer, held.base)
        return Place(text, text, True, _TRANSFORMERS, *companions)
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
    model = published(name) or (_held(Path(place.path)) if place.local else None)
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


def _held(folder: Path) -> Published | None:
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
