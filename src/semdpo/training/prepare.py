"""Sets a model's attention for packed rows where that gives correct results, and reports why where it does not."""

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

TRIAL_TOLERANCE = 1e-3  # largest difference between packed and padded log-probabilities, relative and in nats
NARROWEST = 16  # smallest head width for which FlexAttention has a kernel on GPUs


def prepare(model: Any, longest: int = 0) -> bool:
    """Sets a model's attention for packed rows, and tests that packed and single sequences have equal results.

    Batches are padded instead, and the model stays unchanged, where its attention cannot be set (BLOOM with its ALiBi
    positions, Mamba) or where the test fails (models that change the logits after the head). A message reports why.
    Sequences that are longer than a model's attention window are always padded, see ``group_logps``.

    Args:
        model: a causal language model with float32 weights, on the device on which it will be trained.
        longest: number of tokens of the longest sequence that it will read; the test has a sequence of this length.

    Returns:
        Whether the model can be packed.

    Raises:
        RuntimeError: an error of the machine, such as too little memory, tensors on two devices or a kernel that cannot
            be compiled, which would occur again in training.
    """
    inner = unwrapped(model)
    before = inner.config._attn_implementation
    reason = "" if inner._supports_attention_backend else "its attention cannot be set"
    if not reason:
        trial = _trial(inner, longest)
        device, training = next(model.parameters()).device, model.training
        model.eval()
        try:
            with torch.no_grad(), torch.autocast(device.type, enabled=False):
                expected = padded_logps(model, trial)
                reason = _first_that_works(model, _implementations(inner, device), trial, expected)
        finally:
            model.train(training)
    if reason:
        if inner.config._attn_implementation != before:
            inner.set_attn_implementation(before)
        say(
            f"{type(inner).__name__} cannot share prompts between completions ({reason}); "
            "its batches are padded, which is slower"
        )
    return not reason


def _implementations(model: Any, device: torch.device) -> list[str]:
    """Names of the attention implementations for packed rows, the fastest on this device first."""
    if device.type == "cpu" or not model._supports_flex_attn or _head_width(model.config) < NARROWEST:
        return [BLOCKS]
    return [FLEX, BLOCKS]


def _head_width(config: Any) -> int:
    """The width of an attention head; ``NARROWEST`` where the configuration does not have it."""
    given = getattr(config, "head_dim", None)
    width, heads = getattr(config, "hidden_size", None), getattr(config, "num_attention_heads", None)
    return int(given or (width // heads if width and heads else NARROWEST))


def _first_that_works(model: Any, names: Sequence[str], trial: Sequence[Group], expected: Tensor) -> str:
    """Sets the first attention with which packed sequences have the same log-probabilities as single ones.

    Returns:
        The reason why there is none; "" where there is one.
    """
    reason, packed = "", pack(trial, expected.device)
    for name in names:
        try:
            unwrapped(model).set_attn_implementation(name)
            logps = packed_logps(model, packed)
        except (TypeError, ValueError) as error:  # its forward pass does not accept such a mask or positions
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
            continue
        if torch.allclose(logps, expected, rtol=TRIAL_TOLERANCE, atol=TRIAL_TOLERANCE):
            return ""
        reason = f"packed, its log-probabilities differ by {float((logps - expected).abs().max()):.2g}"
    return reason


def _trial(model: Any, longest: int) -> list[Group]:
    """Two groups of random tokens, one with a sequence of ``longest`` tokens, to reveal effects of length."""
    top = min(model.config.vocab_size, 200)
    positions = [constant_length(model.config), getattr(model.config, "max_position_embeddings", None)]
    length = min(max(longest, 11), *(limit for limit in positions if limit))
    generator = torch.Generator().manual_seed(0)
    tokens = tuple(torch.randint(top, (length + 16,), generator=generator).tolist())
    split = min(5, length // 2)
    rest = tokens[length:]
    return [
        Group(tokens[:split], (tokens[split:length], rest[:3])),
        Group(rest[3:6], (rest[6:7], rest[7 : 7 + min(7, max(length - 3, 1))])),
    ]
