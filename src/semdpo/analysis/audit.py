"""What preference pairs will teach, found out before an hour is spent on teaching it."""

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

SILENCED = 0.1  # a pair with less weight teaches next to nothing
LISTED = 10
CHECKS = ("duplicates", "contradictions", "leaks", "truncation", "ties", "silenced", "length-bias")


@dataclass(frozen=True, slots=True)
class Check:
    """One question about the pairs.

    Attributes:
        name: one of ``CHECKS``.
        question: in words.
        count: how many pairs are concerned; None when it cannot be told.
        total: of how many.
        remark: what to know about it.
        examples: pair ids, the first of them.
    """

    name: str
    question: str
    count: int | None
    total: int
    remark: str = ""
    examples: tuple[str, ...] = ()

    @property
    def share(self) -> float:
        """``count`` of ``total``; 0 when there is nothing, or nothing is known."""
        return self.count / self.total if self.count and self.total else 0.0


@dataclass(frozen=True)
class Audit:
    """What was found.

    Attributes:
        pairs: n of them, with distances.
        weights: W of each at ``alpha``, times the data's own weight, [n].
        alpha: strength.
        checks: the answers, in the order of ``CHECKS``.
    """

    pairs: Sequence[Pair]
    weights: NDArray[np.float64]
    alpha: float
    checks: tuple[Check, ...]

    @property
    def distances(self) -> NDArray[np.float64]:
        """Of prompt and chosen, [n]."""
        return np.array([each.distance for each in self.pairs], np.float64)

    @property
    def margins(self) -> NDArray[np.float64]:
        """Score of the chosen minus that of the rejected, of those pairs that have both."""
        known = [(p.chosen_score, p.rejected_score) for p in self.pairs]
        return np.array([a - b for a, b in known if a is not None and b is not None], np.float64)

    @property
    def effective(self) -> float:
        """Effective sample size of the weights."""
        return effective_sample_size(self.weights)

    def lightest(self, count: int = LISTED) -> list[tuple[Pair, float]]:
        """The pairs that alpha silences most, lightest first, with their weights."""
        order = np.argsort(self.weights, kind="stable")[:count]
        return [(self.pairs[k], float(self.weights[k])) for k in order]

    def heaviest(self, count: int = LISTED) -> list[tuple[Pair, float]]:
        """The pairs that alpha keeps most, heaviest first, with their weights."""
        order = np.argsort(-self.weights, kind="stable")[:count]
        return [(self.pairs[k], float(self.weights[k])) for k in order]


def audit(pairs: Sequence[Pair], alpha: float, evaluation: Sequence[str] = ()) -> Audit:
    """Looks at pairs.

    Args:
        pairs: at least one, all with distances.
        alpha: strength of the weight, ≥ 0.
        evaluation: prompts that must not be trained on.

    Raises:
        ValueError: a distance is missing or out of range, or alpha is negative.
    """
    own = np.array([1.0 if each.weight is None else each.weight for each in pairs])
    weights = own * semantic_weight([np.nan if p.distance is None else p.distance for p in pairs], alpha)
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
    """What a user will not have: ``duplicates`` means any at all, ``truncation=0.05`` a share above that.

    Raises:
        ConfigError: an unknown check, or a share that is none.
    """
    found: dict[str, float] = {}
    for text in texts:
        name, equals, share = text.partition("=")
        if name not in CHECKS:
            raise ConfigError(f"--fail-on {text}: there is no check '{name}'{did_you_mean(name, CHECKS)}")
        if name in found:
            raise ConfigError(f"--fail-on {name} is given twice; remove one")
        if name == "length-bias" and not equals:
            raise ConfigError("--fail-on length-bias needs a share, such as --fail-on length-bias=0.7")
        try:
            found[name] = float(share) if equals else 0.0
        except ValueError as error:
            raise ConfigError(f"--fail-on {text}: '{share}' is not a share, such as 0.05") from error
        if not 0 <= found[name] <= 1:
            raise ConfigError(f"--fail-on {text}: a share lies between 0 and 1")
    return found


def failures(found: Audit, allowed: dict[str, float]) -> list[Check]:
    """The checks whose share is above what is allowed; one that could not be answered fails too."""
    return [
        each
        for each in found.checks
        if each.name in allowed and (each.count is None or each.share > allowed[each.name])
    ]


# ------------------------------------------------------------------------------------------------- one question each


def _check(name: str, question: str, pairs: Sequence[Pair], concerned: Sequence[Pair], remark: str = "") -> Check:
    ids = tuple(each.pair_id for each in concerned[:LISTED])
    return Check(name, question, len(concerned), len(pairs), remark, ids)


def _duplicates(pairs: Sequence[Pair]) -> Check:
    first = {each.pair_id: k for k, each in reversed(list(enumerate(pairs)))}
    again = [each for k, each in enumerate(pairs) if first[each.pair_id] != k]
    return _check("duplicates", "repeat a pair that is there already", pairs, again, "they count twice")


def _contradictions(pairs: Sequence[Pair]) -> Check:
    said = {(p.prompt, p.chosen, p.rejected) for p in pairs}
    both = [p for p in pairs if (p.prompt, p.rejected, p.chosen) in said]
    return _check("contradictions", "are also there the other way round", pairs, both, "one of each two is wrong")


def _leaks(pairs: Sequence[Pair], evaluation: Sequence[str]) -> Check:
    if not evaluation:
        return Check("leaks", "have a prompt of the evaluation", None, len(pairs), "not asked: give --evaluation FILE")
    held = {normalised(each) for each in evaluation}
    leaking = [p for p in pairs if normalised(p.prompt) in held]
    return _check("leaks", "have a prompt of the evaluation", pairs, leaking, "compared without case and punctuation")


def _truncation(pairs: Sequence[Pair]) -> Check:
    question = "have a text that is longer than the encoder reads"
    if any(each.truncated is None for each in pairs):
        return Check("truncation", question, None, len(pairs), "not known: weigh the pairs again")
    cut = [each for each in pairs if each.truncated]
    return _check("truncation", question, pairs, cut, "their distance is that of what was read (77 tokens for CLIP)")


def _ties(pairs: Sequence[Pair]) -> Check:
    scored = [p for p in pairs if p.chosen_score is not None and p.rejected_score is not None]
    if not scored:
        return Check(
            "ties", "have no margin, or a negative one", None, len(pairs), "not known: the pairs have no scores"
        )
    tied = [p for p in scored if (p.chosen_score or 0.0) <= (p.rejected_score or 0.0)]
    return _check("ties", "have no margin, or a negative one", scored, tied, "the scorer does not prefer the chosen")


def _silenced(pairs: Sequence[Pair], weights: NDArray[np.float64], alpha: float) -> Check:
    light = [pair for pair, weight in zip(pairs, weights, strict=True) if weight < SILENCED]
    return _check(
        "silenced", f"have a weight below {SILENCED:g} at alpha {alpha:g}", pairs, light, "Sem-DPO skips them"
    )


def _length_bias(pairs: Sequence[Pair]) -> Check:
    """Whether the longer text wins, in words; a rewriter learns that too."""
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
