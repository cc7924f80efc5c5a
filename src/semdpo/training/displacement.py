"""Detects likelihood displacement: the chosen rewrites themselves become less and less probable."""

from __future__ import annotations

from itertools import pairwise

STEPS = 20  # steps per window
WINDOWS = 4  # consecutive windows whose means must fall
NATS = 1.0  # smallest total fall over these windows, in nats


class Displacement:
    """Warns once when log π(chosen) has been falling for a long time."""

    def __init__(self) -> None:
        self._values: list[float] = []
        self._means: list[float] = []
        self._warned = False

    def seen(self, change: float) -> str:
        """Records one step's mean change of log π(chosen) relative to the reference.

        Args:
            change: the change, in nats.

        Returns:
            A warning to print; "" where there is none.
        """
        self._values.append(change)
        if self._warned or len(self._values) < STEPS:
            return ""
        self._means.append(sum(self._values) / len(self._values))
        self._values = []
        last = self._means[-WINDOWS:]
        falling = len(last) == WINDOWS and all(b < a for a, b in pairwise(last))
        if not falling or last[0] - last[-1] < NATS or last[-1] >= 0:
            return ""
        self._warned = True
        return (
            f"the chosen rewrites keep getting less probable ({last[-1]:.1f} nats relative to the reference): training "
            "lowers the probability of both rewrites; set nll_coef to 0.1 or more, which adds an SFT term on the chosen"
        )
