"""Numbers formatted for readers."""

from __future__ import annotations

import math

from semdpo.analysis.statistics import Difference, Estimate

ROUNDING = 1e-12  # half-width of an interval of equal numbers, whose mean is off by rounding


def decimals(half_width: float) -> int:
    """Decimal places, 0 to 5, that resolve a third of an interval's half-width; 2 where all values are equal."""
    if not half_width > ROUNDING:
        return 2
    return int(min(5, max(0, -math.floor(math.log10(half_width / 3)))))


def number(value: float, places: int, *, sign: bool = False) -> str:
    """A number with a true minus sign; ``sign=True`` also writes a plus. A number that rounds to 0 has no sign."""
    text = f"{value:+.{places}f}" if sign else f"{value:.{places}f}"
    if not any(digit in text for digit in "123456789"):
        text = text.lstrip("+-")
    return text.replace("-", "−")


def duration(seconds: float) -> str:
    """A duration in seconds, minutes or hours, whichever suits its length."""
    if seconds < 120:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.1f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"


def p_value(p: float) -> str:
    """A p-value with three decimal places, or ``< 0.001``."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def interval(e: Estimate, places: int) -> tuple[str, str]:
    """A mean, and its confidence interval in brackets."""
    return number(e.mean, places), f"[{number(e.low, places)}, {number(e.high, places)}]"


def signed(d: Estimate | Difference) -> tuple[str, str]:
    """A difference with its sign, and its confidence interval in brackets."""
    places = decimals((d.high - d.low) / 2)
    # A bound that is not 0 must not be printed as 0: the verdict depends on its sign.
    while places < 5 and any(bound and not round(bound, places) for bound in (d.low, d.high)):
        places += 1
    low, high = (number(bound, places, sign=True) for bound in (d.low, d.high))
    return number(d.mean, places, sign=True), f"[{low}, {high}]"
