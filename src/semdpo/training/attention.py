"""Attention for packed rows: within a group, a completion attends to the prompt and to itself only."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from semdpo.training.packing import Packed

BLOCKS = "semdpo_blocks"
FLEX = "flex_attention"
LONG = 512  # groups with more tokens use torch's fused kernel


def block_mask(packed: Packed) -> Any:
    """The attention mask for FlexAttention, which skips blocks that are masked completely.

    Args:
        packed: the packed micro-batch.
    """
    from torch.nn.attention.flex_attention import create_block_mask

    groups, branches, length = packed.groups, packed.branches, packed.input_ids.shape[1]

    def sees(_batch: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        together = (groups[query] == groups[key]) & (query >= key)
        return together & ((branches[key] == 0) | (branches[key] == branches[query]))

    return create_block_mask(sees, 1, None, length, length, device=packed.input_ids.device)


def _attend_in_blocks(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """Attention within each group only, without computing the parts that are masked completely.

    transformers' models call it instead of their own attention; ``spans`` comes from the model's call. The input is
    [1, heads, T, width], the output [1, T, heads, width].
    """
    spans = options.pop("spans", None)
    if spans is None:  # an ordinary call, such as generation
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)  # type: ignore[no-any-return]
    repeat = query.shape[1] // key.shape[1]
    if repeat > 1:
        key, value = (states.repeat_interleave(repeat, dim=1) for states in (key, value))
    lengths = [end - start for start, end, _ in spans]
    parts = [
        _attend(q, k, v, mask, options.get("scaling"), options.get("dropout", 0.0))
        for q, k, v, (_, _, mask) in zip(
            *(torch.split(states, lengths, 2) for states in (query, key, value)), spans, strict=True
        )
    ]
    return torch.cat(parts, 2).transpose(1, 2).contiguous(), None


def _attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scale: float | None, dropout: float) -> Tensor:
    """Scaled dot-product attention of one group, [1, heads, T, width].

    Written out for bfloat16 on a CPU, where torch's fused kernel takes six times as long for a hundred tokens. Longer
    groups use the fused kernel, because the written-out form stores T x T probabilities.
    """
    if query.dtype != torch.bfloat16 or query.device.type != "cpu" or query.shape[2] > LONG:
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout, scale=scale)
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    scores = (query * scale) @ key.transpose(2, 3)
    shares = scores.masked_fill(~mask, float("-inf")).softmax(-1)
    return F.dropout(shares, dropout) @ value if dropout else shares @ value


AttentionInterface.register(BLOCKS, _attend_in_blocks)
AttentionMaskInterface.register(BLOCKS, sdpa_mask)
