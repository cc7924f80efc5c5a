"""log π(y|x) of completions: one forward pass, the head on predicting positions only, in chunks of tokens."""

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

CHUNK = 512  # tokens whose logits are in memory at once


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


def unwrapped(model: Any) -> Any:
    """The language model inside what trains it (DDP, FSDP), which it is called through."""
    while not hasattr(model, "get_output_embeddings"):
        model = model.module
    return model


def padded_logps(model: Any, groups: Sequence[Group]) -> Tensor:
    """What ``packed_logps`` computes, for any model: each sequence has its own prompt and is padded; whole logits.

    Args:
        model: a causal language model.
        groups: as for ``pack``.

    Returns:
        [s], at least float32.
    """
    rows = [(len(group.prompt), [*group.prompt, *each]) for group in groups for each in group.completions]
    limit = varying_rope_length(unwrapped(model).config)
    if limit is None or max(len(ids) for _, ids in rows) <= limit:
        return _of_padded(model, rows)
    # Rotary positions follow the longest row of a batch: those beyond the limit are computed with their equals only.
    found: dict[int, Tensor] = {}
    for length in sorted({max(len(ids), limit) for _, ids in rows}):
        places = [k for k, (_, ids) in enumerate(rows) if max(len(ids), limit) == length]
        with torch.no_grad():  # one token makes a model forget the longer texts before
            model(input_ids=torch.zeros((1, 1), dtype=torch.long, device=next(model.parameters()).device))
        found.update(zip(places, _of_padded(model, [rows[k] for k in places]), strict=True))
    return torch.stack([found[k] for k in range(len(rows))])


def _of_padded(model: Any, rows: Sequence[tuple[int, list[int]]]) -> Tensor:
    """Of rows (tokens of the prompt, all tokens), [s]."""
    device = next(model.parameters()).device
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

    Raises:
        ConfigError: the model's attention would let texts see each other.
    """
    attention = unwrapped(model).config._attn_implementation
    if attention not in (FLEX, BLOCKS):
        raise ConfigError(
            f"packed sequences would see each other through the attention '{attention}'; call "
            "training.prepare.prepare(model), and pass on what it returns as can_pack"
        )
    flexible = attention == FLEX
    # In blocks the spans say it all; a mask of four dimensions keeps the model from making its own.
    anything = torch.ones((1, 1, 1, 1), dtype=torch.bool, device=packed.input_ids.device)
    with _head_gives_logps(model, packed):
        found = model(
            input_ids=packed.input_ids,
            position_ids=packed.position_ids,
            attention_mask=block_mask(packed) if flexible else anything,
            spans=packed.spans,
            use_cache=False,
        ).logits
    return torch.zeros(packed.sequences, dtype=found.dtype, device=found.device).index_add(0, packed.owners, found)


@contextlib.contextmanager
def _head_gives_logps(model: Any, packed: Packed) -> Iterator[None]:
    head = unwrapped(model).get_output_embeddings()
    before = vars(head).get("forward")  # what others, such as accelerate's hooks, have put there
    whole = head.forward
    # Only a linear layer as torch made it is its matrix; adapters and the like are asked themselves.
    plain = before is None and type(head).forward is torch.nn.Linear.forward

    def logps_of_targets(hidden: Tensor) -> Tensor:
        states = hidden.reshape(-1, hidden.shape[-1])[packed.predictors]
        if not plain:
            return _logps_through(whole, states, packed.targets)
        found: Tensor = TokenLogps.apply(states, head.weight, head.bias, packed.targets)  # type: ignore[no-untyped-call]
        return found

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

    def of_chunk(rows: Tensor, wanted: Tensor) -> Tensor:
        logits = head(rows)
        return logits.log_softmax(-1, dtype=_wide(logits)).gather(-1, wanted[:, None]).squeeze(-1)

    parts = zip(torch.split(states, CHUNK), torch.split(targets, CHUNK), strict=True)
    if not torch.is_grad_enabled():
        return torch.cat([of_chunk(rows, wanted) for rows, wanted in parts])
    return torch.cat([checkpoint(of_chunk, rows, wanted, use_reentrant=False) for rows, wanted in parts])


def group_logps(model: Any, groups: Sequence[Group], can_pack: bool) -> Tensor:
    """Summed log-probabilities of all completions of all groups, by the fast way where the model has it.

    Args:
        model: a causal language model.
        groups: at least one.
        can_pack: what ``prepare`` said of the model.

    Returns:
        [s], at least float32, on the model's device.
    """
    limit = constant_length(unwrapped(model).config)
    if not can_pack or (limit is not None and any(group.longest > limit for group in groups)):
        return padded_logps(model, groups)
    return packed_logps(model, pack(groups, next(model.parameters()).device))
