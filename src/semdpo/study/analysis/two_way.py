"""The study's own interval and test: a share over raters *and* prompts, both of which are samples.

The variance of the share has a part of the raters, a part of the prompts and a part of single votes. It is estimated
as in a two-way analysis of variance, with Satterthwaite's degrees of freedom. ``benchmarks/study_coverage.py``
measures how often the interval holds the truth.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import stats

from semdpo.errors import DataError
from semdpo.study.analysis.rates import Array, Rates

EQUAL = 1e-12  # votes of raters and prompts that are off by less all agree


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
        effective: the number of independent votes that would say as much.
    """

    share: float
    low: float
    high: float
    p: float
    freedom: float
    effective: float


def two_way(table: Rates, *, level: float = 0.95) -> TwoWay:
    """The share over raters and prompts with its interval and its test.

    Every part of the variance is the sum of squares of what raters (prompts, votes) are off, V_r + V_p - V_e as in
    Cameron, Gelbach and Miller 2011, with unbiased factors and with V_e of the residuals of an additive model, which
    for complete tables is the analysis of variance. A part that is not above that of single votes is taken as
    nothing. The variance is at least that of independent votes. The interval is Wilson's for the effective number of
    votes, which is the number of independent votes with the same variance, and with a quantile of the t distribution.

    Args:
        table: votes by rater and prompt; cells may be empty.
        level: the level of the interval.

    Raises:
        DataError: there are fewer than two raters or two prompts.

    Source: Satterthwaite 1946, "An approximate distribution of estimates of variance components"; Cameron, Gelbach
    and Miller 2011, "Robust inference with multiway clustering"; Wilson 1927, "Probable inference, the law of
    succession, and statistical inference".
    """
    raters, prompts = table.counts.shape
    if min(raters, prompts) < 2:
        raise DataError(
            f"an interval over raters and prompts needs at least two of each, not {raters} and {prompts}; "
            "collect more votes"
        )
    votes, share = float(table.counts.sum()), table.share
    variance, freedom = _variance(table)
    variance = max(variance, share * (1 - share) / votes)
    effective = share * (1 - share) / variance if variance else votes
    t = float(stats.t.isf((1 - level) / 2, freedom))
    centre = (share + t**2 / (2 * effective)) / (1 + t**2 / effective)
    reach = t / (1 + t**2 / effective) * np.sqrt(share * (1 - share) / effective + t**2 / (4 * effective**2))
    p = float(2 * stats.t.sf(abs(share - 0.5) * 2 * np.sqrt(effective), freedom))
    return TwoWay(share, float(centre - reach), float(centre + reach), p, freedom, effective)


def _variance(table: Rates) -> tuple[float, float]:
    """The variance of the share, and its degrees of freedom."""
    votes = table.counts.sum()
    off = table.sums - table.counts * table.share
    raters, prompts = table.counts.shape
    if np.abs(off).max() < EQUAL:
        return 0.0, float(min(raters, prompts) - 1)
    by_rater = float((off.sum(1) ** 2).sum()) / votes**2 * raters / (raters - 1)
    by_prompt = float((off.sum(0) ** 2).sum()) / votes**2 * prompts / (prompts - 1)
    single, freedom = _single_votes(table)
    terms = [(part, size - 1) for part, size in ((by_rater, raters), (by_prompt, prompts)) if part > single]
    if len(terms) == 2 and freedom:
        terms.append((-single, freedom))
    terms = terms or [(single, freedom)]
    variance = sum(part for part, _ in terms)
    uncertainty = sum(part**2 / of for part, of in terms if of)
    return variance, max(1.0, float(variance**2 / uncertainty))


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
    inverse, rank = _additive(counts.tobytes(), raters)
    effects = inverse @ np.r_[table.sums.sum(1), table.sums.sum(0)]
    fitted = effects[:raters, None] + effects[None, raters:]
    return table.sums - counts * fitted, int((counts > 0).sum()) - rank


@lru_cache(maxsize=8)  # thousands of simulated studies have the same counts
def _additive(counts: bytes, raters: int) -> tuple[Array, int]:
    """The pseudoinverse of the normal equations of rater plus prompt, and their rank."""
    table = np.frombuffer(counts).reshape(raters, -1)
    normal = np.block([[np.diag(table.sum(1)), table], [table.T, np.diag(table.sum(0))]])
    return np.linalg.pinv(normal, rcond=1e-10, hermitian=True), int(np.linalg.matrix_rank(normal, hermitian=True))
