"""The votes of a pair of methods, counted as if nobody had voted twice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from scipy import stats

from semdpo.study.analysis.rates import comparisons, value
from semdpo.study.design import Judgement


@dataclass(frozen=True, slots=True)
class Totals:
    """Votes for both methods.

    ``share``, its Wilson interval ``low`` to ``high``, and ``p``, the exact two-sided binomial p-value, are of the
    votes that decide. They take votes for independent, which those of one rater or prompt are not.
    """

    first: int
    second: int
    ties: int
    share: float
    low: float
    high: float
    p: float

    @property
    def votes(self) -> int:
        """All votes, ties included."""
        return self.first + self.second + self.ties


def totals(rows: Sequence[Judgement], question: str, pair: tuple[str, str], *, level: float = 0.95) -> Totals:
    """Counts the votes of one question about one pair.

    Args:
        rows: judgements of all kinds; repeats and attention checks do not count.
        question: the question's name.
        pair: the two methods.
        level: the level of the interval.

    Returns:
        The counts. Where all votes are ties, the share is 0.5, its interval [0, 1] and p is 1.

    """
    values = [value(row, pair[0]) for row in comparisons(rows, question, pair)]
    first, second, ties = (values.count(each) for each in (1.0, 0.0, 0.5))
    return counted(first, second, ties, level=level)


def counted(first: int, second: int, ties: int = 0, *, level: float = 0.95) -> Totals:
    """Counts of votes with their share, interval and p-value; see ``totals``.

    Args:
        first: votes for the first method.
        second: votes for the second method.
        ties: votes for neither.
        level: the level of the interval.

    Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference".
    """
    if not first + second:
        return Totals(0, 0, ties, 0.5, 0.0, 1.0, 1.0)
    test = stats.binomtest(first, first + second)
    interval = test.proportion_ci(confidence_level=level, method="wilson")
    share = first / (first + second)
    return Totals(first, second, ties, share, float(interval.low), float(interval.high), float(test.pvalue))
