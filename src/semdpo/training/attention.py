"""Attention of packed rows: within each group, a prompt's completions see the prompt and themselves only."""

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
LONG = 512  # tokens of a group from which attention is left to torch's fused kernel


def block_mask(packed: Packed) -> Any:
    """Who sees whom, for FlexAttention, which skips blocks where all is masked.

    Args:
        packed: the micro-batch.
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
    """Attention within each group only: no work is done where everything is masked.

    Called by transformers' models in place of their own; ``spans`` comes from the model's call. [1, heads, T, width]
    in, [1, T, heads, width] out.
    """
    spans = options.pop("spans", None)
    if spans is None:  # an ordinary call, such as generation
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)  # type: ignore[no-any-return]
    repeat = query.shape[1] // key.shape[1]
    if repeat > 1:
        key, value = (each.repeat_interleave(repeat, dim=1) for each in (key, value))
    cuts = [end - start for start, end, _ in spans]
    parts = [
        _attend(q, k, v, mask, options.get("scaling"), options.get("dropout", 0.0))
        for q, k, v, (_, _, mask) in zip(
            *(torch.split(each, cuts, 2) for each in (query, key, value)), spans, strict=True
        )
    ]
    return torch.cat(parts, 2).transpose(1, 2).contiguous(), None


def _attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scale: float | None, dropout: float) -> Tensor:
    """Scaled dot-product attention of one group, [1, heads, T, width].

    Written out for bfloat16 on a CPU, where torch's fused kernel takes six times as long with a hundred tokens; longer
    groups go to it, since what is written out keeps its T x T probabilities.
    """
    if query.dtype != torch.bfloat16 or query.device.type != "cpu" or query.shape[2] > LONG:
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout, scale=scale)
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    scores = (query * scale) @ key.transpose(2, 3)
    shares = scores.masked_fill(~mask, float("-inf")).softmax(-1)
    return F.dropout(shares, dropout) @ value if dropout else shares @ value


AttentionInterface.register(BLOCKS, _attend_in_blocks)
AttentionMaskInterface.register(BLOCKS, sdpa_mask)
