"""Checks of preference pairs before a training: what a rewriter would learn from them."""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from semdpo.analysis.semantics import effective_sample_size, semantic_weight
from semdpo.data.prompts import normalised
from semdpo.data.records import Pair, content_id
from semdpo.errors import ConfigError, did_you_mean

SILENCED = 0.1  # a pair with a lower weight has almost no effect on training
LISTED = 10
_IS_HASH = re.compile("[0-9a-f]{16}")
CHUNK = 4096  # pairs in memory at a time, where they come one by one
CHECKS = ("duplicates", "contradictions", "leaks", "truncation", "ties", "silenced", "length-bias")


@dataclass(frozen=True, slots=True)
class Check:
    """One check of the pairs.

    Attributes:
        name: one of ``CHECKS``.
        question: what the check counts, as a clause after "these pairs".
        count: number of pairs that the check concerns; None where it cannot be computed.
        total: number of pairs that were checked.
        remark: note for the reader of the result.
        examples: ids of the first pairs that the check concerns.
    """

    name: str
    question: str
    count: int | None
    total: int
    remark: str = ""
    examples: tuple[str, ...] = ()

    @property
    def share(self) -> float:
        """``count`` divided by ``total``; 0 where there are no pairs or ``count`` is None."""
        return self.count / self.total if self.count and self.total else 0.0


@dataclass(frozen=True)
class Audit:
    """The result of an audit.

    Attributes:
        pairs: number of pairs that were audited, n.
        distances: distances between prompt and chosen, [n].
        margins: score of the chosen minus score of the rejected, for the pairs that have both.
        weights: the weight W of every pair at ``alpha``, times the data's own weight, [n].
        alpha: strength of the weight.
        checks: the checks, in the order of ``CHECKS``.
        own_weights: whether the data have weights of their own, such as 1/p of a render budget.
    """

    pairs: int
    distances: NDArray[np.float64]
    margins: NDArray[np.float64]
    weights: NDArray[np.float64]
    alpha: float
    checks: tuple[Check, ...]
    own_weights: bool
    _lightest: Sequence[tuple[Pair, float]]
    _heaviest: Sequence[tuple[Pair, float]]

    @property
    def times_own(self) -> str:
        """What a text adds to the word weight where pairs have a weight of their own."""
        return " times the pair's own weight" if self.own_weights else ""

    @property
    def effective(self) -> float:
        """Effective sample size of the weights."""
        return effective_sample_size(self.weights)

    def lightest(self, count: int = LISTED) -> list[tuple[Pair, float]]:
        """The ``count`` pairs with the lowest weights, lowest first, with their weights; at most ``LISTED``."""
        return list(self._lightest[:count])

    def heaviest(self, count: int = LISTED) -> list[tuple[Pair, float]]:
        """The ``count`` pairs with the highest weights, highest first, with their weights; at most ``LISTED``."""
        return list(self._heaviest[:count])


def audit(pairs: Iterable[Pair], alpha: float, evaluation: Sequence[str] = ()) -> Audit:
    """Audits preference pairs; of most pairs, only numbers stay in memory.

    Args:
        pairs: pairs with distances, at least one.
        alpha: strength of the weight, ≥ 0.
        evaluation: prompts that must not be trained on.

    Raises:
        ValueError: a distance is missing or out of range, or alpha is negative.
    """
    auditing, rest = _Auditing(alpha, evaluation), iter(pairs)
    while chunk := list(islice(rest, CHUNK)):
        auditing.add(chunk)
    return auditing.result()


class _Auditing:
    """What is kept of the pairs from one chunk to the next."""

    def __init__(self, alpha: float, evaluation: Sequence[str]) -> None:
        self.alpha, self.held_out = alpha, {normalised(prompt) for prompt in evaluation}
        self.other_ids: dict[int, str] = {}  # row → the id of a pair whose id is not 16 hexadecimal digits
        self.numbers = {name: array("d") for name in ("distance", "margin", "weight")}
        self.hashes = {name: array("Q") for name in ("id", "triple", "exchanged")}
        self.counts = dict.fromkeys(("leaks", "truncation", "ties", "silenced", "longer"), 0)
        self.examples: dict[str, list[str]] = {name: [] for name in self.counts}
        self.unequal, self.truncation_known, self.own_weights = 0, True, False
        self.lightest: list[tuple[Pair, float]] = []
        self.heaviest: list[tuple[Pair, float]] = []

    def add(self, pairs: Sequence[Pair]) -> None:
        own = np.array([pair.own_weight for pair in pairs])
        self.own_weights = self.own_weights or any(pair.weight is not None for pair in pairs)
        distances = [np.nan if pair.distance is None else pair.distance for pair in pairs]
        weights = own * semantic_weight(distances, self.alpha)
        self.numbers["distance"].extend(distances)
        self.numbers["weight"].extend(weights)
        weighted = [(pair, float(weight)) for pair, weight in zip(pairs, weights, strict=True)]
        self.lightest = sorted([*self.lightest, *weighted], key=lambda each: each[1])[:LISTED]
        self.heaviest = sorted([*self.heaviest, *weighted], key=lambda each: -each[1])[:LISTED]
        for pair, weight in weighted:
            self._check(pair, weight)

    def _check(self, pair: Pair, weight: float) -> None:
        if not _IS_HASH.fullmatch(pair.pair_id):
            self.other_ids[self.rows] = pair.pair_id
        self.hashes["id"].append(_hash(pair.pair_id) if self.rows in self.other_ids else int(pair.pair_id, 16))
        self.hashes["triple"].append(_hash(pair.prompt, pair.chosen, pair.rejected))
        self.hashes["exchanged"].append(_hash(pair.prompt, pair.rejected, pair.chosen))
        if self.held_out:
            self._count("leaks", pair, normalised(pair.prompt) in self.held_out)
        self.truncation_known = self.truncation_known and pair.truncated is not None
        self._count("truncation", pair, bool(pair.truncated))
        if pair.chosen_score is not None and pair.rejected_score is not None:
            self.numbers["margin"].append(pair.chosen_score - pair.rejected_score)
            self._count("ties", pair, pair.chosen_score <= pair.rejected_score)
        self._count("silenced", pair, weight < SILENCED)
        chosen, rejected = len(pair.chosen.split()), len(pair.rejected.split())
        self.unequal += chosen != rejected
        self._count("longer", pair, chosen > rejected)

    @property
    def rows(self) -> int:
        """The number of pairs so far."""
        return len(self.hashes["exchanged"])

    def _count(self, name: str, pair: Pair, concerned: bool) -> None:
        self.counts[name] += concerned
        if concerned and len(self.examples[name]) < LISTED:
            self.examples[name].append(pair.pair_id)

    def result(self) -> Audit:
        checks = (
            self._duplicates(),
            self._contradictions(),
            self._leaks(),
            self._truncation(),
            self._ties(),
            self._check_of(
                "silenced",
                f"have a weight below {SILENCED:g} at alpha {self.alpha:g}",
                "they have almost no effect on training",
            ),
            _length_bias(self.counts["longer"], self.unequal),
        )
        distances, margins, weights = (
            np.frombuffer(self.numbers[name], np.float64) for name in ("distance", "margin", "weight")
        )
        return Audit(
            self.rows, distances, margins, weights, self.alpha, checks, self.own_weights, self.lightest, self.heaviest
        )  # fmt: skip

    def _check_of(self, name: str, question: str, remark: str, total: int | None = None) -> Check:
        total = self.rows if total is None else total
        return Check(name, question, self.counts[name], total, remark, tuple(self.examples[name]))

    def _check_of_rows(self, name: str, question: str, rows: NDArray[np.bool_], remark: str) -> Check:
        first = np.flatnonzero(rows)[:LISTED].tolist()
        examples = tuple(self.other_ids.get(row) or f"{self.hashes['id'][row]:016x}" for row in first)
        return Check(name, question, int(rows.sum()), self.rows, remark, examples)

    def _duplicates(self) -> Check:
        ids = np.frombuffer(self.hashes["id"], np.uint64)
        again = np.ones(len(ids), np.bool_)
        again[np.unique(ids, return_index=True)[1]] = False
        return self._check_of_rows("duplicates", "repeat an earlier pair", again, "repeated pairs count twice")

    def _contradictions(self) -> Check:
        triples = np.sort(np.frombuffer(self.hashes["triple"], np.uint64))
        exchanged = np.frombuffer(self.hashes["exchanged"], np.uint64)
        both = triples[np.searchsorted(triples, exchanged).clip(max=len(triples) - 1)] == exchanged
        question = "also occur with chosen and rejected exchanged"
        return self._check_of_rows("contradictions", question, both, "one of the two is wrong")

    def _leaks(self) -> Check:
        question = "have a prompt of the evaluation"
        if not self.held_out:
            return Check("leaks", question, None, self.rows, "not checked: give --evaluation FILE")
        return self._check_of("leaks", question, "case and punctuation are ignored")

    def _truncation(self) -> Check:
        question = "have a text that is longer than the encoder reads"
        if not self.truncation_known:
            remark = "not known: run `semdpo weigh` on the pairs again"
            return Check("truncation", question, None, self.rows, remark)
        return self._check_of("truncation", question, "their distance ignores the rest")

    def _ties(self) -> Check:
        question, scored = "have no margin, or a negative one", len(self.numbers["margin"])
        if not scored:
            return Check("ties", question, None, self.rows, "not known: the pairs have no scores")
        return self._check_of("ties", question, "the scorer does not prefer the chosen text", scored)


def _hash(*parts: str) -> int:
    """A number of 64 bits; among a hundred million pairs, the odds that any two share one are 1 to 3700."""
    return int(content_id(*parts), 16)


def limits(texts: Sequence[str]) -> dict[str, float]:
    """The largest allowed share of every check named in ``--fail-on``.

    Args:
        texts: ``NAME`` allows none, ``NAME=0.05`` allows a share of up to 0.05.

    Raises:
        ConfigError: a check is unknown or named twice, or a share is not between 0 and 1.
    """
    allowed: dict[str, float] = {}
    for text in texts:
        name, equals, share = text.partition("=")
        if name not in CHECKS:
            raise ConfigError(f"--fail-on {text}: there is no check '{name}'{did_you_mean(name, CHECKS)}")
        if name in allowed:
            raise ConfigError(f"--fail-on {name} is given twice; remove one")
        if name == "length-bias" and not equals:
            raise ConfigError("--fail-on length-bias needs a share, such as --fail-on length-bias=0.7")
        try:
            allowed[name] = float(share) if equals else 0.0
        except ValueError as error:
            raise ConfigError(f"--fail-on {text}: '{share}' is not a share, such as 0.05") from error
        if not 0 <= allowed[name] <= 1:
            raise ConfigError(f"--fail-on {text}: a share must lie between 0 and 1")
    return allowed


def failures(audit: Audit, allowed: dict[str, float]) -> list[Check]:
    """The checks whose share exceeds the allowed one, and those that could not be computed.

    Args:
        audit: the audit.
        allowed: name of a check → largest allowed share.
    """
    return [
        check
        for check in audit.checks
        if check.name in allowed and (check.count is None or check.share > allowed[check.name])
    ]


def _length_bias(longer: int, unequal: int) -> Check:
    """Whether the longer text, counted in words, is usually the chosen one; a rewriter learns that too."""
    question = "choose the longer text (of those whose lengths differ, in words)"
    if not unequal:
        return Check("length-bias", question, 0, 0, "all lengths are equal")
    test = binomtest(longer, unequal)
    interval = test.proportion_ci(method="wilson")
    remark = f"95% interval {interval.low:.0%} to {interval.high:.0%}; p = {test.pvalue:.2g} against one half"
    return Check("length-bias", question, longer, unequal, remark)
