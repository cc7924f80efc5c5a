"""Stage 5: best against worst, and every prompt is counted once."""

from __future__ import annotations

import math
from dataclasses import astuple, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from semdpo.data.records import BLACKENED, Candidate, Score, content_id
from semdpo.errors import DataError
from semdpo.recipe.pairs import PairsConfig
from semdpo.stages.pairs import PairCounts, choose


def _rows(scores: list[list[float]]) -> tuple[list[Candidate], list[Score]]:
    candidates, scored = [], []
    for p, values in enumerate(scores):
        for i, value in enumerate(values):
            identity = content_id(str(p), str(i))
            candidates.append(Candidate(identity, f"p{p}", f"prompt {p}", f"rewrite {p} {i}", i, 0, False))
            scored.append(Score(identity, "judge", value, 0, False))
    return candidates, scored


def test_the_best_meets_the_worst() -> None:
    pairs, counts = choose(*_rows([[0.1, 0.9, -0.5, 0.3]]), PairsConfig())
    (pair,) = pairs
    assert (pair.prompt, pair.chosen, pair.rejected) == ("prompt 0", "rewrite 0 1", "rewrite 0 2")
    assert (pair.chosen_score, pair.rejected_score, pair.distance) == (0.9, -0.5, None)
    assert pair.pair_id == content_id(pair.prompt, pair.chosen, pair.rejected)
    assert counts == PairCounts(kept=1, tied=0, below_margin=0, single=0)


def test_fidelities_go_along_without_deciding() -> None:
    candidates, scores = _rows([[0.1, 0.9, -0.5, 0.3]])
    fidelities = [
        Score(c.candidate_id, "faithful", value, 0, False) for c, value in zip(candidates, [4, 1, 2, 3], strict=True)
    ]
    (pair,), _ = choose(candidates, scores, PairsConfig(), fidelities)
    assert (pair.chosen, pair.chosen_fidelity, pair.rejected_fidelity) == ("rewrite 0 1", 1, 2)
    with pytest.raises(DataError, match=candidates[3].candidate_id):
        choose(candidates, scores, PairsConfig(), fidelities[:3])


def _without(scores: list[Score], reasons: dict[int, str]) -> list[Score]:
    return [replace(row, score=None, error=reasons[i]) if i in reasons else row for i, row in enumerate(scores)]


def test_candidates_without_a_score_are_left_out_and_counted_by_the_reason() -> None:
    candidates, scores = _rows([[0.1, 0.9, 0.5], [1, 2], [1, 2], [1, 2]])
    reasons = {1: "no image", 3: BLACKENED, 5: "no image", 7: BLACKENED, 8: "no image"}
    pairs, counts = choose(candidates, _without(scores, reasons), PairsConfig())
    assert [(pair.chosen, pair.rejected) for pair in pairs] == [("rewrite 0 2", "rewrite 0 0")]
    assert counts == PairCounts(kept=1, tied=0, below_margin=0, single=0, blackened=1, failed=2)
    other = [replace(row, scorer="faithful") for row in scores]
    _, counts = choose(candidates, scores, PairsConfig(), _without(other, reasons))
    assert counts == PairCounts(kept=1, tied=0, below_margin=0, single=0, blackened=1, failed=2)


def test_ties_small_margins_and_single_candidates_are_skipped_and_counted() -> None:
    rows = _rows([[1, 1, 1], [1, 1.2], [5], [0, 0.5], [2, 0]])
    pairs, counts = choose(*rows, PairsConfig(margin=0.5))
    assert [pair.prompt for pair in pairs] == ["prompt 3", "prompt 4"]
    assert counts == PairCounts(kept=2, tied=1, below_margin=1, single=1)


def test_equal_scores_are_broken_by_id_whatever_the_order() -> None:
    candidates, scores = _rows([[1, 1, 0, 0]])
    (pair,), _ = choose(candidates, scores, PairsConfig())
    (other,), _ = choose(candidates[::-1], scores[::-1], PairsConfig())
    assert pair == other
    ids = [c.candidate_id for c in candidates]
    by_id = {c.candidate_id: c.rewrite for c in candidates}
    assert pair.chosen == by_id[min(ids[:2])]
    assert pair.rejected == by_id[min(ids[2:])]


@given(st.lists(st.lists(st.floats(-2, 2), min_size=1, max_size=4), max_size=6), st.floats(0, 1))
def test_every_prompt_is_counted_once(scores: list[list[float]], margin: float) -> None:
    pairs, counts = choose(*_rows(scores), PairsConfig(margin=margin))
    assert sum(astuple(counts)) == len(scores)
    assert counts.kept == len(pairs)
    for pair in pairs:
        assert pair.chosen_score is not None
        assert pair.rejected_score is not None
        assert pair.chosen_score - pair.rejected_score >= margin
        assert pair.chosen != pair.rejected


def test_scores_that_are_no_numbers_or_missing_name_their_candidates() -> None:
    candidates, scores = _rows([[1, math.nan]])
    with pytest.raises(DataError, match=f"candidates {candidates[1].candidate_id} have scores that are not a number"):
        choose(candidates, scores, PairsConfig())
    with pytest.raises(DataError, match=f"candidates {candidates[1].candidate_id} have no score"):
        choose(candidates, scores[:1], PairsConfig())
