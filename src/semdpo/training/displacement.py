"""Watches for likelihood displacement: the chosen rewrites themselves become less and less probable."""

from __future__ import annotations

from itertools import pairwise

STEPS = 20  # of one look
LOOKS = 4  # each lower than the one before
NATS = 1.0  # by so much at least, over all looks


class Displacement:
    """Tells, once, when log π(chosen) has been falling for a long time."""

    def __init__(self) -> None:
        self._values: list[float] = []
        self._means: list[float] = []
        self._said = False

    def seen(self, change: float) -> str:
        """Notes one step's mean change of log π(chosen) against the reference.

        Args:
            change: in nats.

        Returns:
            A warning to print, or nothing.
        """
        self._values.append(change)
        if self._said or len(self._values) < STEPS:
            return ""
        self._means.append(sum(self._values) / len(self._values))
        self._values = []
        last = self._means[-LOOKS:]
        falling = len(last) == LOOKS and all(b < a for a, b in pairwise(last))
        if not falling or last[0] - last[-1] < NATS or last[-1] >= 0:
            return ""
        self._said = True
        return (
            f"the chosen rewrites keep getting less probable ({last[-1]:.1f} nats against the reference): preference "
            "is learnt by pushing both sides down; set nll_coef to 0.1 or more, which adds an SFT term on the chosen"
        )
