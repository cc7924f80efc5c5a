"""MPS, the multi-dimensional preference score (Zhang et al., CVPR 2024): CLIP-H whose image reads the prompt's words.

Facts from the authors' code (Kwai-Kolors/MPS, MIT): the image's patches attend to those words of the prompt that are
close to the words of a *condition*; the score compares the class token that results with the prompt's vector.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPConfig, CLIPModel

from semdpo.models.checkpoint import load_strictly, read_checkpoint
from semdpo.models.device import Compute, moved
from semdpo.models.loading import load_image_processor, load_tokenizer, no_weights, pixels, read_json
from semdpo.models.pickled_module import read_module
from semdpo.models.registry import Place
from semdpo.models.scorers.base import ScoreFunction, ScorerKind
from semdpo.models.scorers.hps import CONFIG
from semdpo.models.tokens import plain, plain_ids
from semdpo.protocols import Bool

PICKLED = "MPS_overall_checkpoint.pth"  # the authors' file: a whole pickled module
CHECKPOINTS = ("MPS_overall_checkpoint/MPS_overall_checkpoint_diffsynth.safetensors", PICKLED)
# The words of all dimensions, for the overall preference. They are an input of the trained model.
CONDITION = (
    "light, color, clarity, tone, style, ambiance, artistry, shape, face, hair, hands, limbs, structure, instance, "
    "texture, quantity, attributes, position, number, location, word, things."
)
NEAR = 0.3  # the share of the nearest word's similarity that a word needs, in the code of the published accuracies
SIZES = {"layers": 4, "heads": 16, "head_size": 64}

# In the checkpoint, but computed here.
UNUSED = {f"model.{tower}_model.embeddings.position_ids" for tower in ("text", "vision")}
_RENAMED = (
    (re.compile(r"cross_model\.layers\.(\d+)\.0\.fn\."), r"layers.\1.reads_words."),
    (re.compile(r"cross_model\.layers\.(\d+)\.1\.fn\."), r"layers.\1.reads_image."),
    (re.compile(r"model\."), "clip."),
)


class _GatedHalf(nn.Module):
    """The first half of the features, gated by the second: x · silu(gate)."""

    def forward(self, values: Tensor) -> Tensor:
        kept, gate = values.chunk(2, dim=-1)
        return F.silu(gate) * kept


def _attend(query: Tensor, key: Tensor, value: Tensor, heads: int, mask: Tensor | None = None) -> Tensor:
    """Attention with many query heads and one head of keys and values: [b, n, h·d], [b, m, d] twice, [b, 1, m]."""
    rows, length, width = query.shape
    by_head = query.view(rows, length, heads, width // heads).transpose(1, 2) * (width // heads) ** -0.5
    similar = by_head @ key[:, None].transpose(-1, -2)  # [b, h, n, m]
    weights = (similar if mask is None else similar + mask[:, None]).softmax(-1)
    read: Tensor = (weights @ value[:, None]).transpose(1, 2).reshape(rows, length, width)
    return read


class _ReadsWords(nn.Module):
    """Attention of the image's patches to the prompt's words, beside a gated feed-forward layer."""

    def __init__(self, width: int, heads: int, head_size: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.to_q = nn.Linear(width, heads * head_size, bias=False)
        self.to_kv = nn.Linear(width, 2 * head_size, bias=False)
        self.to_out = nn.Linear(heads * head_size, width, bias=False)
        self.ff = nn.Sequential(
            nn.Linear(width, 8 * width, bias=False), _GatedHalf(), nn.Linear(4 * width, width, bias=False)
        )

    def forward(self, image: Tensor, words: Tensor, mask: Tensor) -> Tensor:
        normed = self.norm(image)
        key, value = self.to_kv(words).chunk(2, dim=-1)
        read: Tensor = image + self.to_out(_attend(self.to_q(normed), key, value, self.heads, mask)) + self.ff(normed)
        return read


class _ReadsImage(nn.Module):
    """Attention among the image's patches with rotary positions, beside a gated feed-forward layer."""

    def __init__(self, width: int, heads: int, head_size: int) -> None:
        super().__init__()
        self.heads, self.parts = heads, (heads * head_size, head_size, head_size, 8 * width)
        self.norm = nn.LayerNorm(width)
        self.fused_attn_ff_proj = nn.Linear(width, sum(self.parts), bias=False)
        self.attn_out = nn.Linear(heads * head_size, width, bias=False)
        self.ff_out = nn.Sequential(_GatedHalf(), nn.Linear(4 * width, width, bias=False))
        self.rotary_emb = nn.Module()
        # A buffer, because the checkpoint has it, perhaps rounded to half precision.
        frequencies = 10000 ** -(torch.arange(0, head_size, 2).float() / head_size)
        self.rotary_emb.register_buffer("inv_freq", frequencies)

    def forward(self, image: Tensor) -> Tensor:
        query, key, value, feed = self.fused_attn_ff_proj(self.norm(image)).split(self.parts, dim=-1)
        rows, length, width = query.shape
        turned = self._turned(query.view(rows, length, self.heads, -1)).reshape(rows, length, width)
        attended = _attend(turned, self._turned(key[:, :, None])[:, :, 0], value, self.heads)
        read: Tensor = image + self.attn_out(attended) + self.ff_out(feed)
        return read

    def _turned(self, values: Tensor) -> Tensor:
        """Rotary positions (Su et al., arXiv 2104.09864): [b, n, h, d], position n turns the pairs (i, i + d/2)."""
        stored: Any = self.rotary_emb.inv_freq
        frequencies = stored.to(torch.promote_types(stored.dtype, torch.float32))
        # Never in half precision, which rounds an angle of 200 by up to half a radian.
        angles = torch.outer(torch.arange(values.shape[1], device=values.device).to(frequencies), frequencies)
        cosine, sine = (turn[None, :, None].to(values) for turn in (angles.cos(), angles.sin()))
        one, other = values.chunk(2, dim=-1)
        return torch.cat([one * cosine - other * sine, other * cosine + one * sine], dim=-1)


class MPSModel(nn.Module):
    """The network: a CLIPModel, and layers in which the image reads the prompt's words.

    Args:
        config: The sizes of CLIP.
        layers: The number of layers; published 4.
        heads: The number of query heads; published 16.
        head_size: The width of a head; published 64.
    """

    def __init__(self, config: CLIPConfig, layers: int, heads: int, head_size: int) -> None:
        super().__init__()
        self.clip: Any = CLIPModel(config)
        sizes = (config.projection_dim, heads, head_size)
        self.layers = nn.ModuleList(
            nn.ModuleDict({"reads_words": _ReadsWords(*sizes), "reads_image": _ReadsImage(*sizes)})
            for _ in range(layers)
        )

    def texts(self, input_ids: Tensor) -> tuple[Tensor, Tensor]:
        """The vectors of texts' tokens, [n, length, dim], and of the texts, [n, dim]; padding is not masked."""
        output = self.clip.text_model(input_ids=input_ids)
        return self.clip.text_projection(output.last_hidden_state), self.clip.text_projection(output.pooler_output)

    def forward(self, pixel_values: Tensor, input_ids: Tensor, condition: Tensor) -> Tensor:
        """The scores exp(logit scale) · cosine, [n].

        Args:
            pixel_values: The normalised images, [n, 3, height, width].
            input_ids: The prompts' token ids, padded to CLIP's whole length, [n, length].
            condition: The vectors of the condition's tokens, [length, dim].
        """
        words, whole = self.texts(input_ids)
        # How near each word is to its nearest word of the condition. The authors divide by the largest of the batch,
        # which is one prompt there; by the row's own, a score does not depend on the batch.
        near = (words @ condition.T).amax(-1)
        far = ~(near / near.amax(-1, keepdim=True) > NEAR)
        mask = torch.zeros_like(near).masked_fill(far, float("-inf"))[:, None]
        # last_hidden_state, because pooler_output has passed another norm
        image = self.clip.visual_projection(self.clip.vision_model(pixel_values=pixel_values).last_hidden_state)
        layers: Any = self.layers
        for layer in layers:
            image = layer["reads_image"](layer["reads_words"](image, words, mask))
        exact = torch.promote_types(whole.dtype, torch.float32)
        cosine = F.cosine_similarity(image[:, 0].to(exact), whole.to(exact))
        scores: Tensor = self.clip.logit_scale.to(exact).exp() * cosine
        return scores


def to_parts(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of the authors' model with this network's names; loading refuses names that stay unknown.

    Args:
        state: The weights by the authors' names.
    """
    return {_renamed(name): value for name, value in state.items() if name not in UNUSED}


def _renamed(name: str) -> str:
    for pattern, replacement in _RENAMED:
        if pattern.match(name):
            return pattern.sub(replacement, name, count=1)
    return name


def load_mps(folder: Path) -> MPSModel:
    """The model in a folder, in the checkpoint's own precision.

    Args:
        folder: The folder of a published checkpoint. A ``config.json`` with ``clip``, ``layers``, ``heads`` and
            ``head_size`` gives other sizes than the published ones.

    Raises:
        ModelError: The checkpoint is missing or cannot be read, or its weights do not fit.
    """
    sizes: dict[str, Any] = {"clip": CONFIG, **SIZES}
    if (folder / "config.json").is_file():
        config = read_json(folder / "config.json")
        sizes = {name: config.get(name, value) for name, value in sizes.items()}
    path = next((folder / name for name in CHECKPOINTS if (folder / name).is_file()), folder / CHECKPOINTS[0])
    state = read_module(path) if path.name == PICKLED else read_checkpoint(path)
    with no_weights():
        model = MPSModel(CLIPConfig(**sizes.pop("clip")), **sizes)
    load_strictly(model, to_parts(state), path)
    return model


def mps(place: Place, where: Compute) -> ScoreFunction:
    """exp(logit_scale) · cos of MPS for the overall preference; it reads 77 tokens.

    Args:
        place: The place of a published checkpoint; tokenizer and image processor are CLIP-H's, in
            ``place.tokenizer_folder()``.
        where: The device and the weights' type.

    Raises:
        ModelError: A folder cannot be read, or the weights do not fit.
    """
    model = moved(load_mps(place.folder()), where).eval()
    words = place.tokenizer_folder()
    tokenizer, processor = load_tokenizer(words), load_image_processor(words)
    most = min(model.clip.config.text_config.max_position_embeddings, tokenizer.model_max_length)

    def ids(texts: Sequence[str]) -> Tensor:
        # The words attend to padding too, so every text is padded to the same length, whatever its neighbours.
        padded = plain(tokenizer, texts, truncation=True, max_length=most, padding="max_length", return_tensors="pt")
        tokens: Tensor = padded["input_ids"].to(where.device)
        return tokens

    with torch.inference_mode():
        condition = model.texts(ids([CONDITION]))[0][0]

    def score(images: Sequence[Image.Image], prompts: Sequence[str]) -> tuple[Tensor, Bool]:
        truncated = np.array([len(row) > most for row in plain_ids(tokenizer, prompts)], np.bool_)
        values = pixels(processor, images).to(where.device, where.dtype)
        return model(values, ids(prompts), condition), truncated

    return score


SCORER = ScorerKind("mps", mps, files=CHECKPOINTS)
