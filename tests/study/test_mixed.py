"""The mixed model: statsmodels fits the same; where it cannot be fitted, a sentence says so."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from statsmodels.regression.mixed_linear_model import MixedLM, VCSpec

from semdpo.study.analysis.mixed import Mixed, fit, mixed
from tests.study.votes import A, B, from_matrix, judgement


def _votes(seed: int, raters: int = 6, prompts: int = 8) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    at = np.indices((raters, prompts)).reshape(2, -1)
    odds = 0.5 + rng.normal(0, 1, raters)[at[0]] + rng.normal(0, 1.5, prompts)[at[1]]
    y = (rng.random(at.shape[1]) < 1 / (1 + np.exp(-odds))).astype(float)
    return y, (at.sum(0) % 2 == 0), at[0], at[1]


def test_statsmodels_fits_the_same() -> None:
    y, left, rater, prompt = _votes(3)
    ours = fit(y, left, rater, prompt)
    assert isinstance(ours, Mixed)
    assert ours.remark is None  # inside the range, where both are well defined
    names = [[[f"r{i}" for i in range(6)]], [[f"p{i}" for i in range(8)]]]
    parts = VCSpec(["rater", "prompt"], names, [[np.eye(6)[rater]], [np.eye(8)[prompt]]])
    x = np.column_stack([np.ones(len(y)), np.where(left, 0.5, -0.5)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = MixedLM(y, x, np.zeros(len(y)), exog_vc=parts).fit(reml=True, method="lbfgs")
    assert (ours.share, ours.side) == pytest.approx(tuple(theirs.fe_params), abs=1e-3)
    assert (ours.rater_sd, ours.prompt_sd) == pytest.approx(tuple(np.sqrt(theirs.vcomp)), abs=2e-3)
    from scipy import stats

    assert (ours.high - ours.low) / 2 == pytest.approx(stats.t.isf(0.025, 5) * theirs.bse_fe[0], rel=1e-2)


def test_what_cannot_be_fitted_is_said() -> None:
    assert "All votes are equal" in str(mixed(from_matrix(np.ones((3, 4))), "match", (A, B)))
    assert "at least two" in str(mixed(from_matrix([[1, 0, 1]]), "match", (A, B)))
    one_side = [judgement(r, p, A if (r + p) % 3 else B, left=A) for r in range(3) for p in range(4)]
    assert "always on the same side" in str(mixed(one_side, "match", (A, B)))


def test_a_variance_of_nothing_is_said_and_the_share_is_adjusted_for_the_side() -> None:
    rows = from_matrix(np.indices((4, 6)).sum(0) % 3 == 0)
    found = mixed(rows, "match", (A, B))
    assert isinstance(found, Mixed)
    assert found.remark is not None
    assert "estimated as 0" in found.remark
    # One who always chooses the left: all of it is the side.
    lefts = [judgement(r, p, (A, B)[(r + p) % 2]) for r in range(4) for p in range(6)]
    assert "explain every single vote" in str(mixed(lefts, "match", (A, B)))
    lefts[0] = judgement(0, 0, B)
    found = mixed(lefts, "match", (A, B))
    assert isinstance(found, Mixed)
    assert found.share == pytest.approx(0.5, abs=0.05)
    assert found.side > 0.85
