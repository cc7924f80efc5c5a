"""Families of text-to-image models, and how their authors render: steps, guidance, size.

A family is recognised by a folder's ``model_index.json`` and the settings of its parts, so that a copy under any name
is known. Where those of two models are equal, the model's name tells them apart.

Sources: the signatures, examples and documentation of diffusers 0.42, the authors' repositories, and the model cards.
One of them is named where its values differ from the signature's defaults.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from semdpo.models.loading import read_json

TRUE_CFG = "true_cfg_scale"
GUIDANCE = "guidance_scale"


@dataclass(frozen=True, slots=True)
class Family:
    """How the models of one family are rendered with.

    Attributes:
        name: The family's name.
        steps: The denoising steps.
        guidance: The scale of guidance; None where the family takes none.
        argument: The pipeline's argument of the guidance; None where the family takes none.
        side: The images' height and width in pixels; None is the pipeline's own.
        pixels: The height and width of an image without a setting, for estimates.
        reads: The tokens that the longest text encoder reads, its template's included.
        precision: The precision in which the weights are published.
        source: Where the values are from.
        call: Further arguments of the pipeline's call.
        alone: Whether the padding of a batch changes its images, so that each is rendered by itself.
        scheduled: Whether the model brings its own list of noise levels, so that the number of steps cannot be set.
    """

    name: str
    steps: int
    guidance: float | None
    argument: str | None
    pixels: int
    reads: int
    precision: str
    source: str
    side: int | None = None
    call: Mapping[str, Any] = field(default_factory=dict)
    alone: bool = False
    scheduled: bool = False


FAMILIES = {
    "sd": Family("Stable Diffusion 1 and 2", 50, 7.5, GUIDANCE, 512, 77, "float32", "signature"),
    "tiny-sd": Family("tiny:sd", 20, 7.5, GUIDANCE, 64, 77, "float32", "this project"),
    "sd-turbo": Family("SD Turbo", 1, 0.0, GUIDANCE, 512, 77, "float32", "card of stabilityai/sd-turbo, in a copy"),
    "sdxl": Family("SDXL", 50, 5.0, GUIDANCE, 1024, 77, "float32", "signature"),
    "sdxl-turbo": Family("SDXL Turbo", 1, 0.0, GUIDANCE, 512, 77, "float32", "documentation of diffusers"),
    "sd3": Family("Stable Diffusion 3", 28, 7.0, GUIDANCE, 1024, 256, "float16", "signature"),
    "sd3.5-large": Family(
        "Stable Diffusion 3.5 Large", 28, 3.5, GUIDANCE, 1024, 256, "bfloat16",
        "card of stabilityai/stable-diffusion-3.5-large",
    ),
    "sd3.5-large-turbo": Family(
        "Stable Diffusion 3.5 Large Turbo", 4, 0.0, GUIDANCE, 1024, 256, "bfloat16",
        "the authors' Space stabilityai/stable-diffusion-3.5-large-turbo",
    ),
    "sd3.5-medium": Family(
        "Stable Diffusion 3.5 Medium", 40, 4.5, GUIDANCE, 1024, 256, "bfloat16",
        "card of stabilityai/stable-diffusion-3.5-medium",
    ),
    "flux-dev": Family(
        "FLUX.1 [dev]", 50, 3.5, GUIDANCE, 1024, 512, "bfloat16",
        "documentation of diffusers (steps); signature",
    ),
    "flux-schnell": Family(
        "FLUX.1 [schnell]", 4, None, None, 1024, 256, "bfloat16", "documentation of diffusers",
        call={"max_sequence_length": 256},
    ),
    "flux2": Family("FLUX.2 [dev]", 50, 4.0, GUIDANCE, 1024, 512, "bfloat16", "signature"),
    "flux2-klein": Family(
        "FLUX.2 [klein]", 4, None, None, 1024, 512, "bfloat16", "README of black-forest-labs/flux2"
    ),
    "flux2-klein-base": Family("FLUX.2 [klein] Base", 50, 4.0, GUIDANCE, 1024, 512, "bfloat16", "signature"),
    "qwen-image": Family(
        "Qwen-Image", 50, 4.0, TRUE_CFG, 1328, 512, "bfloat16",
        "README of QwenLM/Qwen-Image (size, negative prompt of one space); signature", side=1328,
    ),
    "qwen-image-2.1": Family("Qwen-Image-2.1", 40, 1.0, TRUE_CFG, 1024, 8191, "bfloat16", "signature", alone=True),
    "qwen-image-2.1-turbo": Family(
        "Qwen-Image-2.1-Turbo", 8, 1.0, TRUE_CFG, 1024, 8191, "bfloat16",
        "model_index.json of Qwen/Qwen-Image-2.1-Turbo (steps); signature", alone=True, scheduled=True,
    ),
    "z-image": Family(
        "Z-Image", 50, 4.0, GUIDANCE, 1024, 512, "bfloat16", "card of Tongyi-MAI/Z-Image (guidance); signature"
    ),
    "z-image-turbo": Family(
        "Z-Image-Turbo", 8, 0.0, GUIDANCE, 1024, 512, "bfloat16", "example in ZImagePipeline"
    ),
    "sana": Family("Sana", 20, 4.5, GUIDANCE, 1024, 300, "bfloat16", "signature"),
    "sana-sprint": Family("Sana-Sprint", 2, 4.5, GUIDANCE, 1024, 300, "bfloat16", "signature"),
    "pixart-sigma": Family("PixArt-Σ", 20, 4.5, GUIDANCE, 1024, 300, "float16", "signature"),
}  # fmt: skip

_OF_CLASS = {
    "StableDiffusionPipeline": "sd",
    "StableDiffusionXLPipeline": "sdxl",
    "StableDiffusion3Pipeline": "sd3",
    "FluxPipeline": "flux-dev",
    "Flux2Pipeline": "flux2",
    "Flux2KleinPipeline": "flux2-klein-base",
    "QwenImagePipeline": "qwen-image",
    "QwenImage21Pipeline": "qwen-image-2.1",
    "ZImagePipeline": "z-image",
    "SanaPipeline": "sana",
    "SanaSprintPipeline": "sana-sprint",
    "PixArtSigmaPipeline": "pixart-sigma",
}


def family_of(folder: Path, name: str) -> Family | None:
    """The family of the pipeline in a folder; None for one of another class.

    Args:
        folder: The folder of a diffusers pipeline.
        name: The model's name or repository, which tells apart what the files do not.

    Raises:
        ModelError: The folder has no readable ``model_index.json``.
    """
    index = read_json(folder / "model_index.json")
    key = _OF_CLASS.get(str(index.get("_class_name")))
    if key is None:
        return None
    family = FAMILIES[_variant(key, index, folder, _own_name(name))]
    return replace(family, steps=len(index["sample_sigmas"])) if family.scheduled else family


def _own_name(name: str) -> str:
    """The part of a model's name that is its own: a path's last part, and a repository in the hub's folder."""
    *above, last = name.casefold().rstrip("/").split("/")
    return " ".join([*(part for part in above if part.startswith("models--")), last])


def _variant(key: str, index: Mapping[str, Any], folder: Path, name: str) -> str:
    """The key of a family's variant, such as a distilled one that needs few steps and no guidance."""
    sampler = _settings(folder / "scheduler/scheduler_config.json")
    denoiser = _settings(folder / "transformer/config.json")
    match key:
        case "sd" if name.startswith("tiny:"):
            return "tiny-sd"
        case "sd" | "sdxl" if _is_turbo(sampler):
            return f"{key}-turbo"
        case "sd3" if denoiser.get("dual_attention_layers"):
            return "sd3.5-medium"
        case "sd3" if denoiser.get("qk_norm"):
            return "sd3.5-large-turbo" if "turbo" in name else "sd3.5-large"
        case "flux-dev" if denoiser.get("guidance_embeds") is False:
            return "flux-schnell"
        case "flux2-klein-base" if index.get("is_distilled"):
            return "flux2-klein"
        case "qwen-image-2.1" if isinstance(index.get("sample_sigmas"), list):
            return "qwen-image-2.1-turbo"
        case "z-image" if "turbo" in name or sampler.get("shift") == 3.0:
            return "z-image-turbo"
    return key


def _is_turbo(sampler: Mapping[str, Any]) -> bool:
    """Whether a sampler has the settings of SD Turbo and SDXL Turbo, and not those of a model with zero-SNR noise."""
    euler = str(sampler.get("_class_name")).startswith("Euler")
    return euler and sampler.get("timestep_spacing") == "trailing" and sampler.get("prediction_type") == "epsilon"


def _settings(path: Path) -> Mapping[str, Any]:
    return read_json(path) if path.is_file() else {}
