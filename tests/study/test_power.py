"""The simulated power agrees with the exact one where that is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import special, stats

from semdpo.errors import ConfigError
from semdpo.study.design import Analysis
from semdpo.study.power import Assumptions, _signed_rank, centre, power


def _exact(votes: int, share: float, level: float) -> float:
    """The power of the two-sided exact binomial test: the probability of the numbers that it rejects."""
    numbers = np.arange(votes + 1)
    rejected = [stats.binomtest(int(k), votes).pvalue <= 1 - level for k in numbers]
    return float(stats.binom.pmf(numbers, votes, share)[rejected].sum())


@pytest.mark.parametrize(("raters", "prompts", "effect"), [(9, 20, 0.6), (4, 15, 0.65), (10, 30, 0.55)])
def test_without_differences_of_raters_and_prompts_it_is_that_of_the_binomial_test(
    raters: int, prompts: int, effect: float
) -> None:
    assumptions = Assumptions(effect, 0.0, 0.0, simulations=8000)
    found = power(raters, prompts, prompts, Analysis(test="votes"), assumptions)
    assert found.power == pytest.approx(_exact(raters * prompts, effect, 0.95), abs=0.02)
    assert found.false_positives == pytest.approx(_exact(raters * prompts, 0.5, 0.95), abs=0.02)
    assert 0.2 < found.power < 0.99  # where a wrong simulation would show


def test_of_six_raters_who_see_one_prompt_it_is_that_of_the_sign_test() -> None:
    """Their rates are 0 or 1, so that the signed-rank test finds a difference only where all six agree."""
    found = power(6, 1, 1, Analysis(test="raters"), Assumptions(0.8, 0.0, 0.0, simulations=8000))
    assert found.power == pytest.approx(0.8**6 + 0.2**6, abs=0.02)
    assert found.false_positives == pytest.approx(2 * 0.5**6, abs=0.02)


def test_prompts_that_only_some_raters_see_give_as_many_votes() -> None:
    found = power(20, 20, 5, Analysis(test="votes"), Assumptions(0.62, 0.0, 0.0, simulations=8000))
    assert found.power == pytest.approx(_exact(100, 0.62, 0.95), abs=0.02)


def test_five_raters_or_fewer_cannot_show_a_difference_by_signed_ranks() -> None:
    found = power(5, 40, 40, Analysis(test="raters"), Assumptions(0.9, simulations=200))
    assert found.power == 0


def test_signed_ranks_are_those_of_scipy_study_by_study() -> None:
    shares = np.random.default_rng(0).integers(0, 9, (200, 7)) / 8
    shares[0] = 0.5
    moved = [row[row != 0] for row in shares - 0.5]
    assert _signed_rank(shares) == pytest.approx([stats.wilcoxon(row).pvalue if row.size else 1.0 for row in moved])


def test_raters_and_prompts_that_differ_lower_it_and_make_the_test_of_votes_wrong() -> None:
    calm = power(9, 20, 20, Analysis(test="votes"), Assumptions(0.65, 0.0, 0.0, simulations=1000))
    varied = power(9, 20, 20, Analysis(test="votes"), Assumptions(0.65, 0.5, 1.0, simulations=1000))
    assert varied.power < calm.power
    assert varied.false_positives > 0.1


def test_a_test_over_both_finds_no_difference_too_often_where_raters_and_prompts_differ() -> None:
    found = power(9, 20, 20, Analysis(), Assumptions(0.75))
    assert 0.5 < found.power < 1
    assert found.false_positives < 0.07
    some = power(18, 20, 10, Analysis(), Assumptions(0.75))
    assert some.power == pytest.approx(found.power, abs=0.1)
    assert some.false_positives < 0.07
    with pytest.raises(ConfigError, match="needs two of each, not 1 and 20"):
        power(1, 20, 20, Analysis(), Assumptions())


@pytest.mark.parametrize("effect", [0.5, 0.65, 0.9])
def test_the_effect_is_the_share_of_all_votes(effect: float) -> None:
    draws = np.random.default_rng(0).normal(0, np.hypot(0.5, 1.5), 400_000)
    assert special.expit(centre(effect, 0.5, 1.5) + draws).mean() == pytest.approx(effect, abs=0.002)
    assert centre(effect, 0, 0) == pytest.approx(special.logit(effect), abs=1e-9)
