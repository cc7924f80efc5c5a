"""Side bias: whether raters choose the left image more often than the right one, and what that does to the result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from semdpo.study.analysis.rates import comparisons, table, value
from semdpo.study.analysis.two_way import TwoWay, two_way
from semdpo.study.design import Judgement


@dataclass(frozen=True, slots=True)
class Sides:
    """Choices by side.

    Attributes:
        left: share of votes for the left image, over raters and prompts; its p-value is that of no side bias.
        first_left: share of votes for the first method where it was on the left; None where it never was.
        first_right: the same on the right.
        adjusted: mean of both: the share at balanced sides; None where the method was on one side only.
    """

    left: TwoWay
    first_left: float | None
    first_right: float | None
    adjusted: float | None


def sides(rows: Sequence[Judgement], question: str, pair: tuple[str, str], *, level: float = 0.95) -> Sides:
    """Choices by side, of one question about one pair; a tie is half a vote for each side.

    Args:
        rows: judgements of all kinds.
        question: the question's name.
        pair: the two methods.
        level: the level of the interval.

    Raises:
        DataError: there are no votes, or fewer than two raters or prompts.
    """
    own = comparisons(rows, question, pair)
    lefts = [{"left": 1.0, "tie": 0.5, "right": 0.0}[row.choice] for row in own]
    left = two_way(table(own, lefts, f"question '{question}' about {pair[0]} and {pair[1]}"), level=level)
    on_left, on_right = (_mean([row for row in own if (row.left_method == pair[0]) is where], pair[0])
                         for where in (True, False))  # fmt: skip
    both = on_left is not None and on_right is not None
    return Sides(left, on_left, on_right, (on_left + on_right) / 2 if both else None)  # type: ignore[operator]


def _mean(rows: Sequence[Judgement], first: str) -> float | None:
    return float(np.mean([value(row, first) for row in rows])) if rows else None
