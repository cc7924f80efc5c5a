"""Attention checks: comparisons of which one image belongs to another prompt."""

from __future__ import annotations

from collections.abc import Sequence

from semdpo.study.design import MATCH, RIGHT_ANSWER, Judgement
from semdpo.study.judgements import chosen_method


def failures(rows: Sequence[Judgement]) -> dict[str, tuple[int, int]]:
    """The failed checks and all checks of every rater who had one; a tie is a failure.

    Args:
        rows: judgements of all kinds and of all raters, before anyone is excluded. Answers to ``match`` count only:
            another question has no right answer.
    """
    found: dict[str, tuple[int, int]] = {}
    for row in rows:
        if row.kind == "attention" and row.question == MATCH:
            failed, checks = found.get(row.rater, (0, 0))
            found[row.rater] = (failed + (chosen_method(row) != RIGHT_ANSWER), checks + 1)
    return found
