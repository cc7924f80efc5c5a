"""The weights of OpenAI's CLIP by the names that its authors and open_clip give them, as those of a CLIPModel."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

_NAMES = {
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
    "text_projection": "text_projection.weight",
    "visual.proj": "visual_projection.weight",
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.ln_pre.weight": "vision_model.pre_layrnorm.weight",  # transformers spells it so
    "visual.ln_pre.bias": "vision_model.pre_layrnorm.bias",
    "visual.ln_post.weight": "vision_model.post_layernorm.weight",
    "visual.ln_post.bias": "vision_model.post_layernorm.bias",
    "logit_scale": "logit_scale",
}
_TRANSPOSED = {"text_projection", "visual.proj"}
_BLOCK = re.compile(r"(visual\.)?transformer\.resblocks\.(\d+)\.(.+)")
_IN_BLOCK = {"ln_1": "layer_norm1", "ln_2": "layer_norm2", "mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2"}
_IN_BLOCK |= {"attn.out_proj": "self_attn.out_proj"}


def to_clip(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a CLIP with CLIPModel's names and layouts; loading refuses names that stay unknown.

    Args:
        state: The weights, by OpenAI's names, which are open_clip's too.
    """
    renamed: dict[str, Tensor] = {}
    for name, value in state.items():
        if match := _BLOCK.fullmatch(name):
            tower = "vision_model" if match[1] else "text_model"
            renamed |= _block(f"{tower}.encoder.layers.{match[2]}", match[3], value)
        else:
            renamed[_NAMES.get(name, name)] = value.T.contiguous() if name in _TRANSPOSED else value
    return renamed


def _block(layer: str, name: str, value: Tensor) -> dict[str, Tensor]:
    if name in ("attn.in_proj_weight", "attn.in_proj_bias"):
        kind = name.removeprefix("attn.in_proj_")
        return {
            f"{layer}.self_attn.{letter}_proj.{kind}": weight
            for letter, weight in zip("qkv", value.chunk(3), strict=True)
        }
    stem, _, kind = name.rpartition(".")
    return {f"{layer}.{_IN_BLOCK.get(stem, stem)}.{kind}": value}
