"""The rates of single raters, or of single prompts, and the tests over them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats

from semdpo.study.analysis.rates import Rates

EQUAL = 1e-12  # rates that differ by less are equal


@dataclass(frozen=True, slots=True)
class Groups:
    """The share of votes for the first method, for every rater or for every prompt.

    Attributes:
        rates: name → share of votes, 0 to 1; a tie is half a vote.
        median: the median of the rates.
        lowest: the lowest rate.
        highest: the highest rate.
        prefer_first: how many have a rate above one half.
        prefer_second: how many have a rate below one half.
        p_wilcoxon: two-sided p-value of Wilcoxon's signed-rank test of the rates against one half.
        p_sign: two-sided p-value of the sign test of the same.
    """

    rates: Mapping[str, float]
    median: float
    lowest: float
    highest: float
    prefer_first: int
    prefer_second: int
    p_wilcoxon: float
    p_sign: float

    @property
    def lead(self) -> float:
        """The sum of the signed ranks of Wilcoxon's test, above 0 where it speaks for the first method."""
        moved = np.array([rate - 0.5 for rate in self.rates.values()]).round(12)
        moved = moved[moved != 0]
        return float(np.sign(moved) @ stats.rankdata(np.abs(moved)))


def groups(table: Rates, by: Literal["raters", "prompts"]) -> Groups:
    """The rates of raters or prompts. Both tests drop rates of exactly one half; p is 1 where no other is left.

    A test over raters says what more raters would say about *these* prompts; one over prompts, what *these* raters
    would say about more prompts. ``two_way`` speaks about more of both.

    Args:
        table: votes by rater and prompt.
        by: what has one rate each.

    Source: Schuff et al. 2023, "How to do human evaluation: A brief introduction to user studies in NLP"; Wilcoxon
    1945, "Individual comparisons by ranking methods".
    """
    axis = 1 if by == "raters" else 0
    names = table.raters if by == "raters" else table.prompts
    shares = table.sums.sum(axis) / table.counts.sum(axis)
    moved = (shares - 0.5)[np.abs(shares - 0.5) > EQUAL]
    above = int((moved > 0).sum())
    return Groups(
        rates={name: float(share) for name, share in zip(names, shares, strict=True)},
        median=float(np.median(shares)),
        lowest=float(shares.min()),
        highest=float(shares.max()),
        prefer_first=above,
        prefer_second=moved.size - above,
        # Rounded, because rates that are equally far from one half must get the same rank.
        p_wilcoxon=float(stats.wilcoxon(moved.round(12)).pvalue) if moved.size else 1.0,
        p_sign=float(stats.binomtest(above, moved.size).pvalue) if moved.size else 1.0,
    )
