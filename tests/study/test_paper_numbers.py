"""Rows with the counts that the paper prints (arXiv 2507.20133, tables 4 and 11) give the paper's numbers."""

from __future__ import annotations

import numpy as np
import pytest

from semdpo.study.analysis.groups import groups
from semdpo.study.analysis.rates import rates
from semdpo.study.analysis.totals import totals
from tests.study.votes import A, B, from_matrix, with_margins

# Table 4: 148 of 180 votes, 9 raters with rates of 70 to 95% and a median of 80%, 18 of 20 prompts, median 0.89.
BY_RATER = [14, 15, 15, 16, 16, 17, 18, 18, 19]
BY_PROMPT = [3, 4, 6, 6, 6, 7, 7, 7, 8, 8, 8, 8, 8, 8, 9, 9, 9, 9, 9, 9]


def test_table_4() -> None:
    rows = from_matrix(with_margins(BY_RATER, BY_PROMPT))
    count = totals(rows, "match", (A, B))
    assert (count.first, count.second, count.ties, count.votes) == (148, 32, 0, 180)
    assert round(100 * count.share, 1) == 82.2
    table = rates(rows, "match", (A, B))
    people, prompts = groups(table, "raters"), groups(table, "prompts")
    assert (people.prefer_first, people.prefer_second, len(people.rates)) == (9, 0, 9)
    assert (people.lowest, people.highest, people.median) == pytest.approx((0.70, 0.95, 0.80))
    assert (prompts.prefer_first, prompts.prefer_second, len(prompts.rates)) == (18, 2, 20)
    assert round(prompts.median, 2) == 0.89
    # Nine raters on one side: the smallest p-values that nine can give, 2 of 2**9.
    assert people.p_wilcoxon == pytest.approx(2 / 512)
    assert people.p_sign == pytest.approx(2 / 512)
    assert prompts.p_wilcoxon < 0.001


def test_table_11() -> None:
    votes = np.ones((57, 5))
    votes[np.arange(12), np.arange(12) % 5] = 0
    rows = from_matrix(votes)
    count = totals(rows, "match", (A, B))
    assert (count.first, count.second, count.votes) == (273, 12, 285)
    assert round(100 * count.share, 1) == 95.8
    assert groups(rates(rows, "match", (A, B)), "raters").prefer_first == 57
    assert groups(rates(rows, "match", (A, B)), "prompts").prefer_first == 5
    assert totals(rows, "match", (B, A)).share == pytest.approx(12 / 285)
