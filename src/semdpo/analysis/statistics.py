"""Compares methods on the same prompts: paired differences, intervals, win counts, the paper's average score.

Images of the same prompt are not independent, so every function here works on one value per prompt: the mean over
that prompt's image seeds (see ``prompt_means``). The bootstrap resamples prompts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, stats

from semdpo import extras
from semdpo.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[np.float64]
KEYS = ["prompt_id", "image_seed"]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over prompts and its confidence interval, in the unit of the values."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Difference:
    """Mean paired difference a − b over ``prompts`` prompts, its confidence interval, and two two-sided p-values.

    ``detectable`` is the minimum detectable effect of the paired t-test at 80% power with this number of prompts.
    ``p_t`` is the p-value of the paired t-test, ``p_wilcoxon`` that of the Wilcoxon signed-rank test; neither is
    corrected for multiple comparisons (see ``holm``).
    """

    mean: float
    low: float
    high: float
    p_t: float
    p_wilcoxon: float
    detectable: float
    prompts: int


@dataclass(frozen=True, slots=True)
class HeadToHead:
    """Prompts on which a wins, ties or loses against b; ``share``: wins among decided prompts, Wilson interval.

    ``p_sign`` is the p-value of the two-sided sign test over the prompts without ties; 1 where there are none.
    """

    wins: int
    ties: int
    losses: int
    share: float
    low: float
    high: float
    p_sign: float


def prompt_means(rows: pd.DataFrame, value: str) -> pd.DataFrame:
    """One value per prompt and method: the mean over image seeds.

    Args:
        rows: one row per image, columns ``method``, ``prompt_id``, ``image_seed`` and ``value``.
        value: the column to average.

    Returns:
        The means, [prompts, methods], both in order of first appearance, float64.

    Raises:
        DataError: a value is missing or infinite, an image occurs twice, or the methods were not evaluated on
            the same prompts and seeds.
    """
    if rows.empty:
        raise DataError("there are no evaluated images to compare; run `semdpo evaluate` first")
    numbers = rows[value].to_numpy(np.float64)
    bad = np.flatnonzero(~np.isfinite(numbers))
    if bad.size:
        examples = ", ".join(_name(rows, int(i)) for i in bad[:3])
        raise DataError(f"'{value}' is not a number in {bad.size} rows ({examples}); evaluate these again")
    twice = np.flatnonzero(rows.duplicated(["method", *KEYS]).to_numpy())
    if twice.size:
        raise DataError(f"{_name(rows, int(twice[0]))} was evaluated twice; keep one row per image")
    _check_paired(rows)
    table = rows.pivot_table(index="prompt_id", columns="method", values=value, aggfunc="mean", sort=False)
    return table.loc[rows["prompt_id"].unique(), rows["method"].unique()].astype(np.float64)


def _name(rows: pd.DataFrame, position: int) -> str:
    row = rows.iloc[position]
    return f"method '{row['method']}', prompt {row['prompt_id']}, seed {row['image_seed']}"


def _check_paired(rows: pd.DataFrame) -> None:
    images = {
        str(name): set(zip(part["prompt_id"], part["image_seed"], strict=True))
        for name, part in rows.groupby("method", sort=False)
    }
    first, *others = images
    for other in others:
        unpaired = images[first] ^ images[other]
        if unpaired:
            prompt, seed = min(unpaired, key=str)
            raise DataError(
                f"methods '{first}' and '{other}' cannot be paired: {len(unpaired)} images belong to one of them "
                f"only (prompt {prompt}, seed {seed}); evaluate both on the same prompts and image seeds"
            )


def mean_interval(values: ArrayLike, *, level: float = 0.95, resamples: int = 4000, seed: int = 0) -> Estimate:
    """Mean over prompts with its bias-corrected and accelerated (BCa) bootstrap confidence interval.

    Args:
        values: one value per prompt, [prompts]; at least two.
        level: confidence level, in (0, 1).
        resamples: number of bootstrap samples.
        seed: seed of the resampling; equal seeds give equal intervals.

    Returns:
        Mean and interval, in the unit of ``values``. Where all values are equal, the interval has width 0.

    Raises:
        DataError: fewer than two prompts, or a value is not finite.

    Source: Efron 1987, "Better bootstrap confidence intervals"; ``scipy.stats.bootstrap``.
    """
    x = _checked(values)
    mean = float(x.mean())
    if np.ptp(x) <= 1e-12 * max(1.0, abs(mean)):
        return Estimate(mean, mean, mean)
    result = stats.bootstrap(
        (x,),
        np.mean,
        n_resamples=resamples,
        batch=max(1, 2_000_000 // x.size),
        vectorized=True,
        confidence_level=level,
        method="BCa" if _bca_is_defined(x) else "percentile",
        rng=np.random.default_rng(seed),
    )
    return Estimate(mean, float(result.confidence_interval.low), float(result.confidence_interval.high))


def mean_intervals(values: ArrayLike, *, level: float = 0.95, resamples: int = 4000, seed: int = 0) -> list[Estimate]:
    """Means of many columns with percentile bootstrap intervals, all from the same resamples of prompts.

    Args:
        values: values of every prompt and column, [prompts, columns]; one prompt gives intervals of width 0.
        level: confidence level, in (0, 1).
        resamples: number of bootstrap samples.
        seed: seed of the resampling.

    Raises:
        DataError: there are no values, or a value is not finite.
    """
    x = np.asarray(values, np.float64)
    if x.ndim != 2 or not x.size or not np.isfinite(x).all():
        raise DataError(f"values must be finite and [prompts, columns], not of shape {x.shape}; evaluate these again")
    prompts = len(x)
    shares = np.random.default_rng(seed).multinomial(prompts, np.full(prompts, 1 / prompts), resamples) / prompts
    low, high = np.quantile(shares @ x, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return [Estimate(*map(float, column)) for column in zip(x.mean(axis=0), low, high, strict=True)]


def _bca_is_defined(x: Array) -> bool:
    """BCa's bias correction needs resampled means on both sides of the mean, which a few values may not have."""
    return x.size >= 8


def _checked(values: ArrayLike) -> Array:
    x = np.asarray(values, np.float64)
    if x.ndim != 1 or x.size < 2:
        raise DataError(f"an interval needs one value for each of at least two prompts, not shape {x.shape}")
    bad = np.flatnonzero(~np.isfinite(x))
    if bad.size:
        raise DataError(f"values of prompts number {bad[:5].tolist()} are not finite; evaluate these again")
    return x


def paired_difference(
    a: ArrayLike, b: ArrayLike, *, level: float = 0.95, resamples: int = 4000, seed: int = 0
) -> Difference:
    """The mean difference a − b over the same prompts.

    Args:
        a: one value per prompt, [prompts].
        b: the other method's values for the same prompts, in the same order, [prompts].
        level: confidence level of the bootstrap interval, in (0, 1).
        resamples: number of bootstrap samples.
        seed: seed of the resampling.

    Returns:
        Mean of a − b in the unit of the values, BCa interval, p-values of the paired t-test and of the Wilcoxon
        signed-rank test (zero differences dropped; 1 where all differences are 0), and minimum detectable effect.

    Raises:
        DataError: the shapes differ, there are fewer than two prompts, or a value is not finite.
    """
    left, right = _checked(a), _checked(b)
    if left.shape != right.shape:
        raise DataError(
            f"{left.size} and {right.size} values cannot be paired; evaluate both methods on the same prompts"
        )
    d = left - right
    estimate = mean_interval(d, level=level, resamples=resamples, seed=seed)
    moved = d[np.abs(d) > 1e-12]
    p_wilcoxon = float(stats.wilcoxon(moved).pvalue) if moved.size else 1.0
    return Difference(estimate.mean, estimate.low, estimate.high, _t_test(d), p_wilcoxon, detectable_effect(d), d.size)


def _t_test(d: Array) -> float:
    # Computed here, because scipy warns of lost precision where all differences are equal.
    mean, error = float(d.mean()), float(d.std(ddof=1)) / np.sqrt(d.size)
    if error <= 1e-15 * max(1.0, abs(mean)):
        return 1.0 if abs(mean) <= 1e-12 else 0.0
    return float(2 * stats.t.sf(abs(mean) / error, d.size - 1))


def detectable_effect(differences: ArrayLike, *, level: float = 0.95, power: float = 0.8) -> float:
    """The minimum detectable effect of a paired t-test at the given power.

    A difference that is not significant may still be as large as this.

    Args:
        differences: paired differences, one per prompt, [prompts]; their standard deviation is taken as the true one.
        level: 1 − significance level of the two-sided test, in (0, 1).
        power: probability that the test finds a true difference of that size, in (0, 1).

    Returns:
        The effect, > 0, in the unit of the values; 0 where all differences are equal.

    Raises:
        DataError: fewer than two prompts, or a value is not finite.

    Source: Cohen 1988, "Statistical power analysis for the behavioral sciences". ``TTestPower`` of statsmodels computes
    the same, less exactly.
    """
    d = _checked(differences)
    spread = float(d.std(ddof=1))
    if spread <= 1e-12:
        return 0.0
    freedom, critical = d.size - 1, stats.t.isf((1 - level) / 2, d.size - 1)

    def excess(shift: float) -> float:  # power at a noncentrality minus the requested power
        tails = [float(stats.nct.sf(critical, freedom, side)) for side in (shift, -shift)]
        return sum(tails) - power

    high = 1.0
    while excess(high) < 0:
        high *= 2
    return float(optimize.brentq(excess, 0.0, high)) * spread / math.sqrt(d.size)


def crossed_interval(values: ArrayLike, *, level: float = 0.95, resamples: int = 4000, seed: int = 0) -> Estimate:
    """Mean with a bootstrap confidence interval over prompts *and* training seeds.

    Prompts and seeds are resampled independently of each other (the pigeonhole bootstrap), because every seed is
    evaluated on every prompt, and neither the values of one prompt nor those of one seed are independent. The interval
    is conservative.

    Args:
        values: values of every prompt and training seed, [prompts, seeds]; at least two of each.
        level: confidence level, in (0, 1).
        resamples: number of bootstrap samples.
        seed: seed of the resampling.

    Raises:
        DataError: there are fewer than two prompts or seeds, or a value is not finite.

    Source: Owen 2007, "The pigeonhole bootstrap".
    """
    x = np.asarray(values, np.float64)
    if x.ndim != 2 or min(x.shape) < 2:
        raise DataError(f"values must be [prompts, seeds] with at least two of each, not of shape {x.shape}")
    bad = np.argwhere(~np.isfinite(x))
    if bad.size:
        raise DataError(f"the value of prompt number {bad[0][0]}, seed number {bad[0][1]} is not finite")
    rng = np.random.default_rng(seed)
    prompts, seeds = x.shape
    # How often every prompt and every seed is resampled; the mean of a resample needs no more.
    rows = rng.multinomial(prompts, np.full(prompts, 1 / prompts), resamples) / prompts
    columns = rng.multinomial(seeds, np.full(seeds, 1 / seeds), resamples) / seeds
    means = np.einsum("rp,ps,rs->r", rows, x, columns, optimize=True)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(float(x.mean()), float(low), float(high))


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values corrected for multiple comparisons by Holm's step-down method, in the order given.

    Args:
        p_values: uncorrected p-values, in [0, 1].

    Source: Holm 1979, "A simple sequentially rejective multiple test procedure".
    """
    if not p_values:
        return []
    extras.require(report="Holm's correction")
    from statsmodels.stats.multitest import multipletests

    return [float(p) for p in multipletests(np.asarray(p_values, np.float64), method="holm")[1]]


def head_to_head(
    a: ArrayLike, b: ArrayLike, *, tolerance: float = 1e-9, level: float = 0.95, higher_wins: bool = True
) -> HeadToHead:
    """The number of prompts on which a beats b.

    Args:
        a: one value per prompt, [prompts].
        b: the other method's values for the same prompts, [prompts].
        tolerance: differences up to this size are ties, in the unit of the values.
        level: confidence level of the interval, in (0, 1).
        higher_wins: False for quantities where lower is better.

    Returns:
        Counts, and the share of wins among the prompts without ties with its Wilson score interval (Wilson 1927). If
        all prompts are ties, the share is 0.5 and its interval [0, 1].

    Raises:
        DataError: the shapes differ, there are fewer than two prompts, or a value is not finite.
    """
    left, right = _checked(a), _checked(b)
    if left.shape != right.shape:
        raise DataError(
            f"{left.size} and {right.size} values cannot be paired; evaluate both methods on the same prompts"
        )
    d = left - right if higher_wins else right - left
    wins, losses = int((d > tolerance).sum()), int((d < -tolerance).sum())
    decided = wins + losses
    if not decided:
        return HeadToHead(0, d.size, 0, 0.5, 0.0, 1.0, 1.0)
    test = stats.binomtest(wins, decided)
    interval = test.proportion_ci(confidence_level=level, method="wilson")
    share, ties = wins / decided, d.size - decided
    return HeadToHead(wins, ties, losses, share, float(interval.low), float(interval.high), float(test.pvalue))


def min_max_average(means: pd.DataFrame) -> pd.Series[float]:
    """The paper's average score: each metric scaled to [0, 1] over the compared methods, then averaged.

    Args:
        means: mean of every metric (columns, higher is better) and method (rows), on one set of prompts.

    Returns:
        One score in [0, 1] per method. Scores are relative: adding or removing a method changes all of them. A metric
        on which all methods are equal contributes 0.5 to each of them.

    Raises:
        DataError: there is no method or metric, or a mean is not finite.

    Source: Sem-DPO, arXiv 2507.20133, section 4.
    """
    if means.empty:
        raise DataError("an average score needs at least one method and one metric")
    values = means.to_numpy(np.float64)
    bad = np.argwhere(~np.isfinite(values))
    if bad.size:
        method, metric = means.index[bad[0][0]], means.columns[bad[0][1]]
        raise DataError(f"the mean of '{metric}' for method '{method}' is not finite; evaluate it again")
    low, span = values.min(axis=0), np.ptp(values, axis=0)
    flat = span <= 1e-12
    scaled = np.where(flat, 0.5, (values - low) / np.where(flat, 1.0, span))
    import pandas as pd  # callers already have it

    return pd.Series(scaled.mean(axis=1), index=means.index, name="average")
