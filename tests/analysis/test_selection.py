"""The rule that picks a setting, on tables where the answer is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from semdpo.analysis.selection import choose
from semdpo.errors import DataError

N = 200
NOISE = np.random.default_rng(0).normal(0, 1, (N, 4))
FLOOR = np.zeros(N)


def _table(**means: float) -> pd.DataFrame:
    return pd.DataFrame({name: mean + NOISE[:, i] * 0.5 for i, (name, mean) in enumerate(means.items())})


def test_a_setting_below_the_floor_is_out_however_it_is_liked() -> None:
    found = choose(_table(low=0.0, high=-1.0), _table(low=1.0, high=9.0), FLOOR)
    assert found.setting == "low"
    assert found.above_floor == {"low": True, "high": False}
    assert "1 of 2 are not below the floor" in found.reason


def test_of_those_that_are_liked_alike_the_most_faithful_is_taken() -> None:
    fidelity = _table(a=0.3, b=0.8, c=1.5)
    preference = pd.DataFrame({"a": NOISE[:, 0] + 1.0, "b": NOISE[:, 0] + 1.0, "c": NOISE[:, 0] - 1.0})
    preference["b"] -= 0.001 * NOISE[:, 3]
    assert choose(fidelity, preference, FLOOR).setting == "b", "c is more faithful still, and clearly liked less"


def test_where_all_are_below_the_floor_the_most_faithful_is_taken() -> None:
    found = choose(_table(a=-2.0, b=-1.0), _table(a=5.0, b=0.0), FLOOR)
    assert found.setting == "b"
    assert "all 2 are below the floor" in found.reason


def test_values_must_be_numbers() -> None:
    broken = _table(a=0.0)
    broken.loc[3, "a"] = np.nan
    with pytest.raises(DataError, match="not finite"):
        choose(broken, _table(a=0.0), FLOOR)
