"""Drawing tokens so that a draw depends on its row's seed and step only: not on the batch, its size or the device.

The noise of a token is a hash of (seed, step, token id), computed where the scores lie. Nothing has a state, so rows
may come in any order and any company; a token that another row's batch leaves out keeps its noise. The token is the
winner of a race: with independent exponential times E_v, argmin E_v / p_v is distributed as p (the Gumbel-max trick,
without its second logarithm).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import LogitsProcessor

from semdpo.data.records import content_seed
from semdpo.errors import ModelError

MASK = 0xFFFFFFFF
# The multipliers of a 32-bit hash (two rounds of shift, xor and multiply). They are below 2**31, so that a product with
# 32 bits fits 63 and no device's way of overflowing matters.
FIRST, SECOND = 0x21F0AAAD, 0x735A2D97
NEAR_ONE = 1 - 2.0**-24  # the largest float32 below 1
COLDEST = 1e-30  # below it a temperature would be 0 in float32
CACHED, IN_MEMORY = 2**19, 2**25  # numbers worked on at once: what a CPU's cache holds; what a GPU has memory for


class Sampler(LogitsProcessor):  # type: ignore[misc]
    """Makes transformers' greedy choice a sample: all scores but the drawn token's become -inf.

    Args:
        seeds: of the rows.
        start: length of the rows before anything is written.
        temperature: > 0.
        top_k: as in ``draw``.
        top_p: as in ``draw``.
    """

    def __init__(
        self, seeds: Sequence[int], start: int, temperature: float = 1.0, top_k: int | None = None, top_p: float = 1.0
    ) -> None:
        self._seeds, self._start = list(seeds), start
        self._temperature, self._top_k, self._top_p = temperature, top_k, top_p

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """The scores [n, vocabulary] of the next token after ``input_ids`` [n, length]."""
        drawn = draw(
            scores, keys(self._seeds, input_ids.shape[1] - self._start), self._temperature, self._top_k, self._top_p
        )
        return torch.full_like(scores, -math.inf).scatter_(1, drawn[:, None], 0.0)


class Greedy(LogitsProcessor):  # type: ignore[misc]
    """Leaves the scores as they are, and refuses those that are not finite, of which any token could be the greatest.

    Raises:
        ModelError: a row's scores are not finite.
    """

    def __call__(self, _input_ids: Tensor, scores: Tensor) -> Tensor:
        """The scores [n, vocabulary] themselves."""
        _top(scores)
        return scores


def keys(seeds: Sequence[int], step: int) -> Tensor:
    """64 bits of each row for one step, as two numbers of 32 bits, int64 [n, 2]."""
    mixed = [content_seed("token", str(seed), str(step)) for seed in seeds]
    return torch.tensor([[each & MASK, each >> 32] for each in mixed], dtype=torch.int64).reshape(-1, 2)


def draw(
    scores: Tensor, keys: Tensor, temperature: float = 1.0, top_k: int | None = None, top_p: float = 1.0
) -> Tensor:
    """One token of each row, distributed as the softmax of ``scores / temperature`` over those that are left.

    ``top_k`` comes first, then ``top_p``. A token is left by ``top_p`` when those that are more probable make up less
    than this share, so tokens of equal probability are left together or not at all.

    Args:
        scores: logits, [n, vocabulary]; -inf excludes a token.
        keys: of the noise, [n, 2], from ``keys``.
        temperature: > 0.
        top_k: number of most probable tokens; None is all.
        top_p: share of the most probable tokens, in (0, 1].

    Returns:
        Token ids, [n].

    Raises:
        ModelError: a row's scores are not finite.
    """
    keys, size = keys.to(scores.device), scores.shape[1]
    tokens = _spread(size, scores.device)
    # Blocks change no number: rows are independent.
    rows = max(1, (CACHED if scores.device.type == "cpu" else IN_MEMORY) // size)
    temperature = max(temperature, COLDEST)
    drawn = [
        _race(_weights(some, temperature, top_k), negative_exponentials(own, tokens), top_p)
        for some, own in zip(torch.split(scores, rows), torch.split(keys, rows), strict=True)
    ]
    return torch.cat(drawn)


def _weights(scores: Tensor, temperature: float, top_k: int | None) -> Tensor:
    """Probabilities up to a factor; the largest is 1."""
    weights = (scores.float() - _top(scores)).div_(temperature).exp_()
    if top_k is not None and top_k < weights.shape[1]:
        least = weights.topk(top_k).values[:, -1:]
        weights.masked_fill_(weights < least, 0.0)
    return weights


def _top(scores: Tensor) -> Tensor:
    """Each row's greatest score, [n, 1]."""
    top = scores.float().amax(1, keepdim=True)
    if not bool(top.isfinite().all()):
        raise ModelError("the model's scores of the next token are not finite; use precision float32, or another model")
    return top


def _race(weights: Tensor, times: Tensor, top_p: float) -> Tensor:
    """The winners of the race among the tokens that ``top_p`` leaves, [n].

    These are found without sorting the vocabulary, which would cost more than the model: a winner that is not among
    them shows that all less probable ones are not either, and the race is run again without these.
    """
    race = times.div_(weights)
    drawn = race.argmax(1)
    if top_p >= 1:
        return drawn
    share = weights.sum(1) * top_p
    while True:
        own = weights.gather(1, drawn[:, None])
        above = torch.where(weights > own, weights, 0.0).sum(1)
        beyond = (above >= share) & (above > 0)  # the most probable token is always left
        if not bool(beyond.any()):
            return drawn
        race.masked_fill_(beyond[:, None] & (weights <= own), -math.inf)
        drawn = race.argmax(1)


def negative_exponentials(keys: Tensor, tokens: Tensor) -> Tensor:
    """Minus independent exponential numbers of mean 1, float32 [n, vocabulary].

    Small ones, which win races, are the finest: 32 bits and none of them 0.

    Args:
        keys: of the rows, [n, 2].
        tokens: from ``_spread``, [vocabulary].
    """
    uniform = bits(keys, tokens).float().add_(0.5).mul_(2.0**-32).clamp_(max=NEAR_ONE)
    return uniform.neg_().log1p_()


def bits(keys: Tensor, tokens: Tensor) -> Tensor:
    """32 random bits of every row and token, int64 [n, vocabulary]: the same on every device."""
    mixed = tokens ^ keys[:, :1]
    shifted = torch.empty_like(mixed)  # used again, since fresh memory would cost as much as the arithmetic

    def fold(by: int) -> None:
        mixed.bitwise_xor_(torch.bitwise_right_shift(mixed, by, out=shifted))

    fold(16)
    mixed.mul_(FIRST).add_(keys[:, 1:]).bitwise_and_(MASK)
    fold(15)
    mixed.mul_(SECOND).bitwise_and_(MASK)
    fold(15)
    return mixed


def _spread(size: int, device: torch.device) -> Tensor:
    """Token ids hashed, int64 [size], so that keys which are alike do not give the same noise to other tokens."""
    return bits(torch.tensor([[0, 1]], device=device), torch.arange(1, size + 1, device=device))[0]
