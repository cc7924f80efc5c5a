"""How often one method was preferred to another, by every rater on every prompt: where every statistic begins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from semdpo.errors import DataError
from semdpo.study.design import Judgement

Array = NDArray[np.float64]
TIES = "A tie counts as half a vote for each method."


@dataclass(frozen=True, slots=True)
class Rates:
    """The votes of one question about one pair of methods.

    Attributes:
        raters: names of the raters, R of them, in order of name.
        prompts: ids of the prompts, P of them, in order of name.
        sums: votes for the first method, a tie is half a vote, [R, P].
        counts: all votes, [R, P]; 0 where a rater did not answer.
    """

    raters: tuple[str, ...]
    prompts: tuple[str, ...]
    sums: Array
    counts: Array

    @property
    def share(self) -> float:
        """The share of votes for the first method."""
        return float(self.sums.sum() / self.counts.sum())


def pairs_of_methods(rows: Sequence[Judgement], order: Sequence[str] = ()) -> list[tuple[str, str]]:
    """The pairs of methods that were compared; the first of a pair is the one that shares are of.

    Args:
        rows: judgements; only comparisons count.
        order: methods that come first, in this order; all others follow by name.
    """
    compared = {frozenset((row.left_method, row.right_method)) for row in rows if row.kind == "comparison"}
    names = sorted({name for pair in compared for name in pair} - set(order))
    return [pair for pair in combinations([*order, *names], 2) if frozenset(pair) in compared]


def comparisons(rows: Sequence[Judgement], question: str, pair: tuple[str, str]) -> list[Judgement]:
    """The judgements of one question about one pair; repeats and attention checks are none of them."""
    wanted = set(pair)
    return [
        row
        for row in rows
        if row.kind == "comparison" and row.question == question and {row.left_method, row.right_method} == wanted
    ]


def value(row: Judgement, a: str) -> float:
    """A judgement as a number: 1 where ``a`` was chosen, 0 where the other one was, 0.5 for a tie."""
    if row.choice == "tie":
        return 0.5
    return float((row.left_method if row.choice == "left" else row.right_method) == a)


def rates(rows: Sequence[Judgement], question: str, pair: tuple[str, str]) -> Rates:
    """The votes of one question about one pair, by rater and prompt.

    Args:
        rows: judgements of all kinds.
        question: the question's name.
        pair: the two methods; shares are of the first.

    Raises:
        DataError: nobody answered this question about this pair.
    """
    own = comparisons(rows, question, pair)
    return table(own, [value(row, pair[0]) for row in own], f"question '{question}' about {pair[0]} and {pair[1]}")


def table(rows: Sequence[Judgement], values: Sequence[float], what: str) -> Rates:
    """Values of judgements, summed by rater and prompt.

    Args:
        rows: judgements.
        values: one number for each, 0 to 1.
        what: what they are of, for the message.

    Raises:
        DataError: there are no judgements.
    """
    if not rows:
        raise DataError(f"there are no votes on {what}; collect votes first, or name another question")
    raters, prompts = sorted({row.rater for row in rows}), sorted({row.prompt_id for row in rows})
    places = (
        np.searchsorted(raters, [row.rater for row in rows]),
        np.searchsorted(prompts, [row.prompt_id for row in rows]),
    )
    sums, counts = np.zeros((len(raters), len(prompts))), np.zeros((len(raters), len(prompts)))
    np.add.at(sums, places, np.asarray(values, np.float64))
    np.add.at(counts, places, 1.0)
    return Rates(tuple(raters), tuple(prompts), sums, counts)
