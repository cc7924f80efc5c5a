"""log π(y|x) of completions: one forward pass; the head runs only at predicting positions, in chunks of tokens."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from semdpo.errors import ConfigError
from semdpo.training.attention import BLOCKS, FLEX, block_mask
from semdpo.training.lengths import constant_length, varying_rope_length
from semdpo.training.packing import Group, Packed, pack

CHUNK = 512  # number of tokens whose logits are in memory at once


class TokenLogps(torch.autograd.Function):
    """log softmax(h Wᵀ + b)[target], for chunks of tokens; the logits are computed again in the backward pass."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor) -> Tensor:
        """The log-probabilities of the targets.

        Args:
            ctx: autograd's context.
            hidden: last hidden states at the predicting positions, [m, d].
            weight: weight of the head, [vocabulary, d].
            bias: bias of the head, [vocabulary], or None.
            targets: target tokens, [m].

        Returns:
            Log-probabilities, [m], float32 (float64 for float64 states).
        """
        used = torch.get_autocast_dtype(hidden.device.type) if torch.is_autocast_enabled(hidden.device.type) else None
        states, matrix = (hidden, weight) if used is None else (hidden.to(used), weight.to(used))
        chunks = []
        with torch.autocast(hidden.device.type, enabled=False):
            for rows, tokens in zip(torch.split(states, CHUNK), torch.split(targets, CHUNK), strict=True):
                logits = _logits(rows, matrix, bias)
                chunks.append(logits.log_softmax(-1, dtype=_wide(logits)).gather(-1, tokens[:, None]).squeeze(-1))
        ctx.save_for_backward(states, matrix, bias, targets)
        ctx.dtypes = hidden.dtype, weight.dtype
        return torch.cat(chunks)

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
    """The type in which the softmax is computed from the logits: float64 for float64, else float32."""
    return torch.float64 if values.dtype == torch.float64 else torch.float32


def unwrapped(model: Any) -> Any:
    """The language model inside wrappers such as DDP and FSDP."""
    while not hasattr(model, "get_output_embeddings"):
        model = model.module
    return model


def padded_logps(model: Any, groups: Sequence[Group]) -> Tensor:
    """Summed log-probabilities of completions for any model: every sequence has its own prompt and is padded.

    Args:
        model: a causal language model.
        groups: prompts with their completions, as for ``pack``.

    Returns:
        Summed log-probabilities, [s], at least float32.
    """
    rows = [(len(group.prompt), [*group.prompt, *tokens]) for group in groups for tokens in group.completions]
    limit = varying_rope_length(unwrapped(model).config)
    if limit is None or max(len(ids) for _, ids in rows) <= limit:
        return _of_padded(model, rows)
    # Rotary positions depend on the longest row of a batch, so rows beyond the limit share a batch only with equally
    # long ones.
    by_row: dict[int, Tensor] = {}
    for length in sorted({max(len(ids), limit) for _, ids in rows}):
        places = [k for k, (_, ids) in enumerate(rows) if max(len(ids), limit) == length]
        with torch.no_grad():  # a text of one token resets the positions that longer texts before it set
            model(input_ids=torch.zeros((1, 1), dtype=torch.long, device=next(model.parameters()).device))
        by_row.update(zip(places, _of_padded(model, [rows[k] for k in places]), strict=True))
    return torch.stack([by_row[k] for k in range(len(rows))])


def _of_padded(model: Any, rows: Sequence[tuple[int, list[int]]]) -> Tensor:
    """Summed log-probabilities of rows (number of prompt tokens, all tokens), [s]."""
    device = next(model.parameters()).device
    length = max(len(ids) for _, ids in rows)
    ids = torch.zeros((len(rows), length), dtype=torch.long)
    attention, completion = torch.zeros_like(ids), torch.zeros_like(ids, dtype=torch.bool)
    for k, (prompt, tokens) in enumerate(rows):
        ids[k, : len(tokens)] = torch.tensor(tokens, dtype=torch.long)
        attention[k, : len(tokens)] = 1
        completion[k, prompt : len(tokens)] = True
    ids, attention, completion = ids.to(device), attention.to(device), completion.to(device)
    logits = model(input_ids=ids, attention_mask=attention, use_cache=False).logits[:, :-1]
    logits = logits if logits.element_size() > 4 else logits.float()
    logps = logits.gather(-1, ids[:, 1:, None]).squeeze(-1) - logits.logsumexp(-1)
    summed: Tensor = logps.masked_fill(~completion[:, 1:], 0.0).sum(-1)
    return summed


def packed_logps(model: Any, packed: Packed) -> Tensor:
    """Summed log-probabilities of packed completions.

    The model is called through its wrappers (DDP, FSDP, PEFT); while it runs, its head returns log-probabilities of
    the targets instead of logits.

    Args:
        model: a causal language model that ``prepare`` accepted.
        packed: the packed micro-batch.

    Returns:
        Summed log-probabilities, [s], at least float32.

    Raises:
        ConfigError: with the model's attention, packed texts would attend to each other.
    """
    attention = unwrapped(model).config._attn_implementation
    if attention not in (FLEX, BLOCKS):
        raise ConfigError(
            f"packed sequences would attend to each other with the attention '{attention}'; call "
            "training.prepare.prepare(model), and pass on what it returns as can_pack"
        )
    flexible = attention == FLEX
    # The spans define the blocks; a four-dimensional mask keeps the model from building its own.
    placeholder = torch.ones((1, 1, 1, 1), dtype=torch.bool, device=packed.input_ids.device)
    with _head_gives_logps(model, packed):
        logps = model(
            input_ids=packed.input_ids,
            position_ids=packed.position_ids,
            attention_mask=block_mask(packed) if flexible else placeholder,
            spans=packed.spans,
            use_cache=False,
        ).logits
    return torch.zeros(packed.sequences, dtype=logps.dtype, device=logps.device).index_add(0, packed.owners, logps)


@contextlib.contextmanager
def _head_gives_logps(model: Any, packed: Packed) -> Iterator[None]:
    head = unwrapped(model).get_output_embeddings()
    before = vars(head).get("forward")  # set by others, such as accelerate's hooks
    whole = head.forward
    # Only torch's plain linear layer is fully described by its weight and bias; others, such as adapters, are called.
    plain = before is None and type(head).forward is torch.nn.Linear.forward

    def logps_of_targets(hidden: Tensor) -> Tensor:
        states = hidden.reshape(-1, hidden.shape[-1])[packed.predictors]
        if not plain:
            return _logps_through(whole, states, packed.targets)
        logps: Tensor = TokenLogps.apply(states, head.weight, head.bias, packed.targets)  # type: ignore[no-untyped-call]
        return logps

    head.forward = logps_of_targets
    try:
        yield
    finally:
        if before is None:
            del head.forward
        else:
            head.forward = before


def _logps_through(head: Callable[[Tensor], Tensor], states: Tensor, targets: Tensor) -> Tensor:
    """log softmax(head(h))[target] for any head, [m]; the logits of a chunk are computed again in the backward pass."""

    def of_chunk(rows: Tensor, tokens: Tensor) -> Tensor:
        logits = head(rows)
        return logits.log_softmax(-1, dtype=_wide(logits)).gather(-1, tokens[:, None]).squeeze(-1)

    parts = zip(torch.split(states, CHUNK), torch.split(targets, CHUNK), strict=True)
    if not torch.is_grad_enabled():
        return torch.cat([of_chunk(rows, tokens) for rows, tokens in parts])
    return torch.cat([checkpoint(of_chunk, rows, tokens, use_reentrant=False) for rows, tokens in parts])


def group_logps(model: Any, groups: Sequence[Group], can_pack: bool) -> Tensor:
    """Summed log-probabilities of all completions of all groups, packed where the model allows it.

    Args:
        model: a causal language model.
        groups: prompts with their completions, at least one.
        can_pack: whether ``prepare`` accepted the model for packing.

    Returns:
        Summed log-probabilities, [s], at least float32, on the model's device.
    """
    limit = constant_length(unwrapped(model).config)
    if not can_pack or (limit is not None and any(group.longest > limit for group in groups)):
        return padded_logps(model, groups)
    return packed_logps(model, pack(groups, next(model.parameters()).device))
