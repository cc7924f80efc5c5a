"""log π(y|x) of completions: one forward pass, the head on predicting positions only, in chunks of tokens."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from semdpo.training.packing import Group, Packed, pack

CHUNK = 512  # tokens whose logits are in memory at once
LONG = 512  # tokens of a group from which attention is left to torch's fused kernel
BLOCKS = "semdpo_blocks"


class TokenLogps(torch.autograd.Function):
    """log softmax(h Wᵀ + b)[target], for chunks of tokens; the logits are computed again in the backward pass."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor) -> Tensor:
        """Log-probabilities.

        Args:
            ctx: autograd's.
            hidden: last hidden states at predicting positions, [m, d].
            weight: of the head, [vocabulary, d].
            bias: of the head, [vocabulary], or None.
            targets: tokens, [m].

        Returns:
            [m], float32 (float64 for float64 states).
        """
        used = torch.get_autocast_dtype(hidden.device.type) if torch.is_autocast_enabled(hidden.device.type) else None
        states, matrix = (hidden, weight) if used is None else (hidden.to(used), weight.to(used))
        found = []
        with torch.autocast(hidden.device.type, enabled=False):
            for rows, wanted in zip(torch.split(states, CHUNK), torch.split(targets, CHUNK), strict=True):
                logits = _logits(rows, matrix, bias)
                found.append(logits.log_softmax(-1, dtype=_wide(logits)).gather(-1, wanted[:, None]).squeeze(-1))
        ctx.save_for_backward(states, matrix, bias, targets)
        ctx.dtypes = hidden.dtype, weight.dtype
        return torch.cat(found)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        """∂/∂logits = g·(one-hot − softmax), chunk by chunk."""
        states, matrix, bias, targets = ctx.saved_tensors
        hidden_dtype, weight_dtype = ctx.dtypes
        for_states, for_matrix, for_bias = ctx.needs_input_grad[:3]
        of_states = torch.empty_like(states) if for_states else None
        of_matrix: Tensor | None = None
        of_bias = torch.zeros_like(bias) if for_bias else None
        for start in range(0, len(targets), CHUNK):
            part = slice(start, start + CHUNK)
            gradient = gradients[0][part, None]
            # In place: these are the largest tensors of the whole step.
            logits = _logits(states[part], matrix, bias)
            slopes = logits.softmax(-1, dtype=_wide(logits)).mul_(-gradient)
            slopes.scatter_add_(-1, targets[part, None], gradient.to(slopes.dtype))
            if of_bias is not None:
                of_bias += slopes.sum(0)
            slopes = slopes.to(states.dtype)
            if of_states is not None:
                of_states[part] = slopes @ matrix
            if for_matrix:
                product = (slopes.T @ states[part]).to(weight_dtype)
                of_matrix = product if of_matrix is None else of_matrix.add_(product)
        if for_matrix and of_matrix is None:  # nothing was predicted
            of_matrix = torch.zeros_like(matrix, dtype=weight_dtype)
        return None if of_states is None else of_states.to(hidden_dtype), of_matrix, of_bias, None


def _logits(states: Tensor, matrix: Tensor, bias: Tensor | None) -> Tensor:
    logits = states @ matrix.T
    return logits if bias is None else logits + bias


def _wide(values: Tensor) -> torch.dtype:
    """In which the softmax is computed, straight from the logits' own precision."""
    return torch.float64 if values.dtype == torch.float64 else torch.float32


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

    Written out for bfloat16, where torch's fused kernel for CPUs takes six times as long with a hundred tokens; longer
    groups go to it, since what is written out keeps its T x T probabilities.
    """
    if query.dtype != torch.bfloat16 or query.shape[2] > LONG:
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout, scale=scale)
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    scores = (query * scale) @ key.transpose(2, 3)
    shares = scores.masked_fill(~mask, float("-inf")).softmax(-1)
    return F.dropout(shares, dropout) @ value if dropout else shares @ value


AttentionInterface.register(BLOCKS, _attend_in_blocks)
AttentionMaskInterface.register(BLOCKS, sdpa_mask)


def prepare(model: Any) -> bool:
    """Sets a model's attention for packed rows, and tries whether it then says what it says of each sequence alone.

    Models whose positions are not given by ``position_ids`` (ALiBi, as in BLOOM), or whose logits are changed after
    the head, fail the trial; they are left as they were.

    Args:
        model: a causal language model, in float32.

    Returns:
        Whether it can be packed.
    """
    before = model.config._attn_implementation
    top = min(model.config.vocab_size, 200)
    tokens = torch.randint(top, (23,), generator=torch.Generator().manual_seed(0)).tolist()
    trial = [
        Group(tuple(tokens[:5]), (tuple(tokens[5:9]), tuple(tokens[9:12]))),
        Group(tuple(tokens[12:15]), (tuple(tokens[15:16]), tuple(tokens[16:23]))),
    ]
    device, training = next(model.parameters()).device, model.training
    model.eval()
    try:
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            wanted = padded_logps(model, trial)
            model.set_attn_implementation(BLOCKS if device.type == "cpu" else "flex_attention")
            works = torch.allclose(packed_logps(model, pack(trial, device)), wanted, rtol=1e-3, atol=1e-3)
    except (TypeError, ValueError, RuntimeError):
        works = False
    finally:
        model.train(training)
    if not works:
        model.set_attn_implementation(before)
    return works


def padded_logps(model: Any, groups: Sequence[Group]) -> Tensor:
    """What ``packed_logps`` computes, for any model: each sequence has its own prompt and is padded; whole logits.

    Args:
        model: a causal language model.
        groups: as for ``pack``.

    Returns:
        [s], at least float32.
    """
    device = next(model.parameters()).device
    rows = [(len(group.prompt), [*group.prompt, *each]) for group in groups for each in group.completions]
    length = max(len(ids) for _, ids in rows)
    ids = torch.zeros((len(rows), length), dtype=torch.long)
    seen, learnt = torch.zeros_like(ids), torch.zeros_like(ids, dtype=torch.bool)
    for k, (prompt, tokens) in enumerate(rows):
        ids[k, : len(tokens)] = torch.tensor(tokens, dtype=torch.long)
        seen[k, : len(tokens)] = 1
        learnt[k, prompt : len(tokens)] = True
    ids, seen, learnt = ids.to(device), seen.to(device), learnt.to(device)
    logits = model(input_ids=ids, attention_mask=seen, use_cache=False).logits[:, :-1]
    logits = logits if logits.element_size() > 4 else logits.float()
    found = logits.gather(-1, ids[:, 1:, None]).squeeze(-1) - logits.logsumexp(-1)
    summed: Tensor = found.masked_fill(~learnt[:, 1:], 0.0).sum(-1)
    return summed


def packed_logps(model: Any, packed: Packed) -> Tensor:
    """Summed log-probabilities of packed completions.

    The model itself is called, whatever wraps it (DDP, FSDP, PEFT); while it runs, its head gives log-probabilities
    of the targets instead of logits.

    Args:
        model: a causal language model that ``prepare`` accepted.
        packed: the micro-batch.

    Returns:
        [s], at least float32.
    """
    with _head_gives_logps(model, packed):
        found = model(
            input_ids=packed.input_ids,
            position_ids=packed.position_ids,
            # On a CPU the spans say it all; a mask of four dimensions keeps the model from making its own.
            attention_mask=_block_mask(packed) if packed.input_ids.is_cuda else torch.ones((1, 1, 1, 1)).bool(),
            spans=packed.spans,
            use_cache=False,
        ).logits
    return torch.zeros(packed.sequences, dtype=found.dtype, device=found.device).index_add(0, packed.owners, found)


def _block_mask(packed: Packed) -> Any:
    """The same visibility for FlexAttention, which skips blocks where all is masked."""
    from torch.nn.attention.flex_attention import create_block_mask

    groups, branches, length = packed.groups, packed.branches, packed.input_ids.shape[1]

    def sees(_batch: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        together = (groups[query] == groups[key]) & (query >= key)
        return together & ((branches[key] == 0) | (branches[key] == branches[query]))

    return create_block_mask(sees, 1, None, length, length, device=packed.input_ids.device)


@contextlib.contextmanager
def _head_gives_logps(model: Any, packed: Packed) -> Iterator[None]:
    inner = model
    while not hasattr(inner, "get_output_embeddings"):
        inner = inner.module
    head = inner.get_output_embeddings()

    def logps_of_targets(hidden: Tensor) -> Tensor:
        states = hidden.reshape(-1, hidden.shape[-1])[packed.predictors]
        found: Tensor = TokenLogps.apply(states, head.weight, head.bias, packed.targets)  # type: ignore[no-untyped-call]
        return found

    head.forward = logps_of_targets
    try:
        yield
    finally:
        del head.forward


def group_logps(model: Any, groups: Sequence[Group], packs: bool) -> Tensor:
    """Summed log-probabilities of all completions of all groups, by the fast way where the model has it.

    Args:
        model: a causal language model.
        groups: at least one.
        packs: what ``prepare`` said of the model.

    Returns:
        [s], at least float32, on the model's device.
    """
    if not packs:
        return padded_logps(model, groups)
    return packed_logps(model, pack(groups, next(model.parameters()).device))
