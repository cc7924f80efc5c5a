"""Whether an automatic scorer agrees with people about which of two images is better."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from semdpo.analysis.statistics import Estimate
from semdpo.errors import DataError
from semdpo.study.analysis.bootstrap import resamples
from semdpo.study.analysis.rates import Array, Rates, pairs_of_methods, rates
from semdpo.study.design import Judgement

EQUAL = 1e-12
Scores = Mapping[tuple[str, str], float]  # (method, prompt_id) → the scorer's mean score of the images shown


@dataclass(frozen=True, slots=True)
class ScorerAgreement:
    """One scorer against the majority of people.

    Attributes:
        compared: pairs of methods on a prompt where people have a majority.
        undecided: those where they have none, which are left out.
        agree: share of the compared where the scorer prefers the same method; equal scores count as half.
        kappa: Cohen's κ of both choices, with its interval.
        auc: probability that the scorer's difference is larger where people chose the method than where they did
            not, with its interval.
    """

    compared: int
    undecided: int
    agree: float
    kappa: Estimate
    auc: Estimate


def scorer_agreement(
    rows: Sequence[Judgement], question: str, scores: Scores, *, level: float = 0.95, count: int = 4000, seed: int = 0
) -> ScorerAgreement | None:
    """A scorer's differences against people's majorities, over all pairs of methods and prompts.

    Every comparison counts in both directions, a against b and b against a, so that no result depends on which method
    is named first. Both choices are then balanced, and κ is 2 · agree - 1. Intervals are percentiles over resamples
    of raters and prompts, each with its own majorities.

    Args:
        rows: judgements of all kinds.
        question: the question's name.
        scores: the scorer's scores; higher is better.
        level: the level of the intervals.
        count: number of resamples.
        seed: seed of the resampling.

    Returns:
        The agreement; None where people have no majority on any prompt.

    Raises:
        DataError: a method that was compared has no score on a prompt; the message names it.

    Source: Cohen 1960, "A coefficient of agreement for nominal scales".
    """
    asked = [row for row in rows if row.question == question]
    tables = {pair: rates(asked, question, pair) for pair in pairs_of_methods(asked)}
    prompts = sorted({prompt for each in tables.values() for prompt in each.prompts})
    raters = sorted({rater for each in tables.values() for rater in each.raters})
    difference = np.concatenate([[_difference(scores, pair, prompt) for prompt in each.prompts]
                                 for pair, each in tables.items()])  # fmt: skip
    place = np.concatenate([np.searchsorted(prompts, each.prompts) for each in tables.values()])
    rng = np.random.default_rng(seed)
    by_rater, by_prompt = (resamples(size, count, rng) for size in (len(raters), len(prompts)))
    votes = list(tables.values())
    people = _majorities(votes, raters, np.ones((1, len(raters))))[0]
    if not people.any():
        return None
    agree, auc = _agreement(people, difference, np.ones(len(people)))
    drawn = [
        _agreement(chosen, difference, weights[place])
        for chosen, weights in zip(_majorities(votes, raters, by_rater), by_prompt, strict=True)
        if (weights[place] * (chosen != 0)).any()
    ]
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2], axis=0)
    kappa = Estimate(*(2 * float(each) - 1 for each in (agree, low[0], high[0])))
    decided = int((people != 0).sum())
    return ScorerAgreement(
        decided, len(people) - decided, agree, kappa, Estimate(auc, float(low[1]), float(high[1]))
    )  # fmt: skip


def _difference(scores: Scores, pair: tuple[str, str], prompt: str) -> float:
    for method in pair:
        if (method, prompt) not in scores:
            raise DataError(
                f"there is no score of method '{method}' on prompt {prompt}, which people compared; give the scores of "
                "the images that were shown"
            )
    return scores[pair[0], prompt] - scores[pair[1], prompt]


def _majorities(tables: Sequence[Rates], raters: Sequence[str], weights: Array) -> Array:
    """1 where most votes are for the first method, -1 where they are for the second, 0 where neither, [n, units]."""
    parts = []
    for each in tables:
        own = weights[:, np.searchsorted(raters, each.raters)]
        parts.append(own @ (2 * each.sums - each.counts))
    lead = np.concatenate(parts, axis=1)
    return np.asarray(np.where(np.abs(lead) > EQUAL, np.sign(lead), 0.0), np.float64)


def _agreement(people: Array, difference: Array, weights: Array) -> tuple[float, float]:
    """Share of agreement and AUC, both over the units where people have a majority, each unit in both directions."""
    weights = weights * (people != 0)
    lead = people * difference  # of the method that people chose
    agree = float(weights @ ((lead > EQUAL) + 0.5 * (np.abs(lead) <= EQUAL)) / weights.sum())
    order = np.argsort(-lead, kind="stable")
    others, below = (-lead)[order], np.r_[0.0, np.cumsum(weights[order])]
    smaller = below[np.searchsorted(others, lead - EQUAL, "left")]
    not_larger = below[np.searchsorted(others, lead + EQUAL, "right")]
    return agree, float(weights @ (smaller + not_larger) / 2 / weights.sum() ** 2)
