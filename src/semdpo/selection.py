"""Choosing a setting, such as α, by what it does on tuning prompts."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from semdpo.statistics import Array, Difference, paired_difference

RULE = (
    "the largest preference among the settings whose fidelity is not below the floor's (the paired difference's 95% "
    "interval reaches 0); where all are below it, the largest fidelity"
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
    differences = {name: paired_difference(fidelity[name], floor) for name in names}
    above = {name: found.high >= 0 for name, found in differences.items()}
    allowed = [name for name in names if above[name]]
    means = preference.mean() if allowed else fidelity.mean()
    setting = max(allowed or names, key=lambda name: float(means[name]))
    reason = (
        f"the largest preference of the {len(allowed)} of {len(names)} whose fidelity is not below the floor's"
        if allowed
        else f"the largest fidelity, for all {len(names)} are below the floor's"
    )
    return Choice(setting, above, differences, reason)
