"""A linear mixed model of the votes: rater and prompt as crossed random effects, the side as a fixed one.

``MixedLM`` of statsmodels fits the same model, and tests compare with it. It is not used, because its optimizers do
not converge where the variance of raters or of prompts is estimated as 0, which is common. The logistic model of
statsmodels, ``BinomialBayesMixedGLM``, was left out: its 95% intervals hold the truth in three of four studies.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

from semdpo.study.analysis.rates import Array, comparisons, value
from semdpo.study.design import Judgement

Places = NDArray[np.integer]
NOTHING = 1e-9  # a variance of single votes below this is a rounding error


@dataclass(frozen=True, slots=True)
class Mixed:
    """The share of votes for the first method at balanced sides, by the mixed model.

    Attributes:
        share: the share, adjusted for the side. A linear model does not keep its interval within 0 and 1.
        low: lower end of the interval.
        high: upper end of the interval.
        p: two-sided p-value of a share of one half.
        side: what being on the left adds to a method's share.
        rater_sd: standard deviation of raters, as shares.
        prompt_sd: standard deviation of prompts, as shares.
        remark: what is wrong with the fit, in words; None where nothing is.
    """

    share: float
    low: float
    high: float
    p: float
    side: float
    rater_sd: float
    prompt_sd: float
    remark: str | None


@dataclass(frozen=True, slots=True)
class _Sums:
    """What the likelihood needs of the data; Z has a column for each rater and prompt."""

    zz: Array
    zx: Array
    zy: Array
    xx: Array
    xy: Array
    yy: float
    votes: int
    raters: int


def mixed(rows: Sequence[Judgement], question: str, pair: tuple[str, str], *, level: float = 0.95) -> Mixed | str:
    """Fits the model by restricted maximum likelihood (REML).

    The interval is a t interval with min(raters, prompts) - 1 degrees of freedom.

    Args:
        rows: judgements of all kinds.
        question: the question's name.
        pair: the two methods; the share is of the first.
        level: the level of the interval.

    Returns:
        The fit, or a sentence about why there is none.

    Source: Patterson and Thompson 1971, "Recovery of inter-block information when block sizes are unequal"; Bates et
    al. 2015, "Fitting linear mixed-effects models using lme4", whose profiled likelihood this is.
    """
    own = comparisons(rows, question, pair)
    votes = np.array([value(row, pair[0]) for row in own])
    on_left = np.array([row.left_method == pair[0] for row in own])
    _, at_rater = np.unique([row.rater for row in own], return_inverse=True)
    _, at_prompt = np.unique([row.prompt_id for row in own], return_inverse=True)
    return fit(votes, on_left, at_rater, at_prompt, level=level)


def fit(y: Array, on_left: Array, at_rater: Places, at_prompt: Places, *, level: float = 0.95) -> Mixed | str:
    """Fits the model to votes given as numbers.

    Args:
        y: votes for the first method: 1, 0, or 0.5 for a tie, [votes].
        on_left: whether the first method was on the left, [votes].
        at_rater: the rater's number, from 0 without gaps, [votes].
        at_prompt: the prompt's number, the same.
        level: the level of the interval.

    Returns:
        The fit, or a sentence about why there is none.
    """
    raters, prompts = int(at_rater.max()) + 1, int(at_prompt.max()) + 1
    side = np.where(on_left, 0.5, -0.5)
    if min(raters, prompts) < 2:
        return "The mixed model needs at least two raters and two prompts."
    if not np.ptp(y):
        return "All votes are equal, so there is no variance that a mixed model could divide."
    if not np.ptp(side):
        return "The first method was always on the same side, so its share and the side's cannot be separated."
    sums = _sums(y, np.column_stack([np.ones(len(y)), side]), at_rater, at_prompt, raters, prompts)

    def deviance(ratios: Array) -> float:
        return _deviance(ratios, sums)[0]

    # No gradients: near 0, the end of the range, differences of the deviance are too small to find a step by.
    found = optimize.minimize(
        deviance,
        np.full(2, 0.5),
        method="Nelder-Mead",
        bounds=optimize.Bounds(np.zeros(2), np.full(2, np.inf)),
        tol=1e-5,
    )
    if not found.success or not np.isfinite(found.fun):
        return f"The mixed model did not converge ({found.message}); no number of it is shown."
    _, effects, covariance, variance = _deviance(found.x, sums)
    if variance < NOTHING:
        return "Side, raters and prompts explain every single vote, so the mixed model has no interval."
    freedom, error = min(raters, prompts) - 1, float(np.sqrt(covariance[0, 0]))
    reach = float(stats.t.isf((1 - level) / 2, freedom)) * error
    share = float(effects[0])
    by_rater, by_prompt = (float(ratio) * math.sqrt(variance) for ratio in found.x)
    none = [name for name, ratio in zip(("raters", "prompts"), found.x, strict=True) if ratio < 1e-3]
    remark = f"The variance of {' and of '.join(none)} is estimated as 0, the end of its range." if none else None
    p = float(2 * stats.t.sf(abs(share - 0.5) / error, freedom))
    return Mixed(share, share - reach, share + reach, p, float(effects[1]), by_rater, by_prompt, remark)


def _sums(y: Array, x: Array, at_rater: Places, at_prompt: Places, raters: int, prompts: int) -> _Sums:
    counts = np.zeros((raters, prompts))
    np.add.at(counts, (at_rater, at_prompt), 1.0)
    zz = np.block([[np.diag(counts.sum(1)), counts], [counts.T, np.diag(counts.sum(0))]])
    z_of = np.zeros((raters + prompts, 3))
    for places in (at_rater, raters + at_prompt):
        np.add.at(z_of, places, np.column_stack([x, y]))
    return _Sums(zz, z_of[:, :2], z_of[:, 2], x.T @ x, x.T @ y, float(y @ y), len(y), raters)


def _deviance(ratios: Array, sums: _Sums) -> tuple[float, Array, Array, float]:
    """-2 log REML, profiled, of the ratios of standard deviations (rater, prompt) to the residual's.

    With V = I + Z G Z' and L = √G: log|V| = log|M|, M = I + L Z'Z L, and u'V⁻¹w = u'w - (L Z'u)'M⁻¹(L Z'w).
    """
    scale = np.repeat(ratios, [sums.raters, len(sums.zz) - sums.raters])
    m = np.eye(len(scale)) + scale[:, None] * sums.zz * scale
    lx, ly = scale[:, None] * sums.zx, scale * sums.zy
    mx, my = np.linalg.solve(m, lx), np.linalg.solve(m, ly)
    xvx, xvy, yvy = sums.xx - lx.T @ mx, sums.xy - lx.T @ my, sums.yy - float(ly @ my)
    effects = np.asarray(np.linalg.solve(xvx, xvy), np.float64)
    freedom = sums.votes - len(effects)
    variance = max(1e-300, (yvy - float(effects @ xvy)) / freedom)
    deviance = freedom * np.log(variance) + np.linalg.slogdet(m)[1] + np.linalg.slogdet(xvx)[1]
    return float(deviance), effects, np.asarray(variance * np.linalg.inv(xvx), np.float64), float(variance)
