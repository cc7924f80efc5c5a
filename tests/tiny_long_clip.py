"""A small random Long-CLIP in its authors' format, and their formula for a text's vector, by torch alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import CLIPTokenizer

from tests.tiny_models import BYTES, image_processor

POSITIONS, WIDTH, LAYERS, DIMENSION, PATCH, SIDE = 248, 64, 2, 16, 8, 32


def tokenizer() -> CLIPTokenizer:
    """One token a byte; as in OpenAI's vocabulary the last two begin and end a text. It says 77 tokens are read."""
    words = [*BYTES, *(byte + "</w>" for byte in BYTES), "<|startoftext|>", "<|endoftext|>"]
    end = "<|endoftext|>"
    return CLIPTokenizer(
        vocab={word: i for i, word in enumerate(words)}, merges=[], pad_token=end, unk_token=end, model_max_length=77
    )


def state(seed: int = 0) -> dict[str, Tensor]:
    """Random weights, by OpenAI's names, with both tables of positions."""
    torch.manual_seed(seed)
    words = len(tokenizer())
    weights = {
        "positional_embedding": torch.randn(POSITIONS, WIDTH),
        "positional_embedding_res": torch.randn(POSITIONS, WIDTH),
        "text_projection": torch.randn(WIDTH, DIMENSION) / 8,
        "logit_scale": torch.tensor(4.0),
        "token_embedding.weight": torch.randn(words, WIDTH),
        "ln_final.weight": 1 + torch.randn(WIDTH) / 5,
        "ln_final.bias": torch.randn(WIDTH) / 5,
        "visual.conv1.weight": torch.randn(WIDTH, 3, PATCH, PATCH) / 8,
        "visual.class_embedding": torch.randn(WIDTH),
        "visual.positional_embedding": torch.randn((SIDE // PATCH) ** 2 + 1, WIDTH),
        "visual.proj": torch.randn(WIDTH, DIMENSION) / 8,
    }
    for norm in ("visual.ln_pre", "visual.ln_post"):
        weights |= {f"{norm}.weight": 1 + torch.randn(WIDTH) / 5, f"{norm}.bias": torch.randn(WIDTH) / 5}
    for tower in ("", "visual."):
        for layer in range(LAYERS):
            weights |= _block(f"{tower}transformer.resblocks.{layer}.")
    return weights


def _block(name: str) -> dict[str, Tensor]:
    shapes = {
        "attn.in_proj_weight": (3 * WIDTH, WIDTH), "attn.in_proj_bias": (3 * WIDTH,),
        "attn.out_proj.weight": (WIDTH, WIDTH), "attn.out_proj.bias": (WIDTH,),
        "ln_1.weight": (WIDTH,), "ln_1.bias": (WIDTH,), "ln_2.weight": (WIDTH,), "ln_2.bias": (WIDTH,),
        "mlp.c_fc.weight": (4 * WIDTH, WIDTH), "mlp.c_fc.bias": (4 * WIDTH,),
        "mlp.c_proj.weight": (WIDTH, 4 * WIDTH), "mlp.c_proj.bias": (WIDTH,),
    }  # fmt: skip
    return {f"{name}{part}": torch.randn(shape) / 8 for part, shape in shapes.items()}


def saved(folder: Path, weights: Mapping[str, Tensor] | None = None, file: str = "longclip-L.pt") -> Path:
    """A folder as a user would have it: the authors' file, with the tokenizer and the image settings of a CLIP."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(dict(state() if weights is None else weights), folder / file)
    tokenizer().save_pretrained(folder)
    image_processor().save_pretrained(folder)
    return folder


def vector(weights: Mapping[str, Tensor], text: str) -> Tensor:
    """The vector of a text as the authors compute it: both tables masked and added, the end token read, no padding."""
    ids = torch.tensor(tokenizer()(text)["input_ids"])
    first = (torch.arange(POSITIONS) < 20).float()[:, None]
    positions = weights["positional_embedding"] * first + weights["positional_embedding_res"] * (1 - first)
    x = weights["token_embedding.weight"][ids] + positions[: len(ids)]
    hidden = torch.full((len(ids), len(ids)), -torch.inf).triu(1)
    for layer in range(LAYERS):
        own = {
            name.removeprefix(f"transformer.resblocks.{layer}."): value
            for name, value in weights.items()
            if name.startswith(f"transformer.resblocks.{layer}.")
        }
        attention = nn.MultiheadAttention(WIDTH, 1)
        attention.load_state_dict({k.removeprefix("attn."): v for k, v in own.items() if k.startswith("attn.")})
        y = _norm(x, own["ln_1.weight"], own["ln_1.bias"])
        x = x + attention(y, y, y, need_weights=False, attn_mask=hidden)[0]
        y = _norm(x, own["ln_2.weight"], own["ln_2.bias"]) @ own["mlp.c_fc.weight"].T + own["mlp.c_fc.bias"]
        x = x + (y * torch.sigmoid(1.702 * y)) @ own["mlp.c_proj.weight"].T + own["mlp.c_proj.bias"]
    x = _norm(x, weights["ln_final.weight"], weights["ln_final.bias"])
    found = x[ids.argmax()] @ weights["text_projection"]
    return found / found.norm()


def _norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return nn.functional.layer_norm(x, (WIDTH,), weight, bias)
