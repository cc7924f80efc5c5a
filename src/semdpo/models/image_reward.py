"""ImageReward (Xu et al., arXiv 2304.05977): a BLIP image tower, a text tower that attends to it, a linear head."""

from __future__ import annotations

import json
from collections.abc import Sequence
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
from semdpo.models.loading import Texts, load_image_processor, load_tokenizer, pixels, tokenize
from semdpo.models.scorers import score_in_batches
from semdpo.protocols import ScoreBatch

MAX_TOKENS = 35  # upstream pads to and cuts at 35 tokens, whatever the tokenizer says


class ImageRewardModel(nn.Module):
    """The network, in transformers' BLIP parts; key names are ``vision_model.*``, ``text_encoder.*``, ``mlp.*``.

    Three settings load silently and score wrong when left at transformers' defaults: the text tower's number of
    heads (8; BERT-base has 12), the image tower's ``layer_norm_eps`` (1e-5; upstream 1e-6) and its ``image_size``
    (384; upstream 224). Give all three.

    Args:
        vision_config: the image tower's sizes.
        text_config: the text tower's sizes; ``is_decoder`` must be true, so that cross-attention is built, and
            ``encoder_hidden_size`` must be the image tower's width.
        head_sizes: widths of the linear head, input and output included; upstream (768, 1024, 128, 64, 16, 1).
        mean: subtracted from the head's output (upstream 0.16717362830052426).
        std: divides the difference (upstream 1.0333394966054072).

    Raises:
        ModelError: sizes that do not fit each other.
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
        """Scores of pictures against texts.

        Args:
            pixel_values: normalised pictures, [n, 3, height, width].
            input_ids: the texts' tokens, [n, length].
            attention_mask: 1 for tokens, 0 for padding, [n, length].

        Returns:
            Scores, [n]; higher is better.
        """
        # last_hidden_state, for pooler_output passes the last norm twice.
        image = self.vision_model(pixel_values=pixel_values).last_hidden_state
        # is_decoder stays out of the call: the text attends in both directions.
        text = self.text_encoder(
            input_ids=input_ids,
            attention_mask=attention_mask,
            encoder_hidden_states=image,
            encoder_attention_mask=torch.ones(image.shape[:2], dtype=torch.long, device=image.device),
        )
        reward: Tensor = self.mlp(text.last_hidden_state[:, 0]).squeeze(-1)
        return (reward - self.mean) / self.std

    def save_pretrained(self, folder: str | Path) -> None:
        """Write ``config.json`` and ``model.safetensors``, in the parameters' own precision.

        Args:
            folder: made when absent.
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
        """Read a folder that ``save_pretrained`` wrote; the model is in float32 and in evaluation mode.

        Args:
            folder: with ``config.json`` and ``model.safetensors``.

        Raises:
            ModelError: a file is absent or unreadable, or the weights do not fit the configuration.
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


class ImageRewardScorer:
    """ImageReward as a judge of pictures.

    Args:
        folder: model, tokenizer and image processor.
        batch_size: pictures at a time.
    """

    def __init__(self, folder: Path, batch_size: int) -> None:
        self._model = ImageRewardModel.from_pretrained(folder)
        self._processor = load_image_processor(folder)
        self._tokenizer = load_tokenizer(folder)
        self._batch_size = batch_size

    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> ScoreBatch:
        """Scores, about 0 ± 1 for ordinary pictures; a prompt over 35 tokens is cut and flagged.

        Args:
            images: pictures, n.
            prompts: what the user asked for, n.

        Raises:
            ModelError: as many pictures as prompts are not given, or a score is not finite.
        """
        return score_in_batches(self._batch, images, prompts, self._batch_size)

    def _batch(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> tuple[Tensor, Texts]:
        texts = tokenize(self._tokenizer, prompts, MAX_TOKENS)
        return self._model(pixels(self._processor, images), texts.input_ids, texts.attention_mask), texts
