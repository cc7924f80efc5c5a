"""What counts as a text: its outer blanks, whether a person can see it, and how it is shown on a terminal."""

from __future__ import annotations

import re
import unicodedata

_BLANK = r"[\s\u200b\u2060\ufeff]+"  # zero-width space, word joiner and byte order mark are no words' beginning
_OUTER = re.compile(rf"\A{_BLANK}|{_BLANK}\Z")
_HALF = re.compile("[\ud800-\udfff]")
# Unicode's "default ignorable" letters and marks, and blank ones: they have other categories than C and Z.
_UNSEEN = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0000-\U000e0fff]"
)
# What would steer a terminal or reverse the order of what stands there.
_STEERING = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def trimmed(text: str) -> str:
    """A text without outer blanks, zero-width ones among them: what is learnt, embedded and compared."""
    return _OUTER.sub("", text)


def is_visible(text: str) -> bool:
    """Whether a person would see anything: blanks, control, format and zero-width characters show nothing."""
    return any(unicodedata.category(each)[0] not in "CZ" or _odd(each) for each in _UNSEEN.sub("", text))


def _odd(character: str) -> bool:
    """Private use and characters newer than this Python: a font may show them."""
    return unicodedata.category(character) in ("Co", "Cn")


def hidden(text: str) -> str:
    """The code points of a text that shows nothing, for a message; empty where it has ordinary blanks only."""
    return ", ".join(dict.fromkeys(f"U+{ord(each):04X}" for each in text if not each.isspace()))


def half_character(text: str) -> str | None:
    """The first lone surrogate of a text as ``\\ud83d``; None where the text can be written as UTF-8."""
    found = _HALF.search(text)
    return None if found is None else f"\\u{ord(found.group()):04x}"


def printable(text: str, *, lines: bool = False) -> str:
    """A text that no terminal takes for a command: control characters become ``\\x1b`` and the like.

    Args:
        text: anything a user's file may hold.
        lines: leave line ends as they are.
    """
    return _STEERING.sub(lambda m: m.group() if lines and m.group() == "\n" else _escaped(m.group()), text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


def shown(value: object, most: int = 60) -> str:
    """A value of a user's, short and in quotes, for a message."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a number of thousands of digits, a list within itself
        return f"a {type(value).__name__} that is too long to show"
    return text if len(text) <= most + 2 else f"{text[:most]}…"
