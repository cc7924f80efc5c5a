"""Resamples of raters and prompts, and the interval of a share by them."""

from __future__ import annotations

import numpy as np

from semdpo.analysis.statistics import Estimate
from semdpo.study.analysis.rates import Array, Rates


def resamples(size: int, count: int, rng: np.random.Generator) -> Array:
    """How often each of ``size`` raters (or prompts) is in each of ``count`` resamples, [count, size]."""
    return rng.multinomial(size, np.full(size, 1 / size), count).astype(np.float64)


def bootstrap(table: Rates, *, level: float = 0.95, count: int = 4000, seed: int = 0) -> Estimate:
    """The share of votes for the first method with a percentile interval over resamples of raters and prompts.

    Raters and prompts are resampled independently of each other, and a vote counts as often as its rater times as
    often as its prompt. Single votes are so counted three times over, which makes the interval wide where raters and
    prompts hardly differ; percentiles make it narrow where there are few of them.

    Args:
        table: votes by rater and prompt.
        level: the level of the interval.
        count: number of resamples. Those without a vote, which only a table with many empty cells has, are left out.
        seed: seed of the resampling.

    Source: Owen 2007, "The pigeonhole bootstrap"; Owen and Eckles 2012, "Bootstrapping data arrays of arbitrary
    order".
    """
    rng = np.random.default_rng(seed)
    by_rater, by_prompt = (resamples(size, count, rng) for size in table.counts.shape)
    sums, counts = (((by_rater @ cells) * by_prompt).sum(1) for cells in (table.sums, table.counts))
    shares = sums[counts > 0] / counts[counts > 0]
    low, high = np.quantile(shares, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(table.share, float(low), float(high))
