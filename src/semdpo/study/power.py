"""The power of a study: how often it finds a difference that is there, by simulation.

A simulated rater prefers the better method on a prompt with probability σ(centre + rater + prompt), where raters and
prompts are normally distributed. The plan's own primary test decides, on the votes of one pair of methods.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special, stats

from semdpo.errors import ConfigError
from semdpo.study.analysis.rates import Rates
from semdpo.study.analysis.two_way import two_way
from semdpo.study.assignment import prompts_of_raters
from semdpo.study.design import Analysis, Power, Test

Array = NDArray[np.float64]
Votes = NDArray[np.bool_]
NODES = 64  # of the quadrature over raters and prompts
FEW = 13  # ranks up to which scipy goes through all signs of tied ranks
CELLS = 100_000  # votes that are simulated at once


@dataclass(frozen=True, slots=True)
class Assumptions:
    """What the power is computed for.

    Attributes:
        effect: the share of votes for the better method, over all raters and prompts, 0.5 to 1.
        rater_sd: the standard deviation of raters, in logits.
        prompt_sd: the standard deviation of prompts, in logits.
        simulations: the number of simulated studies; 2,000 give the power to within two points, 19 times of 20.
        seed: the seed of the simulation.
    """

    effect: float = 0.65
    rater_sd: float = 0.5
    prompt_sd: float = 1.0
    simulations: int = 2000
    seed: int = 0


def power(raters: int, prompts: int, each: int, analysis: Analysis, assumptions: Assumptions) -> Power:
    """The power of the primary test for one pair of methods, without correction for further pairs.

    Args:
        raters: the number of raters.
        prompts: the number of prompts.
        each: the number of prompts of one rater.
        analysis: the test and its level.
        assumptions: the difference to be found, and how raters and prompts differ.

    Raises:
        ConfigError: the test is over both raters and prompts, and there is only one of them.
    """
    if analysis.test == "both" and min(raters, prompts) < 2:
        raise ConfigError(
            f"a test over both raters and prompts needs two of each, not {raters} and {prompts}; have more, or choose "
            "--test votes"
        )
    seen = np.zeros((raters, prompts), np.bool_)
    for rater, share in enumerate(prompts_of_raters([str(k) for k in range(prompts)], raters, each, assumptions.seed)):
        seen[rater, [int(prompt) for prompt in share]] = True
    found, false = (_rejected(effect, seen, analysis, assumptions) for effect in (assumptions.effect, 0.5))
    return Power(assumptions.effect, assumptions.rater_sd, assumptions.prompt_sd, found, false, assumptions.simulations)


def _rejected(effect: float, seen: Votes, analysis: Analysis, assumptions: Assumptions) -> float:
    """The share of simulated studies in which the test finds a difference."""
    rng, (raters, prompts), size = np.random.default_rng([assumptions.seed, 1]), seen.shape, assumptions.simulations
    middle = centre(effect, assumptions.rater_sd, assumptions.prompt_sd)
    rejected = 0
    part = max(1, CELLS // seen.size)
    for start in range(0, size, part):
        count = min(part, size - start)
        of_raters = assumptions.rater_sd * rng.standard_normal((count, raters, 1))
        of_prompts = assumptions.prompt_sd * rng.standard_normal((count, 1, prompts))
        likely = special.expit(middle + of_raters + of_prompts)
        votes = (rng.random((count, raters, prompts)) < likely) & seen
        rejected += int((TESTS[analysis.test](votes, seen) <= 1 - analysis.level).sum())
    return rejected / size


def centre(effect: float, rater_sd: float, prompt_sd: float) -> float:
    """The logit of an average rater on an average prompt, so that the share of all votes is ``effect``.

    The share over all raters and prompts is nearer to one half than that of the average ones, because σ is curved.

    Args:
        effect: the share, in (0, 1).
        rater_sd: the standard deviation of raters, in logits.
        prompt_sd: the standard deviation of prompts, in logits.
    """
    nodes, weights = np.polynomial.hermite_e.hermegauss(NODES)
    spread, weights = nodes * np.hypot(rater_sd, prompt_sd), weights / weights.sum()
    reach = float(abs(special.logit(effect)) + 10 * np.hypot(rater_sd, prompt_sd) + 1)
    return float(optimize.brentq(lambda x: float(weights @ special.expit(x + spread)) - effect, -reach, reach))


# ------------------------------------------------------------------------------------------------- tests


def _over_raters(votes: Votes, seen: Votes) -> Array:
    return _signed_rank(votes.sum(2) / seen.sum(1))


def _over_prompts(votes: Votes, seen: Votes) -> Array:
    asked = seen.any(0)
    return _signed_rank(votes.sum(1)[:, asked] / seen.sum(0)[asked])


def _over_votes(votes: Votes, seen: Votes) -> Array:
    return np.array([_binomial(int(number), int(seen.sum())) for number in votes.sum((1, 2))])


@cache
def _binomial(number: int, votes: int) -> float:
    return float(stats.binomtest(number, votes).pvalue)


def _signed_rank(shares: Array) -> Array:
    """Wilcoxon's two-sided p-values of shares against one half, without those of exactly one half.

    They are scipy's. scipy decides for all rows that it is given together whether there are ties, so that rows with and
    without ties are given to it apart. Where it would go through all signs of a few tied ranks row by row, that is done
    here for all rows at once.

    Args:
        shares: the shares of the raters or prompts of each study, [studies, n].
    """
    moved = (shares - 0.5).round(12)  # so that shares that are equally far from one half have equal ranks
    far = np.sort(np.abs(moved), 1)
    left, tied = (moved != 0).sum(1), ((np.diff(far, axis=1) == 0) & (far[:, 1:] > 0)).any(1)
    p = np.ones(len(moved))
    for number, ties in {(int(n), bool(t)) for n, t in zip(left, tied, strict=True) if n}:
        rows = np.flatnonzero((left == number) & (tied == ties))
        values = moved[rows]
        values = values[values != 0].reshape(-1, number)
        exact = ties and number <= FEW
        p[rows] = _by_all_signs(values) if exact else stats.wilcoxon(values, axis=1).pvalue
    return p


def _by_all_signs(values: Array) -> Array:
    """The p-value by all signs that the ranks may have, [rows]; ranks are halves at least, so that sums are exact."""
    ranks = stats.rankdata(np.abs(values), axis=1)
    signs = np.array(list(product((0.0, 1.0), repeat=values.shape[1])))
    sums, found = ranks @ signs.T, (ranks * (values > 0)).sum(1, keepdims=True)
    p: Array = np.minimum(1.0, 2 * np.minimum((sums >= found).mean(1), (sums <= found).mean(1)))
    return p


def _over_both(votes: Votes, seen: Votes) -> Array:
    asked = seen.any(0)
    counts = seen[:, asked].astype(np.float64)
    raters, prompts = (tuple(str(k) for k in range(size)) for size in counts.shape)
    tables = (Rates(raters, prompts, own[:, asked].astype(np.float64), counts) for own in votes)
    return np.array([two_way(table).p for table in tables])


TESTS: Mapping[Test, Callable[[Votes, Votes], Array]] = {
    "both": _over_both,
    "raters": _over_raters,
    "prompts": _over_prompts,
    "votes": _over_votes,
}
