"""Windows, chunks and positions that depend on length: every model says of a text what it says of it alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from semdpo.training.lengths import constant_length
from semdpo.training.logps import group_logps
from semdpo.training.packing import Group
from semdpo.training.prepare import prepare
from semdpo.training.reference import reference_logps
from tests.training import architectures

_LONG_ROPE = {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [4.0] * 4}
_DYNAMIC = {"rope_type": "dynamic", "factor": 4.0}
_YARN = {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 64}
CASES: dict[str, tuple[str, dict[str, Any], int | None]] = {
    "no limit": ("llama", {}, None),
    "a window": ("mistral", {"sliding_window": 16}, 16),
    "a window of one": ("mistral", {"sliding_window": 1}, 1),
    "windows in some layers": ("gemma3_text", {"sliding_window": 16}, 16),
    "windows and capped logits": ("gemma2", {"sliding_window": 12}, 12),
    "a window that is off": ("qwen2", {"sliding_window": 16, "use_sliding_window": False}, None),
    "a window from the first layer on": (
        "qwen2", {"sliding_window": 16, "use_sliding_window": True, "max_window_layers": 0}, 16,
    ),
    "another window": ("starcoder2", {"sliding_window": 10}, 10),
    "chunks": ("llama4_text", {"attention_chunk_size": 16}, 16),
    "local attention": ("gpt_neo", {"window_size": 16}, 16),
    "dynamic positions": ("llama", {"max_position_embeddings": 20, "rope_scaling": _DYNAMIC}, 20),
    "long positions": ("phi3", {"original_max_position_embeddings": 20, "rope_scaling": _LONG_ROPE}, 20),
    "stretched positions": ("llama", {"rope_scaling": {"rope_type": "linear", "factor": 2.0}}, None),
    "yarn": ("qwen3", {"rope_scaling": _YARN}, None),
}  # fmt: skip


def _groups() -> list[Group]:
    """Sequences of 12 to 60 tokens, in no order of length."""
    generator = torch.Generator().manual_seed(1)

    def tokens(count: int) -> tuple[int, ...]:
        return tuple(torch.randint(1, 90, (count,), generator=generator).tolist())

    sizes = [(5, 55, 9), (12, 3, 40), (4, 8, 8), (9, 21, 2), (30, 5, 30)]
    return [Group(tokens(prompt), (tokens(chosen), tokens(rejected))) for prompt, chosen, rejected in sizes]


def _alone(settings: Any, groups: list[Group]) -> Tensor:
    """Plain transformers in float64: a fresh model for each text, no padding, nothing of ours; [n, 2]."""
    settings._attn_implementation = "eager"
    found = []
    for group in groups:
        for text in group.completions:
            model = architectures.model(settings).double()
            ids = torch.tensor([[*group.prompt, *text]])
            with torch.no_grad():
                logps = model(input_ids=ids, use_cache=False).logits.log_softmax(-1)[0, :-1]
            found.append(logps.gather(-1, ids[0, 1:, None])[len(group.prompt) - 1 :].sum())
    return torch.stack(found).view(-1, 2)


@pytest.mark.parametrize("case", CASES)
def test_log_probabilities_are_those_of_the_text_alone(case: str) -> None:
    kind, more, limit = CASES[case]
    settings = architectures.config(kind, **more)
    assert constant_length(settings) == limit
    model, groups = architectures.model(settings), _groups()
    can_pack = prepare(model, 60)
    # transformers' eager attention takes its softmax in float32, where float64's lowest number, which masks, is -inf.
    eager = model.config._attn_implementation == "eager"
    model.to(torch.float32 if eager else torch.float64)
    with torch.no_grad():
        together = group_logps(model, groups, can_pack).view(-1, 2)
    by_reference = torch.tensor(reference_logps(model, groups, can_pack), dtype=torch.float64)
    wanted = _alone(architectures.config(kind, **more), groups)
    # transformers computes rotary angles in float32, whatever the weights are.
    close = {"atol": 1e-4, "rtol": 1e-6} if eager else {"atol": 1e-6, "rtol": 1e-7}
    torch.testing.assert_close(together.double(), wanted, **close)
    torch.testing.assert_close(by_reference, wanted, **close)


def test_short_texts_are_packed_beside_long_ones_that_are_not() -> None:
    """A window costs nothing where no text reaches it."""
    settings = architectures.config("mistral", sliding_window=16)
    model = architectures.model(settings)
    assert prepare(model, 60)
    called = []
    model.register_forward_pre_hook(
        lambda _module, _args, given: called.append(given["input_ids"].shape), with_kwargs=True
    )
    groups = [Group((1, 2, 3), ((4, 5), (6, 7, 8))), Group((9, 10), ((11,), (12, 13)))]
    with torch.no_grad():
        group_logps(model, groups, True)
        group_logps(model, [*groups, Group((1,) * 10, ((2,) * 7,))], True)
    assert [shape[0] for shape in called] == [1, 5]
