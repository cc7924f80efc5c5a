"""The published models that have short names: repository, files, size, licence."""

from __future__ import annotations

from dataclasses import dataclass

WORDS = ("*.json", "*.txt", "*.model", "*.jinja")  # tokenizers and settings
TRANSFORMERS = (*WORDS, "*.safetensors")


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
    files: tuple[str, ...] = TRANSFORMERS
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
        "jinaai/jina-embeddings-v4", (*TRANSFORMERS, "*.py"), millions=3940, gigabytes=8.0, runs_code=True
    ),
    "jina-clip-v2": Published(
        "jinaai/jina-clip-v2", (*TRANSFORMERS, "*.py"), millions=865, gigabytes=1.8, runs_code=True
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
        "alibaba-pai/pai-bloom-1b1-text2prompt-sd", (*TRANSFORMERS, "*.bin"), millions=1065, gigabytes=2.2
    ),
}
SKIPPED = ("*.fp16.*", "*non_ema*", "onnx/*", "flax_*", "tf_*", "original/*")
