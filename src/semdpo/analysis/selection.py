"""Choosing a setting, such as α, by what it does on tuning prompts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from semdpo.analysis.statistics import Array, Difference, paired_difference

if TYPE_CHECKING:
    import pandas as pd

RULE = (
    "of the settings whose fidelity is not below the floor's, keep those whose preference is not below that of the "
    "most preferred one, and take the most faithful of them; where all are below the floor, the most faithful of all. "
    "Below means that the 95% interval of the difference, paired by prompt, lies under 0"
)


@dataclass(frozen=True, slots=True)
class Choice:
    """A chosen setting.

    Attributes:
        setting: its name.
        above_floor: setting → whether its fidelity is not below the floor's.
        differences: setting → its fidelity minus the floor's, paired by prompt.
        reason: which part of the rule decided, for people.
    """

    setting: str
    above_floor: dict[str, bool]
    differences: dict[str, Difference]
    reason: str


def choose(fidelity: pd.DataFrame, preference: pd.DataFrame, floor: Array) -> Choice:
    """The setting that ``RULE`` picks; of equal ones, the first.

    Args:
        fidelity: one value per tuning prompt (rows) and setting (columns).
        preference: likewise.
        floor: fidelity of what must not be fallen below, [prompts].

    Raises:
        DataError: fewer than two prompts, or a value is not finite.
    """
    names = [str(name) for name in fidelity.columns]
    faithful = {name: fidelity[name].to_numpy(np.float64) for name in names}
    liked = {name: preference[name].to_numpy(np.float64) for name in names}
    differences = {name: paired_difference(faithful[name], floor) for name in names}
    above = {name: found.high >= 0 for name, found in differences.items()}
    allowed = [name for name in names if above[name]]
    if not allowed:
        kept, reason = names, f"the most faithful, for all {len(names)} are below the floor"
    else:
        best = max(allowed, key=lambda name: liked[name].mean())
        kept = [n for n in allowed if n == best or paired_difference(liked[n], liked[best]).high >= 0]
        reason = (
            f"the most faithful of {len(kept)} that cannot be told from the most preferred one, "
            f"of {len(allowed)} not below the floor, of {len(names)}"
        )
    return Choice(max(kept, key=lambda name: faithful[name].mean()), above, differences, reason)
