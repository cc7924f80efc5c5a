"""Self-consistency: how often raters give the same answer when a comparison comes again with its sides swapped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from semdpo.study.design import Judgement
from semdpo.study.judgements import chosen_method


@dataclass(frozen=True, slots=True)
class Consistency:
    """Repeated comparisons: how many there are, how many got the same answer, and the share with its interval."""

    repeats: int
    same: int
    share: float
    low: float
    high: float


def consistency(rows: Sequence[Judgement], question: str, *, level: float = 0.95) -> Consistency | None:
    """The share of repeats with the same answer as the first time; a tie is the same as a tie only.

    Args:
        rows: judgements of all kinds.
        question: the question's name.
        level: the level of the interval.

    Returns:
        Counts and share. The interval is a t interval over raters, who differ, kept within 0 and 1; with one rater, or
        where all raters have the same share, Wilson's interval of the repeats. None where nothing was repeated.
    """
    firsts = {(row.rater, row.trial): row for row in rows if row.kind == "comparison" and row.question == question}
    again: dict[str, list[bool]] = {}
    for row in rows:
        if row.kind == "repeat" and row.question == question and (row.rater, row.repeats) in firsts:
            first = firsts[row.rater, str(row.repeats)]
            again.setdefault(row.rater, []).append(chosen_method(row) == chosen_method(first))
    if not again:
        return None
    counts = np.array([len(answers) for answers in again.values()], np.float64)
    same = np.array([sum(answers) for answers in again.values()], np.float64)
    total, share = int(counts.sum()), float(same.sum() / counts.sum())
    off = same - counts * share
    if len(again) < 2 or not off.any():
        interval = stats.binomtest(int(same.sum()), total).proportion_ci(confidence_level=level, method="wilson")
        return Consistency(total, int(same.sum()), share, float(interval.low), float(interval.high))
    error = float(np.sqrt((off**2).sum() * len(off) / (len(off) - 1))) / total
    reach = float(stats.t.isf((1 - level) / 2, len(off) - 1)) * error
    return Consistency(total, int(same.sum()), share, max(0.0, share - reach), min(1.0, share + reach))
