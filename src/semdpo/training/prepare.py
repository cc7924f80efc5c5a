"""Sets a model's attention for packed rows where that gives the right numbers, and says why where it does not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from semdpo.progress import say
from semdpo.training.attention import BLOCKS, FLEX
from semdpo.training.lengths import constant_length
from semdpo.training.logps import packed_logps, padded_logps, unwrapped
from semdpo.training.packing import Group, pack

TRIAL_TOLERANCE = 1e-3  # of packed against padded, relative and in nats
NARROWEST = 16  # head of which FlexAttention has a kernel on GPUs


def prepare(model: Any, longest: int = 0) -> bool:
    """Sets a model's attention for packed rows, and tries whether it then says what it says of each sequence alone.

    Models are padded instead, and stay as they were, where their attention is not to be chosen (BLOOM, whose positions
    are ALiBi's, Mamba), and where the trial gives other numbers (logits that are changed after the head). A line says
    why. Sequences that are longer than a model's attention window are always padded, see ``group_logps``.

    Args:
        model: a causal language model with float32 weights, on the device on which it will be trained.
        longest: tokens of the longest sequence that it will read; the trial's sequences are as long.

    Returns:
        Whether it can be packed.

    Raises:
        RuntimeError: the machine's fault, such as too little memory, tensors on two devices or a kernel that cannot be
            compiled; it would only come back later.
    """
    inner = unwrapped(model)
    before = inner.config._attn_implementation
    reason = "" if inner._supports_attention_backend else "its attention cannot be chosen"
    if not reason:
        trial = _trial(inner, longest)
        device, training = next(model.parameters()).device, model.training
        model.eval()
        try:
            with torch.no_grad(), torch.autocast(device.type, enabled=False):
                wanted = padded_logps(model, trial)
                reason = _first_that_works(model, _implementations(inner, device), trial, wanted)
        finally:
            model.train(training)
    if reason:
        if inner.config._attn_implementation != before:
            inner.set_attn_implementation(before)
        say(
            f"{type(inner).__name__} cannot share prompts between completions ({reason}); "
            "its batches are padded, slower"
        )
    return not reason


def _implementations(model: Any, device: torch.device) -> list[str]:
    """Ways of attending within groups, the fastest on this device first."""
    if device.type == "cpu" or not model._supports_flex_attn or _head_width(model.config) < NARROWEST:
        return [BLOCKS]
    return [FLEX, BLOCKS]


def _head_width(config: Any) -> int:
    """Numbers of one attention head; where a configuration does not say so, enough."""
    given = getattr(config, "head_dim", None)
    width, heads = getattr(config, "hidden_size", None), getattr(config, "num_attention_heads", None)
    return int(given or (width // heads if width and heads else NARROWEST))


def _first_that_works(model: Any, names: Sequence[str], trial: Sequence[Group], wanted: Tensor) -> str:
    """Sets the first attention with which packed sequences have the log-probabilities that they have alone.

    Returns:
        Why there is none; empty when there is one.
    """
    reason, packed = "", pack(trial, wanted.device)
    for name in names:
        try:
            unwrapped(model).set_attn_implementation(name)
            found = packed_logps(model, packed)
        except (TypeError, ValueError) as error:  # its forward pass takes no such mask or positions
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
            continue
        if torch.allclose(found, wanted, rtol=TRIAL_TOLERANCE, atol=TRIAL_TOLERANCE):
            return ""
        reason = f"packed, its log-probabilities differ by {float((found - wanted).abs().max()):.2g}"
    return reason


def _trial(model: Any, longest: int) -> list[Group]:
    """Two groups of random tokens, one with a sequence of ``longest`` tokens: what depends on length shows there."""
    top = min(model.config.vocab_size, 200)
    positions = [constant_length(model.config), getattr(model.config, "max_position_embeddings", None)]
    length = min(max(longest, 11), *(each for each in positions if each))
    generator = torch.Generator().manual_seed(0)
    tokens = tuple(torch.randint(top, (length + 16,), generator=generator).tolist())
    cut = min(5, length // 2)
    rest = tokens[length:]
    return [
        Group(tokens[:cut], (tokens[cut:length], rest[:3])),
        Group(rest[3:6], (rest[6:7], rest[7 : 7 + min(7, max(length - 3, 1))])),
    ]
