"""The choice of a setting, such as α, by its results on tuning prompts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from semdpo.analysis.statistics import Array, Difference, paired_difference

if TYPE_CHECKING:
    import pandas as pd

RULE = (
    "Keep the settings whose fidelity is not below the floor's. Of these, keep those whose preference is not below "
    "the highest, and pick the one with the highest fidelity. If all settings are below the floor, pick the one with "
    "the highest fidelity. “Below” means that the 95% confidence interval of the paired difference lies below 0."
)


@dataclass(frozen=True, slots=True)
class Choice:
    """A chosen setting.

    Attributes:
        setting: name of the chosen setting.
        above_floor: setting → whether its fidelity is not below the floor's.
        differences: setting → its fidelity minus the floor's, paired by prompt.
        reason: the part of the rule that decided, in words.
    """

    setting: str
    above_floor: dict[str, bool]
    differences: dict[str, Difference]
    reason: str


def choose(fidelity: pd.DataFrame, preference: pd.DataFrame, floor: Array) -> Choice:
    """The setting that ``RULE`` picks; among equal ones, the first.

    Args:
        fidelity: mean fidelity per tuning prompt (rows) and setting (columns).
        preference: mean preference score, with the same rows and columns.
        floor: fidelity of the method that sets the floor, [prompts].

    Raises:
        DataError: there are fewer than two prompts, or a value is not finite.
    """
    names = [str(name) for name in fidelity.columns]
    faithful = {name: fidelity[name].to_numpy(np.float64) for name in names}
    liked = {name: preference[name].to_numpy(np.float64) for name in names}
    differences = {name: paired_difference(faithful[name], floor) for name in names}
    above = {name: difference.high >= 0 for name, difference in differences.items()}
    allowed = [name for name in names if above[name]]
    if not allowed:
        candidates, reason = names, f"it has the highest fidelity, and all {len(names)} are below the floor"
    else:
        best = max(allowed, key=lambda name: liked[name].mean())
        candidates = [n for n in allowed if n == best or paired_difference(liked[n], liked[best]).high >= 0]
        reason = (
            f"it has the highest fidelity of the {len(candidates)} whose preference is not below the highest; "
            f"{len(allowed)} of {len(names)} are not below the floor"
        )
    return Choice(max(candidates, key=lambda name: faithful[name].mean()), above, differences, reason)
