"""Numbers as people read them."""

from __future__ import annotations

import math

from semdpo.analysis.statistics import Difference, Estimate


def decimals(half_width: float) -> int:
    """Decimal places that tell values apart by a third of an interval's half width, at least 0 and at most 5."""
    if not half_width > 0:
        return 2
    return int(min(5, max(0, -math.floor(math.log10(half_width / 3)))))


def number(value: float, places: int, *, sign: bool = False) -> str:
    """A number with a true minus sign; ``sign`` also writes the plus. A rounded zero carries no sign."""
    text = f"{value:+.{places}f}" if sign else f"{value:.{places}f}"
    if not any(digit in text for digit in "123456789"):
        text = text.lstrip("+-")
    return text.replace("-", "−")


def duration(seconds: float) -> str:
    """A time in the unit that people would say it in."""
    if seconds < 120:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.1f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"


def p_value(p: float) -> str:
    """A p-value as journals print it."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def interval(e: Estimate, places: int) -> tuple[str, str]:
    """A mean, and its interval in brackets."""
    return number(e.mean, places), f"[{number(e.low, places)}, {number(e.high, places)}]"


def signed(d: Difference) -> tuple[str, str]:
    """A difference with its sign, and its interval in brackets."""
    places = decimals((d.high - d.low) / 2)
    # An end that lies off zero must not read as zero: the words beside it depend on its sign.
    while places < 5 and any(end and not round(end, places) for end in (d.low, d.high)):
        places += 1
    low, high = (number(end, places, sign=True) for end in (d.low, d.high))
    return number(d.mean, places, sign=True), f"[{low}, {high}]"
