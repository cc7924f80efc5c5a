"""Krippendorff's alpha: how far raters agree with each other, beyond what chance makes them agree."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from semdpo import extras
from semdpo.study.analysis.rates import value
from semdpo.study.design import Judgement

COLUMN = {1.0: 0, 0.0: 1, 0.5: 2}


def alpha(rows: Sequence[Judgement], question: str) -> float | None:
    """Krippendorff's alpha of one question; a unit is a pair of methods on a prompt, and its values are nominal.

    Args:
        rows: judgements of all kinds; repeats and attention checks do not count.
        question: the question's name.

    Returns:
        Alpha: 1 where raters agree, 0 where they agree as often as by chance. None where it is not defined: no unit
        has two votes, or all votes are equal.

    Raises:
        ConfigError: the extra ``study`` is not installed.

    Source: Krippendorff 2011, "Computing Krippendorff's alpha-reliability"; the library ``krippendorff``.
    """
    extras.require(study="the analysis of a study")
    import krippendorff

    units: dict[tuple[str, str, str], list[int]] = {}
    for row in rows:
        if row.kind == "comparison" and row.question == question:
            first, second = sorted((row.left_method, row.right_method))
            units.setdefault((row.prompt_id, first, second), [0, 0, 0])[COLUMN[value(row, first)]] += 1
    counts = np.array([unit for unit in units.values() if sum(unit) > 1])
    if not counts.size or (counts.sum(0) > 0).sum() < 2:
        return None
    return float(krippendorff.alpha(value_counts=counts, level_of_measurement="nominal"))
