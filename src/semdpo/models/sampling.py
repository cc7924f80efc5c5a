"""Samples tokens so that a token depends only on its row's seed and step, not on the batch, its size or the device.

The noise of a token is a hash of (seed, step, token id), computed on the device of the scores. The sampler has no
state, so rows may come in any order and in any batch. The sampled token is the winner of a race: with independent
exponential times E_v, argmin E_v / p_v is distributed as p (the Gumbel-max trick, without its second logarithm).
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
CACHED, IN_MEMORY = 2**19, 2**25  # numbers computed at once: what fits a CPU's cache, and what fits a GPU's memory


class Sampler(LogitsProcessor):  # type: ignore[misc]
    """Makes transformers' greedy choice a sample: all scores except the sampled token's become -inf.

    Args:
        seeds: The rows' seeds, n.
        start: The rows' length in tokens before generation.
        temperature: The sampling temperature, > 0.
        top_k: As in ``sample``.
        top_p: As in ``sample``.
    """

    def __init__(
        self, seeds: Sequence[int], start: int, temperature: float = 1.0, top_k: int | None = None, top_p: float = 1.0
    ) -> None:
        self._seeds, self._start = list(seeds), start
        self._temperature, self._top_k, self._top_p = temperature, top_k, top_p

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """The scores [n, vocabulary] of the next token after ``input_ids`` [n, length]."""
        sampled = sample(
            scores, keys(self._seeds, input_ids.shape[1] - self._start), self._temperature, self._top_k, self._top_p
        )
        return torch.full_like(scores, -math.inf).scatter_(1, sampled[:, None], 0.0)


class Greedy(LogitsProcessor):  # type: ignore[misc]
    """Leaves the scores unchanged, and refuses scores that are not finite, whose maximum would have no meaning.

    Raises:
        ModelError: A row's scores are not finite.
    """

    def __call__(self, _input_ids: Tensor, scores: Tensor) -> Tensor:
        """The scores [n, vocabulary] themselves."""
        _top(scores)
        return scores


class Likelihood(LogitsProcessor):  # type: ignore[misc]
    """Adds up the log-probabilities of the tokens that are chosen; it must come before the processor that chooses.

    Args:
        start: The rows' length in tokens before generation.
        ends: The ids of the tokens that end a row; later tokens do not count.

    Attributes:
        sums: The sum of log π of each row's tokens, in nats, the end token included, [n].
        lengths: The number of these tokens, [n].
    """

    def __init__(self, start: int, ends: Sequence[int]) -> None:
        self._start, self._ends = start, list(ends)
        self._logps: Tensor | None = None
        self.sums, self.lengths = torch.zeros(0), torch.zeros(0)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """The scores [n, vocabulary] themselves."""
        self.finish(input_ids)
        self._logps = scores.float().log_softmax(1)
        return scores

    def finish(self, output: Tensor) -> None:
        """Adds the last token of a generation's rows, [n, length]."""
        if self._logps is None:
            self.sums = torch.zeros(output.shape[0], device=output.device)
            self.lengths = torch.zeros_like(self.sums)
            return
        written = output[:, self._start : -1]
        ends = torch.tensor(self._ends, device=output.device)
        alive = ~torch.isin(written, ends).any(1)
        logps = self._logps.gather(1, output[:, -1:])[:, 0].nan_to_num(neginf=0.0)  # -inf: padding
        self.sums, self.lengths = self.sums + logps * alive, self.lengths + alive


def keys(seeds: Sequence[int], step: int) -> Tensor:
    """64 random bits for each row at one step, as two 32-bit numbers, int64 [n, 2]."""
    mixed = [content_seed("token", str(seed), str(step)) for seed in seeds]
    return torch.tensor([[value & MASK, value >> 32] for value in mixed], dtype=torch.int64).reshape(-1, 2)


def sample(
    scores: Tensor, keys: Tensor, temperature: float = 1.0, top_k: int | None = None, top_p: float = 1.0
) -> Tensor:
    """Samples one token for each row from the softmax of ``scores / temperature`` over the tokens that remain.

    ``top_k`` is applied first, then ``top_p``. A token remains under ``top_p`` if all more probable tokens together
    have less than this share, so tokens of equal probability remain together or not at all.

    Args:
        scores: The logits, [n, vocabulary]; -inf excludes a token.
        keys: The keys of the noise from ``keys``, [n, 2].
        temperature: The sampling temperature, > 0.
        top_k: The number of most probable tokens that remain; None is all.
        top_p: The share of probability of the most probable tokens that remain, in (0, 1].

    Returns:
        The sampled token ids, [n].

    Raises:
        ModelError: A row's scores are not finite.
    """
    keys, size = keys.to(scores.device), scores.shape[1]
    tokens = _spread(size, scores.device)
    # Rows are independent, so computing them in blocks changes no number.
    rows = max(1, (CACHED if scores.device.type == "cpu" else IN_MEMORY) // size)
    temperature = max(temperature, COLDEST)
    sampled = [
        _race(_weights(block, temperature, top_k), negative_exponentials(block_keys, tokens), top_p)
        for block, block_keys in zip(torch.split(scores, rows), torch.split(keys, rows), strict=True)
    ]
    return torch.cat(sampled)


def _weights(scores: Tensor, temperature: float, top_k: int | None) -> Tensor:
    """The probabilities, scaled so that each row's largest is 1, [n, vocabulary]."""
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
    """The winners of the race among the tokens that remain under ``top_p``, [n].

    This avoids sorting the vocabulary, which would cost more than the model. If a winner does not remain under
    ``top_p``, neither does any token that is at most as probable, and the race is run again without all of these.
    """
    race = times.div_(weights)
    sampled = race.argmax(1)
    if top_p >= 1:
        return sampled
    share = weights.sum(1) * top_p
    while True:
        winner = weights.gather(1, sampled[:, None])
        above = torch.where(weights > winner, weights, 0.0).sum(1)
        beyond = (above >= share) & (above > 0)  # the most probable token always remains
        if not bool(beyond.any()):
            return sampled
        race.masked_fill_(beyond[:, None] & (weights <= winner), -math.inf)
        sampled = race.argmax(1)


def negative_exponentials(keys: Tensor, tokens: Tensor) -> Tensor:
    """Minus independent exponential numbers of mean 1, float32 [n, vocabulary].

    Small numbers, which win races, have the finest resolution: 32 bits, and none of them is 0.

    Args:
        keys: The rows' keys from ``keys``, [n, 2].
        tokens: The hashed token ids from ``_spread``, [vocabulary].
    """
    uniform = bits(keys, tokens).float().add_(0.5).mul_(2.0**-32).clamp_(max=NEAR_ONE)
    return uniform.neg_().log1p_()


def bits(keys: Tensor, tokens: Tensor) -> Tensor:
    """32 random bits for every row and token, int64 [n, vocabulary], the same on every device."""
    mixed = tokens ^ keys[:, :1]
    shifted = torch.empty_like(mixed)  # reused, because new memory would cost as much as the arithmetic

    def fold(by: int) -> None:
        mixed.bitwise_xor_(torch.bitwise_right_shift(mixed, by, out=shifted))

    fold(16)
    mixed.mul_(FIRST).add_(keys[:, 1:]).bitwise_and_(MASK)
    fold(15)
    mixed.mul_(SECOND).bitwise_and_(MASK)
    fold(15)
    return mixed


def _spread(size: int, device: torch.device) -> Tensor:
    """The hashed token ids, int64 [size], so that similar keys do not give the same noise to different tokens."""
    return bits(torch.tensor([[0, 1]], device=device), torch.arange(1, size + 1, device=device))[0]
