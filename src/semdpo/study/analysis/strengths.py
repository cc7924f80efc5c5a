"""Bradley–Terry strengths of three or more methods that were compared in pairs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from semdpo import extras
from semdpo.analysis.statistics import Estimate
from semdpo.study.analysis.bootstrap import resamples
from semdpo.study.analysis.rates import Array, value
from semdpo.study.design import Judgement


def strengths(
    rows: Sequence[Judgement], question: str, *, level: float = 0.95, count: int = 1000, seed: int = 0
) -> dict[str, Estimate] | None:
    """The log strength of every method, with mean 0: P(a before b) = σ(strength of a - strength of b).

    A tie is half a vote for each side. Half a vote is added to each side of every pair that was compared, so that a
    method that never lost has a finite strength. Intervals are percentiles over resamples of raters and prompts.

    Args:
        rows: judgements of all kinds; repeats and attention checks do not count.
        question: the question's name.
        level: the level of the intervals.
        count: number of resamples.
        seed: seed of the resampling.

    Returns:
        Method → strength, the user's own prompt first, then strongest first; None where fewer than three methods were
        compared, or where some were compared with none of the others.

    Raises:
        ConfigError: the extra ``study`` is not installed.

    Source: Bradley and Terry 1952, "Rank analysis of incomplete block designs"; the library ``choix``.
    """
    extras.require(study="the analysis of a study")
    own = [row for row in rows if row.kind == "comparison" and row.question == question]
    methods = sorted({name for row in own for name in (row.left_method, row.right_method)})
    if len(methods) < 3 or not _connected(own, methods):
        return None
    wins, rng = _wins(own, methods), np.random.default_rng(seed)
    compared = (wins.sum((0, 1)) > 0) | (wins.sum((0, 1)) > 0).T
    estimate = _fit(np.einsum("rpij->ij", wins), compared)
    by_rater, by_prompt = (resamples(size, count, rng) for size in wins.shape[:2])
    drawn = [_fit(np.einsum("r,p,rpij->ij", r, p, wins, optimize=True), compared, estimate)
             for r, p in zip(by_rater, by_prompt, strict=True)]  # fmt: skip
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2], axis=0)
    order = sorted(range(len(methods)), key=lambda i: (methods[i] != "human", -estimate[i]))
    return {methods[i]: Estimate(float(estimate[i]), float(low[i]), float(high[i])) for i in order}


def _connected(rows: Sequence[Judgement], methods: Sequence[str]) -> bool:
    """Whether every method is linked to every other by comparisons."""
    reached = {methods[0]}
    for _ in methods:
        for row in rows:
            if {row.left_method, row.right_method} & reached:
                reached |= {row.left_method, row.right_method}
    return len(reached) == len(methods)


def _wins(rows: Sequence[Judgement], methods: Sequence[str]) -> Array:
    """Votes for i against j by rater and prompt, [R, P, i, j]."""
    raters, prompts = sorted({row.rater for row in rows}), sorted({row.prompt_id for row in rows})
    rater_at, prompt_at, at = ({name: i for i, name in enumerate(names)} for names in (raters, prompts, methods))
    wins = np.zeros((len(raters), len(prompts), len(methods), len(methods)))
    for row in rows:
        share = value(row, row.left_method)
        cell = wins[rater_at[row.rater], prompt_at[row.prompt_id]]
        left, right = at[row.left_method], at[row.right_method]
        cell[left, right] += share
        cell[right, left] += 1 - share
    return wins


def _fit(wins: Array, compared: Array, start: Array | None = None) -> Array:
    import choix

    return np.asarray(choix.ilsr_pairwise_dense(wins + 0.5 * compared, initial_params=start), np.float64)
