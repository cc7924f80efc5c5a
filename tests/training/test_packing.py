"""Packed rows say what each sequence says alone."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from semdpo.training.logps import CHUNK, TokenLogps, packed_logps, padded_logps
from semdpo.training.packing import Group, pack
from semdpo.training.prepare import prepare

VOCABULARY, LIMIT = 60, 24
ENDS = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
SMALL = {"vocab_size": VOCABULARY, "hidden_size": 16, "num_hidden_layers": 2, "intermediate_size": 32}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": LIMIT}


@functools.cache
def _model(kind: str) -> Any:
    torch.manual_seed(0)
    match kind:
        case "gpt2":
            config = GPT2Config(
                vocab_size=VOCABULARY, n_embd=16, n_layer=2, n_head=4, n_positions=LIMIT, bos_token_id=0, eos_token_id=0
            )
            return GPT2LMHeadModel(config).eval()
        case "llama":
            return LlamaForCausalLM(LlamaConfig(**SMALL, **HEADS, **ENDS)).eval()
        case "qwen2":
            return Qwen2ForCausalLM(Qwen2Config(**SMALL, **HEADS, **ENDS)).eval()
        case "qwen3":
            return Qwen3ForCausalLM(Qwen3Config(**SMALL, **HEADS, **ENDS, head_dim=8)).eval()
    raise AssertionError(kind)


def _alone(model: Any, group: Group) -> list[torch.Tensor]:
    """The plain way: one sequence at a time through the model's own head."""
    found = []
    for completion in group.completions:
        ids = torch.tensor([[*group.prompt, *completion]])
        logs = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0].log_softmax(-1)
        start = max(len(group.prompt), 1)  # nothing predicts the first token of all
        found.append(sum((logs[t - 1, ids[0, t]] for t in range(start, ids.shape[1])), logs.sum() * 0))
    return found


TOKENS = st.integers(0, VOCABULARY - 1)
COMPLETION = st.lists(TOKENS, min_size=1, max_size=LIMIT // 2).map(tuple)
GROUP = st.builds(
    Group, st.lists(TOKENS, max_size=LIMIT // 2).map(tuple), st.lists(COMPLETION, min_size=1, max_size=3).map(tuple)
)


@pytest.mark.parametrize("kind", ["gpt2", "llama", "qwen2", "qwen3"])
@given(groups=st.lists(GROUP, min_size=1, max_size=4))
@example(groups=[Group((1, 2), ((3,), (3,)))])  # equal ones, of one token
@example(groups=[Group((), ((5, 6), (7, 8, 9))), Group((4,), ((5,),))])  # an empty prompt
@example(groups=[Group((1,) * (LIMIT // 2), ((2,) * (LIMIT // 2), (3,) * (LIMIT // 2)))])  # lengths at the limit
@settings(max_examples=15, deadline=None)
def test_packing_is_one_sequence_at_a_time(kind: str, groups: list[Group]) -> None:
    model = _model(kind)
    assert prepare(model)
    packed = packed_logps(model, pack(groups))
    alone = torch.stack([value for group in groups for value in _alone(model, group)])
    torch.testing.assert_close(packed, alone, rtol=1e-5, atol=1e-5)
    weights = torch.linspace(-1, 1, len(alone))
    gradients = [torch.autograd.grad((weights * each).sum(), list(model.parameters())) for each in (packed, alone)]
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_padding_says_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    groups = [Group((1, 2, 3), ((4,), (5, 6, 7))), Group((), ((8, 9),))]
    model = _model("gpt2")
    alone = torch.stack([value for group in groups for value in _alone(model, group)])
    torch.testing.assert_close(padded_logps(model, groups), alone, rtol=1e-5, atol=1e-5)


def test_a_prompt_is_computed_once_and_its_last_token_predicts_every_first() -> None:
    packed = pack([Group((1, 2), ((3, 4), (5,))), Group((6,), ((7,), (8, 9)))])
    assert packed.input_ids.tolist() == [[1, 2, 3, 4, 5, 6, 7, 8, 9]]
    assert packed.position_ids.tolist() == [[0, 1, 2, 3, 2, 0, 1, 1, 2]]
    assert packed.predictors.tolist() == [1, 2, 1, 5, 5, 7]
    assert packed.targets.tolist() == [3, 4, 5, 7, 8, 9]
    assert packed.owners.tolist() == [0, 0, 1, 2, 3, 3]
    start, end, mask = packed.spans[0]
    assert (start, end) == (0, 5)
    assert mask[0, 0].int().tolist() == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 1, 1, 1, 0],
        [1, 1, 0, 0, 1],
    ]


def test_a_model_that_cannot_be_packed_is_left_as_it_was() -> None:
    torch.manual_seed(0)
    config = BloomConfig(vocab_size=60, hidden_size=16, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0)
    model = BloomForCausalLM(config)
    before = model.config._attn_implementation
    assert not prepare(model)
    assert model.config._attn_implementation == before
    assert model.training


def test_a_prepared_model_still_writes() -> None:
    model = _model("qwen2")
    ids = torch.tensor([[1, 2, 3], [4, 5, 6]])
    wanted = model(input_ids=ids).logits
    assert prepare(model)
    torch.testing.assert_close(model(input_ids=ids).logits, wanted)


@pytest.mark.parametrize("count", [1, CHUNK, 2 * CHUNK + 3])
def test_the_head_in_chunks_is_log_softmax(count: int) -> None:
    torch.manual_seed(0)
    inputs = [torch.randn(count, 6, dtype=torch.float64), torch.randn(9, 6, dtype=torch.float64)]
    inputs.append(torch.randn(9, dtype=torch.float64))
    hidden, weight, bias = (each.requires_grad_() for each in inputs)
    targets = torch.randint(9, (count,))
    slopes = torch.randn(count, dtype=torch.float64)
    ours = TokenLogps.apply(hidden, weight, bias, targets)
    theirs = (hidden @ weight.T + bias).log_softmax(-1).gather(-1, targets[:, None]).squeeze(-1)
    torch.testing.assert_close(ours, theirs)
    for a, b in zip(
        torch.autograd.grad(ours @ slopes, inputs), torch.autograd.grad(theirs @ slopes, inputs), strict=True
    ):
        torch.testing.assert_close(a, b)
