"""The study's own interval and test: a share over raters *and* prompts, both of which are samples.

The variance of the share has a part of the raters, a part of the prompts and a part of single votes. It is estimated
as in a two-way analysis of variance, and the interval is a t interval of the log odds whose degrees of freedom are
Satterthwaite's. ``benchmarks/study_coverage.py`` measures how often it holds the truth.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import special, stats

from semdpo.errors import DataError
from semdpo.study.analysis.rates import Array, Rates


@dataclass(frozen=True, slots=True)
class TwoWay:
    """The share of votes for the first method, what raters and prompts add to its variance, and the test.

    Attributes:
        share: the share of votes, 0 to 1; a tie is half a vote.
        low: lower end of the interval.
        high: upper end of the interval.
        p: two-sided p-value of no difference, a share of one half; below 1 - level where one half is not in the
            interval, and only there.
        freedom: degrees of freedom of the t distribution.
        variance: variance of the share.
    """

    share: float
    low: float
    high: float
    p: float
    freedom: float
    variance: float


def two_way(table: Rates, *, level: float = 0.95) -> TwoWay:
    """The share over raters and prompts with its interval and its test.

    Every part of the variance is the sum of squares of what raters (prompts, votes) are off, V_r + V_p - V_e as in
    Cameron, Gelbach and Miller 2011, with unbiased factors and with V_e of the residuals of an additive model, which
    for complete tables is the analysis of variance. A part that is not above that of single votes is taken as
    nothing. The variance is at least that of independent votes. The interval is symmetric in log odds; half a vote
    is added to each side (Haldane 1956, Anscombe 1956), so that it exists where all votes agree.

    Args:
        table: votes by rater and prompt; cells may be empty.
        level: the level of the interval.

    Raises:
        DataError: there are fewer than two raters or two prompts.

    Source: Satterthwaite 1946, "An approximate distribution of estimates of variance components"; Cameron, Gelbach
    and Miller 2011, "Robust inference with multiway clustering"; Owen 2007, "The pigeonhole bootstrap".
    """
    raters, prompts = table.counts.shape
    if min(raters, prompts) < 2:
        raise DataError(
            f"an interval over raters and prompts needs at least two of each, not {raters} and {prompts}; "
            "collect more votes"
        )
    votes = float(table.counts.sum())
    variance, freedom = _variance(table)
    odds = (table.sums.sum() + 0.5) / (votes + 1)
    variance = max(variance, odds * (1 - odds) / votes)
    centre, error = float(special.logit(odds)), float(np.sqrt(variance) / (odds * (1 - odds)))
    reach = float(stats.t.isf((1 - level) / 2, freedom)) * error
    p = float(2 * stats.t.sf(abs(centre) / error, freedom))
    low, high = (float(special.expit(centre + side * reach)) for side in (-1, 1))
    return TwoWay(table.share, low, high, p, freedom, variance)


def _variance(table: Rates) -> tuple[float, float]:
    """The variance of the share, and its degrees of freedom."""
    votes = table.counts.sum()
    off = table.sums - table.counts * table.share
    raters, prompts = table.counts.shape
    by_rater = float((off.sum(1) ** 2).sum()) / votes**2 * raters / (raters - 1)
    by_prompt = float((off.sum(0) ** 2).sum()) / votes**2 * prompts / (prompts - 1)
    single, freedom = _single_votes(table)
    terms = [(part, size - 1) for part, size in ((by_rater, raters), (by_prompt, prompts)) if part > single]
    if len(terms) == 2 and freedom:
        terms.append((-single, freedom))
    terms = terms or [(single, freedom)]
    variance = sum(part for part, _ in terms)
    uncertainty = sum(part**2 / of for part, of in terms if of)
    return variance, max(1.0, variance**2 / uncertainty) if uncertainty else float(min(raters, prompts) - 1)


def _single_votes(table: Rates) -> tuple[float, int]:
    """What single votes add to the variance, by the residuals of rater plus prompt; 0 where each cell is fitted.

    That happens where no two raters saw the same prompts; the variance is then too large rather than too small.
    """
    residuals, freedom = _residuals(table)
    if not freedom:
        return 0.0, 0
    cells = int((table.counts > 0).sum())
    return float((residuals**2).sum()) / table.counts.sum() ** 2 * cells / freedom, freedom


def _residuals(table: Rates) -> tuple[Array, int]:
    """Votes minus those that rater and prompt make likely, [R, P], and their degrees of freedom."""
    counts, raters = table.counts, len(table.raters)
    normal = np.block([[np.diag(counts.sum(1)), counts], [counts.T, np.diag(counts.sum(0))]])
    effects, _, rank, _ = np.linalg.lstsq(normal, np.r_[table.sums.sum(1), table.sums.sum(0)], rcond=1e-10)
    fitted = effects[:raters, None] + effects[None, raters:]
    return table.sums - counts * fitted, int((counts > 0).sum()) - int(rank)
