"""The published models that have short names: repository, files, size, licence."""

from __future__ import annotations

from dataclasses import dataclass

WORDS = ("*.json", "*.txt", "*.model", "*.jinja")  # tokenizers and settings
TRANSFORMERS = (*WORDS, "*.safetensors")
WEIGHTS = (".safetensors", ".bin", ".pt", ".pth")  # how the names of files of weights end


@dataclass(frozen=True, slots=True)
class Encoder:
    """What a published model is as an encoder of texts.

    Attributes:
        tokens: The number of tokens that it reads, begin and end tokens included.
        dimension: The number of values of a vector.
        prefix: What semdpo puts before every text, because the model's files name nothing and its authors ask for it
            where two texts of one kind are compared; empty for nothing.
    """

    tokens: int
    dimension: int
    prefix: str = ""


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
        encoder: What it is as an encoder of texts; None for a model of another kind.
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
    encoder: Encoder | None = None


# Pipelines: the same weights may lie beside the parts' folders once more, in one file or in text_encoders/.
_PARTS = ("unet", "transformer", "text_encoder", "text_encoder_[23]", "vae")
_PIPELINE = (*WORDS, *(f"{part}/*.safetensors" for part in _PARTS))
_BFL, _STABILITY = "FLUX non-commercial", "Stability AI community"
_CLIP_L, _CLIP_H = "openai/clip-vit-large-patch14", "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"
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
    "clip-vit-large-patch14": Published(_CLIP_L, millions=428, gigabytes=1.7, encoder=Encoder(77, 768)),
    "blip-itm-base-coco": Published("Salesforce/blip-itm-base-coco", millions=224, gigabytes=0.9),
    "blip-itm-large-coco": Published("Salesforce/blip-itm-large-coco", millions=447, gigabytes=1.9),
    "jina-embeddings-v4": Published(
        "jinaai/jina-embeddings-v4", (*TRANSFORMERS, "*.py"), millions=3940, gigabytes=8.0, runs_code=True
    ),
    "jina-clip-v2": Published(
        "jinaai/jina-clip-v2",
        (*TRANSFORMERS, "*.py"),
        millions=865,
        gigabytes=1.8,
        runs_code=True,
        encoder=Encoder(8192, 1024),
    ),
    # CLIPs that read more than 77 tokens: the authors' own two files, and a model that was trained on from the first.
    "long-clip-l": Published(
        "BeichenZhang/LongCLIP-L",
        ("longclip-L.pt",),
        _CLIP_L,
        licence="Apache-2.0",
        millions=428,
        gigabytes=1.7,
        encoder=Encoder(248, 768),
    ),
    "long-clip-b": Published(
        "BeichenZhang/LongCLIP-B",
        ("longclip-B.pt",),
        _CLIP_L,
        also=("longclip-B-32.pt",),
        licence="Apache-2.0",
        millions=150,
        gigabytes=0.6,
        encoder=Encoder(248, 512),
    ),
    "long-clip-gmp-l": Published(
        "zer0int/LongCLIP-GmP-ViT-L-14",
        (*WORDS, "model.safetensors"),  # other files there hold the same weights once more
        millions=428,
        gigabytes=1.7,
        encoder=Encoder(248, 768),
    ),
    # Encoders of sentences.
    "all-minilm-l6-v2": Published(
        "sentence-transformers/all-MiniLM-L6-v2",
        licence="Apache-2.0",
        millions=23,
        gigabytes=0.1,
        encoder=Encoder(256, 384),
    ),
    "all-mpnet-base-v2": Published(
        "sentence-transformers/all-mpnet-base-v2",
        licence="Apache-2.0",
        millions=109,
        gigabytes=0.4,
        encoder=Encoder(384, 768),
    ),
    "bge-base-en-v1.5": Published(
        "BAAI/bge-base-en-v1.5", licence="MIT", millions=109, gigabytes=0.4, encoder=Encoder(512, 768)
    ),
    "e5-base-v2": Published(
        "intfloat/e5-base-v2", licence="MIT", millions=109, gigabytes=0.4, encoder=Encoder(512, 768, "query: ")
    ),
    "embeddinggemma-300m": Published(
        "google/embeddinggemma-300m",
        licence="Gemma",
        gated=True,
        millions=308,
        gigabytes=1.2,
        encoder=Encoder(2048, 768),
    ),
    "bge-m3": Published(
        "BAAI/bge-m3",
        (*WORDS, "pytorch_model.bin"),  # it has no safetensors
        licence="MIT",
        millions=568,
        gigabytes=2.3,
        encoder=Encoder(8192, 1024),
    ),
    "gte-modernbert-base": Published(
        "Alibaba-NLP/gte-modernbert-base",
        licence="Apache-2.0",
        millions=149,
        gigabytes=0.3,
        encoder=Encoder(8192, 768),
    ),
    "qwen3-embedding-0.6b": Published(
        "Qwen/Qwen3-Embedding-0.6B",
        licence="Apache-2.0",
        millions=596,
        gigabytes=1.2,
        encoder=Encoder(32768, 1024),
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
# Encoders that read more and more, of which messages name the next ones: free to download, without code of their own.
_LONGER = ("long-clip-l", "all-mpnet-base-v2", "gte-modernbert-base", "qwen3-embedding-0.6b")
SKIPPED = ("*.fp16.*", "*non_ema*", "onnx/*", "flax_*", "tf_*", "original/*")


def longer_encoders(tokens: int) -> dict[str, int]:
    """Published encoders that read more than some number of tokens: short name → the tokens that it reads."""
    found = {name: encoder.tokens for name in _LONGER if (encoder := PUBLISHED[name].encoder) is not None}
    return {name: reads for name, reads in found.items() if reads > tokens}
