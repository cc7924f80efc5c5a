"""The share of wins at equal length: scorers favour long prompts, so a rewriter can win by writing more."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from semdpo import extras
from semdpo.errors import DataError


@dataclass(frozen=True, slots=True)
class LengthControlled:
    """The probability that a beats b where both rewrites are equally long, with its confidence interval."""

    share: float
    low: float
    high: float


def length_controlled(
    a: ArrayLike,
    b: ArrayLike,
    tokens_a: ArrayLike,
    tokens_b: ArrayLike,
    *,
    tolerance: float = 1e-9,
    level: float = 0.95,
) -> LengthControlled | None:
    """The probability that a beats b at equal length: logistic regression of the win on the difference in length.

    P(a beats b) = σ(c + k·tanh(Δtokens / sd(Δtokens))), and the share is σ(c). Ties count as half a win.

    Args:
        a: scores of the first method, one per prompt, [prompts].
        b: scores of the other method, [prompts].
        tokens_a: tokens of a's rewrites, [prompts].
        tokens_b: tokens of b's rewrites, [prompts].
        tolerance: differences in score up to this size are ties.
        level: confidence level of the Wald interval (on the log-odds scale, robust standard errors), in (0, 1).

    Returns:
        The share with its confidence interval. None where it cannot be estimated: one method wins on every prompt,
        length alone separates wins from losses, or one method's rewrites are longer on every prompt.

    Raises:
        DataError: the shapes differ, there are fewer than two prompts, or a value is not finite.

    Source: Dubois et al. 2024, "Length-Controlled AlpacaEval", without its terms for the difficulty of instructions.
    """
    columns = [np.asarray(values, np.float64) for values in (a, b, tokens_a, tokens_b)]
    shapes = {column.shape for column in columns}
    if len(shapes) > 1 or columns[0].ndim != 1 or columns[0].size < 2:
        raise DataError(f"values and lengths must be one per prompt, for at least two prompts, not of shapes {shapes}")
    if not all(np.isfinite(column).all() for column in columns):
        raise DataError("a value or length is not finite; evaluate these prompts again")
    difference, longer = columns[0] - columns[1], columns[2] - columns[3]
    won = np.where(np.abs(difference) <= tolerance, 0.5, difference > 0).astype(np.float64)
    if won.min() == won.max() or not longer.min() <= 0 <= longer.max():
        return None
    return _at_no_difference(won, np.tanh(longer / longer.std()) if longer.any() else longer, level)


def _at_no_difference(won: np.ndarray, longer: np.ndarray, level: float) -> LengthControlled | None:
    extras.require(report="the share of wins at equal length")
    import statsmodels.api as sm
    from scipy.special import expit
    from statsmodels.tools.sm_exceptions import PerfectSeparationWarning

    design = np.column_stack([np.ones_like(longer), longer]) if np.ptp(longer) > 0 else np.ones((longer.size, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("error", PerfectSeparationWarning)
        warnings.filterwarnings("ignore", category=RuntimeWarning)
        try:
            fit = sm.GLM(won, design, family=sm.families.Binomial()).fit(cov_type="HC1")
        except PerfectSeparationWarning:
            return None
    low, high = fit.conf_int(alpha=1 - level)[0]
    if not (fit.converged and np.isfinite([low, high]).all()):
        return None
    return LengthControlled(float(expit(fit.params[0])), float(expit(low)), float(expit(high)))
