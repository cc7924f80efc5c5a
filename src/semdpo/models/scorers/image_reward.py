"""ImageReward (Xu et al., arXiv 2304.05977): a BLIP image tower, a text tower that attends to it, a linear head."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import BlipTextConfig, BlipVisionConfig
from transformers.models.blip.modeling_blip import BlipVisionModel
from transformers.models.blip.modeling_blip_text import BlipTextModel

from semdpo.errors import ModelError
from semdpo.models.checkpoint import load_strictly, read_checkpoint
from semdpo.models.device import Compute
from semdpo.models.images import rgb
from semdpo.models.loading import load_tokenizer, no_weights, read_json, to_tensor, tokenize
from semdpo.models.registry import Place
from semdpo.models.scorers.base import ScoreFunction, ScorerKind
from semdpo.protocols import Bool

MAX_TOKENS = 35  # upstream pads and truncates to 35 tokens, whatever the tokenizer allows
CHECKPOINT = "ImageReward.pt"
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)

# The published sizes: ViT-L/16 and BERT-base.
VISION = {
    "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16,
    "image_size": 224, "patch_size": 16, "hidden_act": "gelu", "layer_norm_eps": 1e-6,
}  # fmt: skip
TEXT = {
    "vocab_size": 30524, "hidden_size": 768, "encoder_hidden_size": 1024, "intermediate_size": 3072,
    "num_hidden_layers": 12, "num_attention_heads": 12, "max_position_embeddings": 512, "hidden_act": "gelu",
    "layer_norm_eps": 1e-12, "is_decoder": True, "pad_token_id": 0, "bos_token_id": 30522, "sep_token_id": 102,
}  # fmt: skip
HEAD = (768, 1024, 128, 64, 16, 1)
SCORE_MEAN, SCORE_STD = 0.16717362830052426, 1.0333394966054072

# In the checkpoint, but not part of the score.
UNUSED = {
    "blip.text_encoder.embeddings.position_ids",
    *(f"blip.{name}.{kind}" for name in ("vision_proj", "text_proj") for kind in ("weight", "bias")),
}
_RENAMED = (
    (r"blip\.visual_encoder\.cls_token", "vision_model.embeddings.class_embedding"),
    (r"blip\.visual_encoder\.pos_embed", "vision_model.embeddings.position_embedding"),
    (r"blip\.visual_encoder\.patch_embed\.proj\.", "vision_model.embeddings.patch_embedding."),
    (r"blip\.visual_encoder\.norm\.", "vision_model.post_layernorm."),
    (r"blip\.visual_encoder\.blocks\.(\d+)\.norm([12])\.", r"vision_model.encoder.layers.\1.layer_norm\2."),
    (r"blip\.visual_encoder\.blocks\.(\d+)\.attn\.qkv\.", r"vision_model.encoder.layers.\1.self_attn.qkv."),
    (r"blip\.visual_encoder\.blocks\.(\d+)\.attn\.proj\.", r"vision_model.encoder.layers.\1.self_attn.projection."),
    (r"blip\.visual_encoder\.blocks\.(\d+)\.mlp\.fc([12])\.", r"vision_model.encoder.layers.\1.mlp.fc\2."),
    (r"blip\.text_encoder\.", "text_encoder."),
    (r"mlp\.layers\.", "mlp."),
)


class ImageRewardModel(nn.Module):
    """The network, in transformers' BLIP parts; key names are ``vision_model.*``, ``text_encoder.*``, ``mlp.*``.

    Three settings load without an error and score wrong at transformers' defaults: the text tower's number of heads
    (8; BERT-base has 12), the image tower's ``layer_norm_eps`` (1e-5; upstream 1e-6) and its ``image_size`` (384;
    upstream 224). Give all three.

    Args:
        vision_config: The image tower's sizes.
        text_config: The text tower's sizes; ``is_decoder`` must be true, so that cross-attention is built, and
            ``encoder_hidden_size`` must be the image tower's width.
        head_sizes: The widths of the linear head, input and output included; upstream (768, 1024, 128, 64, 16, 1).
        mean: The number subtracted from the head's output (upstream 0.16717362830052426).
        std: The number that divides the difference (upstream 1.0333394966054072).

    Raises:
        ModelError: The sizes do not fit each other.
    """

    def __init__(
        self,
        vision_config: BlipVisionConfig,
        text_config: BlipTextConfig,
        head_sizes: tuple[int, ...],
        mean: float = 0.0,
        std: float = 1.0,
    ) -> None:
        super().__init__()
        _check_sizes(vision_config, text_config, head_sizes, std)
        self.head_sizes = tuple(head_sizes)
        self.mean, self.std = float(mean), float(std)
        self.vision_model = BlipVisionModel(vision_config)
        self.text_encoder = BlipTextModel(text_config, add_pooling_layer=False)
        self.mlp = _linear_head(self.head_sizes)

    def forward(self, pixel_values: Tensor, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Scores of images against texts.

        Args:
            pixel_values: The normalised images, [n, 3, height, width].
            input_ids: The texts' token ids, [n, length].
            attention_mask: The mask, [n, length]: 1 for tokens, 0 for padding.

        Returns:
            The scores, [n]; higher is better.
        """
        # last_hidden_state, because pooler_output applies the last norm twice.
        image = self.vision_model(pixel_values=pixel_values).last_hidden_state
        # is_decoder is not passed in the call, so the text attends in both directions.
        text = self.text_encoder(
            input_ids=input_ids,
            attention_mask=attention_mask,
            encoder_hidden_states=image,
            encoder_attention_mask=torch.ones(image.shape[:2], dtype=torch.long, device=image.device),
        )
        reward: Tensor = self.mlp(text.last_hidden_state[:, 0]).squeeze(-1)
        return (reward - self.mean) / self.std

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes ``config.json`` and ``model.safetensors``, in the parameters' own precision.

        Args:
            folder: The folder to write; it is created if it does not exist.
        """
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        config = {
            "architectures": ["ImageRewardModel"],
            "vision_config": self.vision_model.config.to_dict(),
            "text_config": self.text_encoder.config.to_dict(),
            "head_sizes": list(self.head_sizes),
            "mean": self.mean,
            "std": self.std,
        }
        weights, words = target / "model.safetensors.tmp", target / "config.json.tmp"
        save_file({k: v.contiguous() for k, v in self.state_dict().items()}, weights, metadata={"format": "pt"})
        words.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        weights.replace(target / "model.safetensors")
        words.replace(target / "config.json")

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> ImageRewardModel:
        """Reads a folder that ``save_pretrained`` wrote; the model is in float32 and in evaluation mode.

        Args:
            folder: The folder, with ``config.json`` and ``model.safetensors``.

        Raises:
            ModelError: A file is missing or unreadable, or the weights do not fit the configuration.
        """
        source = Path(folder)
        try:
            config: dict[str, Any] = json.loads((source / "config.json").read_text(encoding="utf-8"))
            model = cls(
                BlipVisionConfig(**config["vision_config"]),
                BlipTextConfig(**config["text_config"]),
                tuple(config["head_sizes"]),
                config["mean"],
                config["std"],
            )
            model.load_state_dict(load_file(source / "model.safetensors"))
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
            first_line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise ModelError(
                f"'{source}' does not hold an ImageReward model ({first_line}); give a folder with a fitting "
                "config.json and model.safetensors"
            ) from error
        return model.float().eval()


def to_parts(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of upstream's ImageReward with this network's names; loading refuses names that stay unknown.

    Args:
        state: The weights of upstream's ImageReward, by its names.
    """
    return {_renamed(name): value for name, value in state.items() if name not in UNUSED}


def _renamed(name: str) -> str:
    for pattern, replacement in _RENAMED:
        if re.match(pattern, name):
            return re.sub(pattern, replacement, name, count=1)
    return name


def published() -> ImageRewardModel:
    """The network in its published size, with random weights."""
    return ImageRewardModel(BlipVisionConfig(**VISION), BlipTextConfig(**TEXT), HEAD, SCORE_MEAN, SCORE_STD)


def from_upstream(path: Path) -> ImageRewardModel:
    """The published model, from its own checkpoint.

    Raises:
        ModelError: The file cannot be read, or its weights do not fit.
    """
    with no_weights():
        model = published()
    load_strictly(model, to_parts(read_checkpoint(path)), path)
    return model.float().eval()


def _check_sizes(vision: BlipVisionConfig, text: BlipTextConfig, head_sizes: tuple[int, ...], std: float) -> None:
    if not text.is_decoder:
        raise ModelError("ImageReward's text_config needs is_decoder=True, or it has no cross-attention")
    if text.encoder_hidden_size != vision.hidden_size:
        raise ModelError(
            f"ImageReward's text_config.encoder_hidden_size must be the image tower's width {vision.hidden_size}, "
            f"not {text.encoder_hidden_size}"
        )
    if len(head_sizes) < 2 or head_sizes[0] != text.hidden_size or head_sizes[-1] != 1:
        raise ModelError(f"ImageReward's head_sizes must run from {text.hidden_size} to 1, not {tuple(head_sizes)}")
    if not std > 0:
        raise ModelError(f"ImageReward's std must be positive, not {std}")


def _linear_head(sizes: Sequence[int]) -> nn.Sequential:
    """Linear layers without activations; dropout after all but the last two, so upstream's keys are 0, 2, 4, 6, 7."""
    layers: list[nn.Module] = []
    steps = len(sizes) - 1
    for index, (width_in, width_out) in enumerate(pairwise(sizes)):
        layers.append(nn.Linear(width_in, width_out))
        if index < steps - 2:
            layers.append(nn.Dropout(0.1 if index == steps - 3 else 0.2))
    return nn.Sequential(*layers)


def shortest_side(image: Image.Image, side: int) -> Image.Image:
    """The middle of the image, its shortest side resized to ``side``, as torchvision's Resize and CenterCrop do it.

    transformers' processor rounds the crop's corner differently, which shifts some images by a pixel.

    Args:
        image: An image of any size and mode.
        side: The side of the square, in pixels.

    Returns:
        The RGB image, side x side.
    """
    image = rgb(image)
    short = min(image.size)
    if short != side:
        width, height = (side if length == short else int(side * length / short) for length in image.size)
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = (round((length - side) / 2) for length in image.size)
    return image.crop((left, top, left + side, top + side))


def image_reward(place: Place, where: Compute) -> ScoreFunction:
    """ImageReward, about 0 ± 1 for ordinary images; it reads 35 tokens.

    Args:
        place: The place of the published ``ImageReward.pt``, or of a folder from ``ImageRewardModel.save_pretrained``.
        where: The device and the weights' type.

    Raises:
        ModelError: A folder cannot be read, or the weights do not fit.
    """
    folder = place.folder()
    upstream = (folder / CHECKPOINT).is_file()
    model = from_upstream(folder / CHECKPOINT) if upstream else ImageRewardModel.from_pretrained(folder)
    model = model.to(where.device, where.dtype)
    tokenizer = load_tokenizer(place.tokenizer_folder())
    side: int = model.vision_model.config.image_size
    settings = {} if upstream else read_json(folder / "preprocessor_config.json")
    mean = torch.tensor(settings.get("image_mean", MEAN)).view(3, 1, 1)
    std = torch.tensor(settings.get("image_std", STD)).view(3, 1, 1)

    def score(images: Sequence[Image.Image], prompts: Sequence[str]) -> tuple[Tensor, Bool]:
        tokens = tokenize(tokenizer, prompts, MAX_TOKENS, where.device)
        values = torch.stack([to_tensor(shortest_side(image, side)) for image in images])
        normalised = ((values - mean) / std).to(where.device, where.dtype)
        return model(normalised, tokens.input_ids, tokens.attention_mask), tokens.truncated

    return score


SCORER = ScorerKind("image-reward", image_reward, files=(CHECKPOINT,), architectures=("ImageRewardModel",))
