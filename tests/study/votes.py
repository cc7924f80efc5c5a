"""Judgements for tests: rows with given counts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from semdpo.study.design import Choice, Judgement

A, B = "sem_dpo", "dpo"


def judgement(
    rater: int, prompt: int, chosen: str, *, left: str | None = None, pair: tuple[str, str] = (A, B), **more: object
) -> Judgement:
    """A comparison; the first method is on the left where rater plus prompt is even, unless ``left`` names one."""
    left = left or pair[(rater + prompt) % 2]
    right = pair[0] if left == pair[1] else pair[1]
    choice: Choice = "tie" if chosen == "tie" else "left" if chosen == left else "right"
    values = {"question": "match", "kind": "comparison", "trial": f"t{rater}-{prompt}-{pair}"} | more
    return Judgement(
        rater=f"r{rater:03d}", prompt_id=f"p{prompt:03d}", left_method=left, right_method=right, choice=choice, **values
    )  # type: ignore[arg-type]


def from_matrix(votes: Sequence[Sequence[float]] | np.ndarray) -> list[Judgement]:
    """One comparison for each cell [raters, prompts]: 1 for the first method, 0 for the second, 0.5 for a tie."""
    words = {1.0: A, 0.0: B, 0.5: "tie"}
    return [judgement(r, p, words[float(cell)]) for r, row in enumerate(votes) for p, cell in enumerate(row)]


def with_margins(by_rater: Sequence[int], by_prompt: Sequence[int]) -> np.ndarray:
    """A table of 0 and 1 with these sums of rows and columns (Gale and Ryser): the fullest columns first."""
    assert sum(by_rater) == sum(by_prompt)
    left, table = np.array(by_prompt), np.zeros((len(by_rater), len(by_prompt)))
    for rater in np.argsort(by_rater)[::-1]:
        full = np.argsort(-left, kind="stable")[: by_rater[rater]]
        table[rater, full] = 1
        left[full] -= 1
    assert not left.any()
    return table
