"""Human Preference Score v2.1 (Wu et al., arXiv 2306.09341): a CLIP with its own preprocessing."""

from __future__ import annotations

import html
from collections.abc import Sequence

import ftfy
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from transformers import CLIPConfig, CLIPModel

from semdpo.models.checkpoint import load_strictly, read_checkpoint
from semdpo.models.clip import CLIPTowers, load_towers
from semdpo.models.device import Compute
from semdpo.models.loading import load_tokenizer, no_weights, read_json, to_tensor
from semdpo.models.openai_clip import to_clip
from semdpo.models.registry import Place
from semdpo.models.scorers.base import ScoreFunction, ScorerKind
from semdpo.protocols import Bool

CHECKPOINT = "HPS_v2.1_compressed.pt"
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)

# open_clip's ViT-H-14. It has the plain GELU, while transformers' CLIP has quick_gelu by default.
CONFIG = {
    "projection_dim": 1024,
    "text_config": {
        "vocab_size": 49408, "hidden_size": 1024, "intermediate_size": 4096, "projection_dim": 1024,
        "num_hidden_layers": 24, "num_attention_heads": 16, "max_position_embeddings": 77, "hidden_act": "gelu",
        "bos_token_id": 49406, "eos_token_id": 49407, "pad_token_id": 49407,
    },
    "vision_config": {
        "hidden_size": 1280, "intermediate_size": 5120, "projection_dim": 1024, "num_hidden_layers": 32,
        "num_attention_heads": 16, "image_size": 224, "patch_size": 14, "hidden_act": "gelu",
    },
}  # fmt: skip


def clean(text: str) -> str:
    """A text as open_clip cleans it: Unicode repaired, HTML entities decoded, single spaces, lower case."""
    repaired = html.unescape(html.unescape(ftfy.fix_text(text)))
    return " ".join(repaired.split()).lower()


def fit_square(image: Image.Image, side: int) -> Tensor:
    """The image inside a black square, its longest side resized to ``side``.

    The image is converted to floating point before it is resized (bicubic, antialiased), so no value is rounded to a
    whole grey level in between. A square image is only resized.

    Args:
        image: An image of any size and mode.
        side: The side of the square, in pixels.

    Returns:
        The pixels, [3, side, side], about 0 to 1 (bicubic interpolation may overshoot a little, as upstream's does).
    """
    values = to_tensor(image)
    height, width = values.shape[1:]
    scale = side / max(height, width)
    size = [max(1, round(height * scale)), max(1, round(width * scale))]
    if size != [height, width]:
        values = F.interpolate(values[None], size=size, mode="bicubic", antialias=True, align_corners=False)[0]
    below, beside = side - size[0], side - size[1]
    return F.pad(values, (beside // 2, beside - beside // 2, below // 2, below - below // 2))


def hps(place: Place, where: Compute) -> ScoreFunction:
    """The cosine of image and prompt under HPS v2.1, unscaled (tables often show it times 100).

    Args:
        place: The place of the published checkpoint, or of a saved CLIPModel of the same structure.
        where: The device and the weights' type.

    Raises:
        ModelError: A folder cannot be read, or the weights do not fit.
    """
    towers = _upstream(place, where) if (place.folder() / CHECKPOINT).is_file() else load_towers(place, where)
    mean, std = _normalisation(place)
    side: int = towers.model.config.vision_config.image_size

    def score(images: Sequence[Image.Image], prompts: Sequence[str]) -> tuple[Tensor, Bool]:
        text, tokens = towers.texts([clean(prompt) for prompt in prompts])
        values = torch.stack([fit_square(image, side) for image in images])
        return (towers.images((values - mean) / std) * text).sum(-1), tokens.truncated

    return score


def _upstream(place: Place, where: Compute) -> CLIPTowers:
    path = place.folder() / CHECKPOINT
    with no_weights():
        model = CLIPModel(CLIPConfig(**CONFIG))
    load_strictly(model, to_clip(read_checkpoint(path)), path)
    return CLIPTowers(model.to(where.device, where.dtype).eval(), load_tokenizer(place.tokenizer_folder()), path)


def _normalisation(place: Place) -> tuple[Tensor, Tensor]:
    settings = place.folder() / "preprocessor_config.json"
    values = read_json(settings) if settings.is_file() else {}
    mean, std = values.get("image_mean", MEAN), values.get("image_std", STD)
    return torch.tensor(mean).view(3, 1, 1), torch.tensor(std).view(3, 1, 1)


SCORER = ScorerKind("hpsv2.1", hps, files=(CHECKPOINT,))
