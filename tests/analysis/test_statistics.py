from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats.power import ttest_power

from semdpo.analysis.statistics import (
    Estimate,
    crossed_interval,
    detectable_effect,
    head_to_head,
    holm,
    mean_interval,
    mean_intervals,
    min_max_average,
    paired_difference,
    prompt_means,
)
from semdpo.errors import DataError


def rows(values: dict[str, list[list[float]]]) -> pd.DataFrame:
    """method → prompts → seeds → value, as one row per image."""
    return pd.DataFrame(
        {"method": method, "prompt_id": f"p{i}", "image_seed": seed, "score": value}
        for method, prompts in values.items()
        for i, seeds in enumerate(prompts)
        for seed, value in enumerate(seeds)
    )


def test_prompt_means_average_over_seeds_and_keep_the_order():
    table = prompt_means(rows({"sft": [[1, 3], [5, 7]], "dpo": [[0, 0], [2, 4]]}), "score")
    assert table.columns.tolist() == ["sft", "dpo"]
    assert table.index.tolist() == ["p0", "p1"]
    assert table.to_numpy().tolist() == [[2, 0], [6, 3]]


def test_prompts_count_equally_whatever_their_number_of_images():
    table = prompt_means(rows({"a": [[0], [1, 1, 1]], "b": [[0], [1, 1, 1]]}), "score")
    assert table["a"].mean() == 0.5


def test_unpaired_methods_are_named():
    with pytest.raises(DataError, match=r"'sft' and 'dpo' cannot be paired: 1 images .*p1, seed 0"):
        prompt_means(rows({"sft": [[1], [1]], "dpo": [[1]]}), "score")


def test_other_image_seeds_cannot_be_paired():
    frame = rows({"sft": [[1]], "dpo": [[1]]})
    frame.loc[1, "image_seed"] = 7
    with pytest.raises(DataError, match="same prompts and image seeds"):
        prompt_means(frame, "score")


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_missing_values_are_named(bad):
    with pytest.raises(DataError, match=r"'score' is not a number in 1 rows .method 'dpo', prompt p1, seed 0"):
        prompt_means(rows({"sft": [[1], [1]], "dpo": [[1], [bad]]}), "score")


def test_a_image_that_occurs_twice_is_refused():
    frame = rows({"sft": [[1], [2]]})
    with pytest.raises(DataError, match="prompt p0, seed 0 was evaluated twice"):
        prompt_means(pd.concat([frame, frame.head(1)]), "score")


def test_no_rows_are_refused():
    with pytest.raises(DataError, match="semdpo evaluate"):
        prompt_means(rows({"a": [[1]]}).head(0), "score")


def test_interval_is_near_the_classical_one():
    x = np.random.default_rng(1).normal(2.0, 1.0, 200)
    estimate = mean_interval(x)
    error = x.std(ddof=1) / math.sqrt(200)
    assert estimate.mean == pytest.approx(x.mean())
    assert estimate.low == pytest.approx(x.mean() - 1.96 * error, abs=0.25 * error)
    assert estimate.high == pytest.approx(x.mean() + 1.96 * error, abs=0.25 * error)


def test_interval_covers_the_truth_about_as_often_as_it_says():
    random = np.random.default_rng(2)
    hits = 0
    for _ in range(200):
        e = mean_interval(random.normal(0.0, 1.0, 30), resamples=500)
        hits += e.low <= 0 <= e.high
    assert 0.88 <= hits / 200 <= 0.99


def test_interval_leans_with_skewed_data():
    e = mean_interval(np.random.default_rng(3).lognormal(0, 1, 60))
    assert e.high - e.mean > e.mean - e.low


def test_interval_is_seeded():
    x = np.random.default_rng(4).normal(size=40)
    assert mean_interval(x) == mean_interval(x)
    assert mean_interval(x) != mean_interval(x, seed=1)


def test_equal_values_give_an_interval_of_no_width():
    e = mean_interval([0.1] * 12)
    assert (e.mean, e.low, e.high) == pytest.approx((0.1, 0.1, 0.1))


@pytest.mark.parametrize("n", [2, 3, 5, 8, 9])
def test_few_prompts_give_finite_intervals(n):
    e = mean_interval([0.0] * (n - 1) + [1.0])
    assert 0 <= e.low <= e.mean <= e.high <= 1


def test_one_prompt_gives_no_interval():
    with pytest.raises(DataError, match="at least two prompts"):
        mean_interval([1.0])


def test_difference_agrees_with_scipy():
    random = np.random.default_rng(5)
    a, b = random.normal(0.1, 1, 80), random.normal(0, 1, 80)
    d = paired_difference(a, b)
    assert d.p_t == pytest.approx(stats.ttest_rel(a, b).pvalue)
    assert d.p_wilcoxon == pytest.approx(stats.wilcoxon(a - b).pvalue)
    assert d.mean == pytest.approx((a - b).mean())
    assert d.prompts == 80


def test_pairing_removes_what_prompts_have_in_common():
    random = np.random.default_rng(6)
    prompt = random.normal(0, 10, 60)
    d = paired_difference(prompt + 0.5 + random.normal(0, 0.1, 60), prompt)
    assert 0.4 < d.low < d.high < 0.6


def test_difference_is_antisymmetric():
    random = np.random.default_rng(7)
    a, b = random.normal(size=50), random.normal(size=50)
    there, back = paired_difference(a, b), paired_difference(b, a)
    assert there.mean == pytest.approx(-back.mean)
    assert there.p_t == pytest.approx(back.p_t)


def test_no_difference_at_all():
    d = paired_difference([1.0, 2.0, 3.0], [1.0, 2.0, 3.0])
    assert (d.mean, d.low, d.high, d.p_t, d.p_wilcoxon) == (0, 0, 0, 1, 1)


def test_the_same_difference_everywhere():
    d = paired_difference([2.0, 3.0, 4.0], [1.0, 2.0, 3.0])
    assert (d.low, d.high, d.p_t) == (1, 1, 0)


def test_lengths_must_agree():
    with pytest.raises(DataError, match="3 and 2 values cannot be paired"):
        paired_difference([1.0, 2.0, 3.0], [1.0, 2.0])


def test_difference_of_a_missing_value():
    with pytest.raises(DataError, match=r"\[1\] are not finite"):
        paired_difference([1.0, math.nan], [1.0, 2.0])


def test_holm_by_hand():
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []


def test_head_to_head_counts_and_wilson():
    duel = head_to_head([1, 1, 1, 0, 0], [0, 0, 0, 1, 0])
    assert (duel.wins, duel.ties, duel.losses) == (3, 1, 1)
    assert duel.share == 0.75
    # Wilson's interval for 3 of 4, worked out by its formula.
    z2 = 1.959963984540054**2
    middle, half = (3 + z2 / 2) / (4 + z2), math.sqrt(z2) / (4 + z2) * math.sqrt(3 * 1 / 4 + z2 / 4)
    assert (duel.low, duel.high) == pytest.approx((middle - half, middle + half))


def test_less_may_win():
    duel = head_to_head([1.0, 1.0], [0.0, 2.0], higher_wins=False)
    assert (duel.wins, duel.losses) == (1, 1)
    assert head_to_head([0.0, 0.0], [1.0, 1.0], higher_wins=False).wins == 2


def test_only_ties_say_nothing():
    duel = head_to_head([1.0, 2.0], [1.0, 2.0])
    assert (duel.ties, duel.share, duel.low, duel.high) == (2, 0.5, 0, 1)


def test_min_max_average_gives_the_published_figures():
    # Sem-DPO's paper, table 5, COCO: the last column from the three before it.
    published = pd.DataFrame(
        {
            "clip": [0.2599, 0.2359, 0.2559, 0.2539, 0.2611, 0.2534, 0.2618],
            "hpsv2.1": [0.2572, 0.2247, 0.2498, 0.2361, 0.2478, 0.2416, 0.2749],
            "pickscore": [21.4127, 20.5758, 21.0490, 20.8834, 21.1933, 20.9463, 21.6433],
        },
        index=["human", "sft", "dpo", "kto", "beta_dpo", "orpo", "sem_dpo"],
    )
    expected = [0.786, 0.0, 0.572, 0.403, 0.671, 0.453, 1.0]
    assert min_max_average(published).tolist() == pytest.approx(expected, abs=0.0011)


def test_a_metric_without_spread_favours_nobody():
    means = pd.DataFrame({"flat": [0.3, 0.3], "clip": [0.0, 1.0]}, index=["a", "b"])
    assert min_max_average(means).tolist() == [0.25, 0.75]


def test_min_max_average_names_the_missing_mean():
    with pytest.raises(DataError, match="'clip' for method 'b'"):
        min_max_average(pd.DataFrame({"clip": [0.1, math.nan]}, index=["a", "b"]))
    with pytest.raises(DataError, match="at least one"):
        min_max_average(pd.DataFrame())


def test_the_sign_test_is_the_binomial_one():
    found = head_to_head([1, 1, 1, 1, 1, 0, 0, 5], [0, 0, 0, 0, 0, 1, 0, 5])
    assert (found.wins, found.ties, found.losses) == (5, 2, 1)
    assert found.p_sign == pytest.approx(2 * sum(math.comb(6, k) for k in (5, 6)) / 2**6)


def test_a_detectable_effect_is_found_four_times_in_five():
    """The claim itself, by simulation: shift noise by what it says, and count the t-tests that see it."""
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 2.0, (3000, 60))
    effect = detectable_effect(noise[0] / noise[0].std(ddof=1) * 2.0)
    found = stats.ttest_1samp(noise + effect, 0.0, axis=1).pvalue < 0.05
    assert found.mean() == pytest.approx(0.8, abs=0.03)
    assert detectable_effect([1.0, 1.0, 1.0]) == 0
    assert paired_difference(noise[0], noise[1]).detectable == detectable_effect(noise[0] - noise[1])


@pytest.mark.parametrize(("prompts", "level", "power"), [(8, 0.99, 0.9), (120, 0.95, 0.8), (5000, 0.9, 0.5)])
def test_a_detectable_effect_has_the_asked_power(prompts: int, level: float, power: float) -> None:
    differences = np.random.default_rng(prompts).normal(size=prompts)
    effect = detectable_effect(differences, level=level, power=power) / differences.std(ddof=1)
    found = ttest_power(effect, nobs=prompts, alpha=1 - level, df=prompts - 1, alternative="two-sided")
    assert float(found) == pytest.approx(power, abs=1e-9)


def test_two_prompts_have_a_detectable_effect_too() -> None:
    """Far out in the tails, where scipy's own sum of both sides is not a number."""
    effect = detectable_effect([0.0, 1.0], level=0.99) / math.sqrt(0.5)
    reached = stats.nct.sf(stats.t.isf(0.005, 1), 1, effect * math.sqrt(2))
    assert reached == pytest.approx(0.8, abs=1e-9), "nothing is left on the other side"


def test_a_crossed_interval_is_wider_than_one_that_forgets_the_seeds():
    """Seeds that differ by more than prompts do: only resampling both tells how little three seeds know."""
    rng = np.random.default_rng(1)
    values = rng.normal(0, 1, (200, 1)) * 0.1 + rng.normal(0, 1, (1, 3))
    crossed, prompts = crossed_interval(values), mean_interval(values.mean(axis=1))
    assert crossed.mean == pytest.approx(values.mean())
    assert crossed.low < prompts.low < prompts.high < crossed.high
    assert crossed.high - crossed.low > 5 * (prompts.high - prompts.low)
    assert crossed_interval(values) == crossed
    with pytest.raises(DataError, match="at least two of each"):
        crossed_interval(values[:, :1])
    values[3, 2] = math.nan
    with pytest.raises(DataError, match="prompt number 3, seed number 2"):
        crossed_interval(values)


def test_a_crossed_interval_covers_the_truth():
    rng = np.random.default_rng(2)
    covered = 0
    for _ in range(200):
        values = rng.normal(0, 1, (30, 1)) + rng.normal(0, 1, (1, 30)) + rng.normal(0, 1, (30, 30))
        found = crossed_interval(values, resamples=400)
        covered += found.low <= 0 <= found.high
    assert covered / 200 >= 0.9


def test_intervals_of_many_columns_are_those_of_each():
    x = np.random.default_rng(3).normal(2, 1, (80, 3))
    for i, found in enumerate(mean_intervals(x)):
        alone = mean_interval(x[:, i])
        assert found.mean == pytest.approx(alone.mean)
        assert (found.low, found.high) == pytest.approx((alone.low, alone.high), abs=0.03)
    assert mean_intervals([[1.0, 2.0]])[1] == Estimate(2.0, 2.0, 2.0)
    with pytest.raises(DataError, match="evaluate these again"):
        mean_intervals([[math.nan]])
