"""Checks of preference pairs before a training: what a rewriter would learn from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from semdpo.analysis.semantics import effective_sample_size, semantic_weight
from semdpo.data.prompts import normalised
from semdpo.data.records import Pair
from semdpo.errors import ConfigError, did_you_mean

SILENCED = 0.1  # a pair with a lower weight has almost no effect on training
LISTED = 10
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
        pairs: the audited pairs, n, with distances.
        weights: the weight W of every pair at ``alpha``, times the data's own weight, [n].
        alpha: strength of the weight.
        checks: the checks, in the order of ``CHECKS``.
    """

    pairs: Sequence[Pair]
    weights: NDArray[np.float64]
    alpha: float
    checks: tuple[Check, ...]

    @property
    def distances(self) -> NDArray[np.float64]:
        """Distances between prompt and chosen, [n]."""
        return np.array([pair.distance for pair in self.pairs], np.float64)

    @property
    def margins(self) -> NDArray[np.float64]:
        """Score of the chosen minus score of the rejected, for the pairs that have both."""
        scores = [(p.chosen_score, p.rejected_score) for p in self.pairs]
        return np.array([a - b for a, b in scores if a is not None and b is not None], np.float64)

    @property
    def effective(self) -> float:
        """Effective sample size of the weights."""
        return effective_sample_size(self.weights)

    def lightest(self, count: int = LISTED) -> list[tuple[Pair, float]]:
        """The ``count`` pairs with the lowest weights, lowest first, with their weights."""
        order = np.argsort(self.weights, kind="stable")[:count]
        return [(self.pairs[k], float(self.weights[k])) for k in order]

    def heaviest(self, count: int = LISTED) -> list[tuple[Pair, float]]:
        """The ``count`` pairs with the highest weights, highest first, with their weights."""
        order = np.argsort(-self.weights, kind="stable")[:count]
        return [(self.pairs[k], float(self.weights[k])) for k in order]


def audit(pairs: Sequence[Pair], alpha: float, evaluation: Sequence[str] = ()) -> Audit:
    """Audits preference pairs.

    Args:
        pairs: pairs with distances, at least one.
        alpha: strength of the weight, ≥ 0.
        evaluation: prompts that must not be trained on.

    Raises:
        ValueError: a distance is missing or out of range, or alpha is negative.
    """
    given = np.array([1.0 if pair.weight is None else pair.weight for pair in pairs])
    weights = given * semantic_weight([np.nan if p.distance is None else p.distance for p in pairs], alpha)
    checks = (
        _duplicates(pairs),
        _contradictions(pairs),
        _leaks(pairs, evaluation),
        _truncation(pairs),
        _ties(pairs),
        _silenced(pairs, weights, alpha),
        _length_bias(pairs),
    )
    return Audit(pairs, weights, alpha, checks)


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


def _check(name: str, question: str, pairs: Sequence[Pair], concerned: Sequence[Pair], remark: str = "") -> Check:
    ids = tuple(pair.pair_id for pair in concerned[:LISTED])
    return Check(name, question, len(concerned), len(pairs), remark, ids)


def _duplicates(pairs: Sequence[Pair]) -> Check:
    first = {pair.pair_id: k for k, pair in reversed(list(enumerate(pairs)))}
    again = [pair for k, pair in enumerate(pairs) if first[pair.pair_id] != k]
    return _check("duplicates", "repeat an earlier pair", pairs, again, "repeated pairs count twice")


def _contradictions(pairs: Sequence[Pair]) -> Check:
    triples = {(p.prompt, p.chosen, p.rejected) for p in pairs}
    both = [p for p in pairs if (p.prompt, p.rejected, p.chosen) in triples]
    question = "also occur with chosen and rejected exchanged"
    return _check("contradictions", question, pairs, both, "one of the two is wrong")


def _leaks(pairs: Sequence[Pair], evaluation: Sequence[str]) -> Check:
    if not evaluation:
        return Check(
            "leaks", "have a prompt of the evaluation", None, len(pairs), "not checked: give --evaluation FILE"
        )
    held_out = {normalised(prompt) for prompt in evaluation}
    leaking = [p for p in pairs if normalised(p.prompt) in held_out]
    return _check("leaks", "have a prompt of the evaluation", pairs, leaking, "case and punctuation are ignored")


def _truncation(pairs: Sequence[Pair]) -> Check:
    question = "have a text that is longer than the encoder reads"
    if any(pair.truncated is None for pair in pairs):
        return Check("truncation", question, None, len(pairs), "not known: run `semdpo weigh` on the pairs again")
    truncated = [pair for pair in pairs if pair.truncated]
    return _check("truncation", question, pairs, truncated, "their distance ignores the rest (CLIP reads 77 tokens)")


def _ties(pairs: Sequence[Pair]) -> Check:
    scored = [p for p in pairs if p.chosen_score is not None and p.rejected_score is not None]
    if not scored:
        return Check(
            "ties", "have no margin, or a negative one", None, len(pairs), "not known: the pairs have no scores"
        )
    tied = [p for p in scored if (p.chosen_score or 0.0) <= (p.rejected_score or 0.0)]
    return _check(
        "ties", "have no margin, or a negative one", scored, tied, "the scorer does not prefer the chosen text"
    )


def _silenced(pairs: Sequence[Pair], weights: NDArray[np.float64], alpha: float) -> Check:
    light = [pair for pair, weight in zip(pairs, weights, strict=True) if weight < SILENCED]
    return _check(
        "silenced",
        f"have a weight below {SILENCED:g} at alpha {alpha:g}",
        pairs,
        light,
        "they have almost no effect on training",
    )


def _length_bias(pairs: Sequence[Pair]) -> Check:
    """Whether the longer text, counted in words, is usually the chosen one; a rewriter learns that too."""
    question = "choose the longer text (of those whose lengths differ, in words)"
    lengths = [(len(p.chosen.split()), len(p.rejected.split())) for p in pairs]
    unequal = [(p, a > b) for p, (a, b) in zip(pairs, lengths, strict=True) if a != b]
    longer = [p for p, won in unequal if won]
    if not unequal:
        return Check("length-bias", question, 0, 0, "all lengths are equal")
    test = binomtest(len(longer), len(unequal))
    interval = test.proportion_ci(method="wilson")
    remark = f"95% interval {interval.low:.0%} to {interval.high:.0%}; p = {test.pvalue:.2g} against one half"
    return Check("length-bias", question, len(longer), len(unequal), remark)
