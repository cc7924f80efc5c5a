"""The single statistics of a study, on votes whose result is known by counting."""

from __future__ import annotations

import numpy as np
import pytest

from semdpo.errors import DataError
from semdpo.study.analysis.agreement import alpha
from semdpo.study.analysis.attention import failures
from semdpo.study.analysis.bootstrap import bootstrap
from semdpo.study.analysis.consistency import consistency
from semdpo.study.analysis.groups import groups
from semdpo.study.analysis.rates import pairs_of_methods, rates
from semdpo.study.analysis.scorers import scorer_agreement
from semdpo.study.analysis.sides import sides
from semdpo.study.analysis.strengths import strengths
from semdpo.study.analysis.totals import totals
from semdpo.study.design import RIGHT_ANSWER, WRONG_ANSWER
from tests.study.votes import A, B, from_matrix, judgement

PAIR = (A, B)


def test_a_tie_is_half_a_vote_and_no_vote_of_the_binomial_test() -> None:
    rows = from_matrix([[1, 0.5, 0.5], [1, 1, 0]])
    count = totals(rows, "match", PAIR)
    assert (count.first, count.second, count.ties, count.share) == (3, 1, 2, 0.75)
    assert rates(rows, "match", PAIR).share == pytest.approx(4 / 6)
    only_ties = totals(from_matrix([[0.5, 0.5]] * 2), "match", PAIR)
    assert (only_ties.share, only_ties.low, only_ties.high, only_ties.p) == (0.5, 0, 1, 1)


def test_repeats_checks_and_other_questions_are_no_votes() -> None:
    rows = from_matrix([[1, 0], [1, 0]])
    rows += [
        judgement(0, 0, A, kind="repeat", trial="again", repeats="t0-0"),
        judgement(0, 0, RIGHT_ANSWER, pair=(RIGHT_ANSWER, WRONG_ANSWER), kind="attention", trial="check"),
        judgement(0, 0, A, question="prefer"),
        judgement(0, 0, A, pair=(A, "sft")),
    ]
    assert totals(rows, "match", PAIR).votes == 4
    assert rates(rows, "match", PAIR).counts.sum() == 4
    assert pairs_of_methods(rows) == [(B, A), (A, "sft")]
    assert pairs_of_methods(rows, [A]) == [(A, B), (A, "sft")]
    with pytest.raises(DataError, match="no votes on question 'artefacts'"):
        rates(rows, "artefacts", PAIR)


def test_rates_of_one_half_are_dropped_by_both_tests() -> None:
    rates_of = groups(
        rates(from_matrix([[1, 1, 1, 0], [1, 0, 1, 0], [1, 1, 1, 1], [0, 0, 0, 1]]), "match", PAIR), "raters"
    )
    assert (rates_of.prefer_first, rates_of.prefer_second, rates_of.median) == (2, 1, 0.625)
    assert rates_of.p_sign == pytest.approx(1.0)
    even = groups(rates(from_matrix([[1, 0], [0, 1]]), "match", PAIR), "prompts")
    assert (even.p_wilcoxon, even.p_sign, even.prefer_first) == (1, 1, 0)


def test_the_bootstrap_resamples_raters_and_prompts() -> None:
    by_rater = from_matrix(np.repeat([[1.0], [0.0]], 5, axis=0).repeat(8, axis=1))
    drawn = bootstrap(rates(by_rater, "match", PAIR), seed=1)
    assert drawn.mean == 0.5
    assert (drawn.low, drawn.high) == pytest.approx((0.2, 0.8), abs=0.11)  # ten raters of two kinds: binomial
    assert drawn == bootstrap(rates(by_rater, "match", PAIR), seed=1)
    uneven = rates(from_matrix(np.random.default_rng(0).integers(0, 2, (9, 11))), "match", PAIR)
    assert bootstrap(uneven, seed=1) != bootstrap(uneven, seed=2)
    by_prompt = from_matrix(np.repeat([[1.0], [0.0]], 5, axis=0).repeat(8, axis=1).T)
    turned = bootstrap(rates(by_prompt, "match", PAIR), seed=1)
    assert (turned.low, turned.high) == pytest.approx((0.2, 0.8), abs=0.11)


def test_side_bias_is_taken_out_of_the_share() -> None:
    lefts = [judgement(r, p, (A, B)[(r + p) % 2]) for r in range(4) for p in range(6)]
    found = sides(lefts, "match", PAIR)
    assert (found.left.share, found.first_left, found.first_right, found.adjusted) == (1, 1, 0, 0.5)
    assert found.left.p < 0.05  # 24 of 24, and three degrees of freedom
    # On the left in 3 of 4 comparisons: the plain share is 0.75, the adjusted one is not moved.
    more = [judgement(r, p, A if p < 3 else B, left=A if p < 3 else B) for r in range(4) for p in range(4)]
    found = sides(more, "match", PAIR)
    assert rates(more, "match", PAIR).share == 0.75
    assert found.adjusted == 0.5
    alone = sides([judgement(r, p, A, left=A) for r in range(2) for p in range(2)], "match", PAIR)
    assert (alone.first_left, alone.first_right, alone.adjusted) == (1, None, None)


def test_self_consistency_counts_the_method_and_not_the_side() -> None:
    rows = from_matrix([[1, 1, 0.5], [1, 0, 1]])
    assert consistency(rows, "match") is None
    again = [(0, 0, A), (0, 1, B), (0, 2, "tie"), (1, 0, A), (1, 1, B), (1, 2, A)]
    for rater, prompt, chosen in again:
        first = next(row for row in rows if row.rater == f"r{rater:03d}" and row.prompt_id == f"p{prompt:03d}")
        rows.append(judgement(rater, prompt, chosen, left=first.right_method, kind="repeat",
                              trial=f"again{rater}-{prompt}", repeats=first.trial))  # fmt: skip
    found = consistency(rows, "match")
    assert found is not None
    assert (found.repeats, found.same) == (6, 5)
    assert 0 <= found.low < 5 / 6 < found.high <= 1
    assert consistency(rows, "prefer") is None


def test_alpha_is_one_for_agreement_and_the_published_value_for_a_known_table() -> None:
    assert alpha(from_matrix([[1, 0, 1, 0.5]] * 3), "match") == 1
    assert alpha(from_matrix(np.ones((3, 4))), "match") is None
    # Krippendorff 2011, part A: two observers, ten units, alpha 0.095.
    first, second = [0, 1, 0, 0, 0, 0, 0, 0, 1, 0], [1, 1, 1, 0, 0, 1, 0, 0, 0, 0]
    assert alpha(from_matrix([first, second]), "match") == pytest.approx(0.095, abs=5e-4)


def test_attention_checks_that_failed() -> None:
    checks = [(0, RIGHT_ANSWER), (0, WRONG_ANSWER), (1, "tie"), (1, RIGHT_ANSWER)]
    rows = [
        judgement(rater, place, chosen, pair=(RIGHT_ANSWER, WRONG_ANSWER), kind="attention", trial=f"check{place}")
        for place, (rater, chosen) in enumerate(checks)
    ]
    assert failures(rows + from_matrix([[1]])) == {"r000": (1, 2), "r001": (1, 2)}


def test_strengths_of_three_methods() -> None:
    """Bradley and Terry's model holds exactly: σ(1) of votes for each step of one."""
    rng, names, true = np.random.default_rng(0), (A, B, "sft"), {A: 1.0, B: 0.0, "sft": -1.0}
    rows = [
        judgement(r, p, pair[int(rng.random() > 1 / (1 + np.exp(true[pair[1]] - true[pair[0]])))], pair=pair)
        for r in range(20)
        for p in range(40)
        for pair in ((A, B), (A, "sft"), (B, "sft"))
    ]
    found = strengths(rows, "match", count=100)
    assert found is not None
    assert list(found) == list(names)
    for name, each in found.items():
        assert each.low < each.mean < each.high
        assert each.mean == pytest.approx(true[name], abs=0.15)
    assert sum(each.mean for each in found.values()) == pytest.approx(0, abs=1e-6)
    assert strengths([row for row in rows if "sft" not in (row.left_method, row.right_method)], "match") is None
    always = [judgement(r, p, pair[0], pair=pair) for r in range(2) for p in range(2) for pair in ((A, B), (B, "sft"))]
    finite = strengths(always, "match", count=20)
    assert finite is not None
    assert all(np.isfinite(each.mean) for each in finite.values())
    rows = [judgement(r, p, pair[0], pair=pair) for r in range(2) for p in range(2) for pair in ((A, B), (B, "human"))]
    last = strengths(rows, "match", count=20)
    assert last is not None
    assert list(last) == ["human", A, B], "the user's own prompt comes first, however weak"
    assert last["human"].mean < last[B].mean < last[A].mean
    islands = [judgement(r, p, pair[0], pair=pair) for r in range(2) for p in range(2) for pair in ((A, B), ("x", "y"))]
    assert strengths(islands, "match", count=20) is None


def _scores(leads: list[float]) -> dict[tuple[str, str], float]:
    return {(m, f"p{p:03d}"): lead * (m == A) for p, lead in enumerate(leads) for m in PAIR}


def test_a_scorer_against_the_majority() -> None:
    rows = from_matrix([[1, 1, 0, 0.5]] * 3 + [[0, 1, 0, 0.5]])
    right = scorer_agreement(rows, "match", _scores([2.0, 1.0, -1.0, 5.0]), count=200)
    assert right is not None
    assert (right.compared, right.undecided, right.agree, right.kappa.mean, right.auc.mean) == (3, 1, 1, 1, 1)
    wrong = scorer_agreement(rows, "match", _scores([-2.0, -1.0, 1.0, 0.0]), count=200)
    assert wrong is not None
    assert (wrong.agree, wrong.kappa.mean, wrong.auc.mean) == (0, -1, 0)
    flat = scorer_agreement(rows, "match", _scores([0.0] * 4), count=200)
    assert flat is not None
    assert (flat.agree, flat.kappa.mean, flat.auc.mean) == (0.5, 0, 0.5)
    # The scorer's leads of what people chose are 2, 1 and -1; the AUC compares each with minus each.
    mixed = scorer_agreement(rows, "match", _scores([2.0, 1.0, 1.0, 0.0]), count=200)
    assert mixed is not None
    leads = [2.0, 1.0, -1.0]
    by_hand = np.mean([[(x > -y) + 0.5 * (x == -y) for y in leads] for x in leads])
    assert (mixed.agree, mixed.auc.mean) == pytest.approx((2 / 3, by_hand))
    assert mixed.auc.low < mixed.auc.mean < mixed.auc.high


def test_a_scorer_without_a_score_or_people_without_a_majority() -> None:
    rows = from_matrix([[1, 1], [1, 0]])
    with pytest.raises(DataError, match="no score of method 'dpo' on prompt p001"):
        scorer_agreement(rows, "match", _scores([1.0]))
    assert scorer_agreement(from_matrix([[0.5, 0.5]] * 2), "match", _scores([1.0, 1.0])) is None
