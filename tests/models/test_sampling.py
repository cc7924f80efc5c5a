"""Drawing tokens: the right distribution, and nothing but seed, step and scores decides."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor
from transformers.generation.logits_process import TopKLogitsWarper, TopPLogitsWarper

from semdpo.errors import ModelError
from semdpo.models import sampling
from semdpo.models.sampling import Sampler, bits, keys, sample

SURE = 1e-4  # a right sampler fails a test of this size once in 10,000 seeds; the seeds here are fixed


def _scores(size: int, spread: float, seed: int = 0) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed)) * spread


def _agree(drawn: Tensor, probabilities: Tensor) -> float:
    """The chi-squared test's p-value; tokens that are expected fewer than 5 times are counted together."""
    expected = probabilities.double().numpy() * len(drawn)
    counts = np.bincount(drawn.numpy(), minlength=len(expected))
    assert counts[expected == 0].sum() == 0, "a token that is excluded was drawn"
    often = expected >= 5
    assert often.sum() > 1, "there is nothing to choose"
    seen, due = [*counts[often], counts[~often].sum()], [*expected[often], expected[~often].sum()]
    if due[-1] < 1e-9:
        seen, due = seen[:-1], due[:-1]
    return float(stats.chisquare(seen, due, sum_check=False).pvalue)


@pytest.mark.parametrize(
    ("size", "spread", "temperature", "top_k", "top_p"),
    [
        (2, 1.0, 1.0, None, 1.0),
        (40, 2.0, 1.0, None, 1.0),
        (40, 2.0, 0.5, None, 0.9),
        (40, 2.0, 2.0, 7, 1.0),
        (300, 1.5, 1.0, 50, 0.7),
        (300, 0.0, 1.0, None, 1.0),
        (300, 1.0, 1.0, None, 0.2),
        (3000, 0.5, 1.0, None, 0.95),
    ],
)
def test_draws_are_distributed_as_the_softmax(
    size: int, spread: float, temperature: float, top_k: int | None, top_p: float
) -> None:
    scores = _scores(size, spread)
    left = (scores / temperature)[None]
    if top_k is not None:
        left = TopKLogitsWarper(top_k)(torch.empty(0), left)
    if top_p < 1:
        left = TopPLogitsWarper(top_p)(torch.empty(0), left)
    rows, parts = 5000, []
    for step in range(4):
        parts.append(sample(scores.expand(rows, size), keys(range(rows), step), temperature, top_k, top_p))
    assert _agree(torch.cat(parts), left.double().softmax(-1)[0]) > SURE


@pytest.mark.parametrize("size", [7, 1000])
@pytest.mark.parametrize("top_p", [1e-9, 0.1, 0.5, 0.9, 0.999])
def test_what_top_p_leaves_is_what_transformers_leaves(size: int, top_p: float) -> None:
    scores = torch.stack([_scores(size, spread, seed) for seed, spread in enumerate((0.1, 1.0, 4.0, 20.0))])
    left = TopPLogitsWarper(top_p)(torch.empty(0), scores).isfinite()
    drawn = torch.stack([sample(scores, keys(range(4), step), top_p=top_p) for step in range(200)])
    for row in range(4):
        assert set(drawn[:, row].tolist()) <= set(left[row].nonzero()[:, 0].tolist())
    assert (drawn[:, 3] == scores[3].argmax()).any()


def test_ties_are_left_together() -> None:
    scores = torch.tensor([[1.0, 1.0, 1.0, 1.0, -9.0]])
    for options in ({"top_p": 0.3}, {"top_k": 2}):
        drawn = {int(sample(scores, keys([0], step), **options)) for step in range(100)}
        assert drawn == {0, 1, 2, 3}


@pytest.mark.parametrize(("one", "other"), [((1, 5), (2, 5)), ((1, 5), (1, 6)), ((0, 0), (1, 1)), ((3, 0), (0, 3))])
def test_rows_and_steps_are_independent(one: tuple[int, int], other: tuple[int, int]) -> None:
    # Equal distances of seed and step, over many places: pairs of draws fill their table as a product.
    scores = _scores(6, 0.7).expand(6000, 6)
    first, second = (sample(scores, keys(range(seed, 12000 + seed, 2), step)) for seed, step in (one, other))
    table = np.zeros((6, 6))
    np.add.at(table, (first.numpy(), second.numpy()), 1)
    assert stats.chi2_contingency(table).pvalue > SURE


def test_tokens_noise_is_uniform_and_uncorrelated() -> None:
    uniform = bits(keys(range(500), 0), sampling._spread(2000, torch.device("cpu"))).double() / 2**32
    assert stats.kstest(uniform.flatten().numpy(), "uniform").pvalue > SURE
    centred = (uniform - 0.5).numpy() * math.sqrt(12)
    for apart in (1, 2, 3, 16, 256, 1024):
        # The mean of m products of independent numbers of variance 1 is normal with variance 1 / m.
        along = (centred[:, :-apart] * centred[:, apart:]).mean()
        assert abs(along) * math.sqrt(500 * (2000 - apart)) < 4, f"tokens {apart} apart"
    between = (centred[:-1] * centred[1:]).mean()
    assert abs(between) * math.sqrt(499 * 2000) < 4
    ones = ((uniform * 2**32).long()[..., None] >> torch.arange(32)) & 1
    assert float((ones.double().mean((0, 1)) - 0.5).abs().max()) * 2 * math.sqrt(1e6) < 4.5, "every bit is fair"


def test_bits_are_those_of_whole_numbers_without_overflow() -> None:
    def mixed(token: int, low: int, high: int) -> int:
        x = token ^ low
        x ^= x >> 16
        x = (x * 0x21F0AAAD + high) % 2**32
        x ^= x >> 15
        x = x * 0x735A2D97 % 2**32
        return x ^ x >> 15

    edges = [0, 1, 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1, 0xDEADBEEF]
    found = bits(torch.tensor([[a, b] for a in edges for b in edges]), torch.tensor(edges))
    assert found.tolist() == [[mixed(token, a, b) for token in edges] for a in edges for b in edges]


def test_no_noise_is_zero_or_endless(monkeypatch: pytest.MonkeyPatch) -> None:
    extremes = torch.tensor([[0, 2**32 - 1]])
    monkeypatch.setattr(sampling, "bits", lambda *_: extremes)
    found = sampling.negative_exponentials(torch.zeros(1, 2, dtype=torch.int64), torch.arange(2))
    assert found.isfinite().all()
    assert (found < 0).all()


def test_a_row_depends_on_its_own_seed_and_step_only(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = torch.stack([_scores(500, 1.0, seed) for seed in range(30)])
    seeds, order = list(range(100, 130)), torch.randperm(30, generator=torch.Generator().manual_seed(0))
    whole = sample(scores, keys(seeds, 3), top_p=0.9)
    shuffled = sample(scores[order], keys([seeds[k] for k in order], 3), top_p=0.9)
    assert torch.equal(shuffled, whole[order])
    assert [int(sample(scores[k : k + 1], keys([seeds[k]], 3), top_p=0.9)) for k in range(30)] == whole.tolist()
    assert not torch.equal(sample(scores, keys(seeds, 4), top_p=0.9), whole)
    monkeypatch.setattr(sampling, "CACHED", 1300)  # blocks of two rows
    assert torch.equal(sample(scores, keys(seeds, 3), top_p=0.9), whole)


def test_excluding_a_token_leaves_the_others_noise() -> None:
    # So that a token which another batch's rounding leaves out seldom changes what is drawn.
    scores = _scores(100, 1.0).expand(2000, 100).clone()
    known = keys(range(2000), 0)
    whole = sample(scores, known)
    scores[:, 7] = -math.inf
    without = sample(scores, known)
    assert (without != 7).all()
    assert torch.equal(without[whole != 7], whole[whole != 7])


def test_the_step_is_what_was_written_whatever_padding_stands_before() -> None:
    scores = _scores(50, 1.0)[None]
    for step in range(5):
        short, long = (Sampler([9], start)(torch.zeros(1, start + step), scores) for start in (3, 40))
        assert torch.equal(short, long)
        assert short.isfinite().sum() == 1
        assert short.argmax() == sample(scores, keys([9], step))


def test_extreme_settings_and_scores() -> None:
    scores = torch.tensor([[1e30, -1e30, 0.0], [-1e30, 5.0, -math.inf], [3.0, 2.0, 1.0]])
    for step in range(20):
        assert sample(scores, keys(range(3), step), temperature=1e-300).tolist() == [0, 1, 0]
        assert sample(scores, keys(range(3), step), top_p=1e-300, top_k=10).tolist() == [0, 1, 0]
        assert sample(scores, keys(range(3), step), top_k=1).tolist() == [0, 1, 0]
    for bad in (math.nan, math.inf):
        with pytest.raises(ModelError, match="not finite"):
            sample(torch.tensor([[0.0, bad]]), keys([0], 0))
    with pytest.raises(ModelError, match="not finite"):
        sample(torch.full((1, 3), -math.inf), keys([0], 0))
