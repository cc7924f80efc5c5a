"""Texts: their outer blanks, whether a person can see them, and how a terminal shows them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

# With the zero-width space, the word joiner and the byte order mark; U+3000 is the last of Unicode's blanks.
_BLANKS = "".join(filter(str.isspace, map(chr, range(0x3001)))) + "\u200b\u2060\ufeff"
_HALF = re.compile("[\ud800-\udfff]")
# Characters that show nothing although their category is neither C nor Z: default ignorable or blank in Unicode.
_UNSEEN = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0000-\U000e0fff]"
)
# Characters that a terminal takes for commands, or that reverse the order of the text.
_STEERING = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def trimmed(text: str) -> str:
    """A text without outer blanks, zero-width ones included: the form that is trained on, embedded and compared."""
    return text.strip(_BLANKS)  # a pattern would take the square of the length of the blanks within the text


def is_visible(text: str) -> bool:
    """Whether a person sees anything of a text: blank, control, format and zero-width characters show nothing."""
    return any(unicodedata.category(char)[0] not in "CZ" or _is_odd(char) for char in _UNSEEN.sub("", text))


def _is_odd(character: str) -> bool:
    """Whether a character is for private use or newer than this Python; a font may show such characters."""
    return unicodedata.category(character) in ("Co", "Cn")


def hidden(text: str) -> str:
    """The code points of an invisible text, for a message; empty where it has ordinary blanks only."""
    return ", ".join(dict.fromkeys(f"U+{ord(char):04X}" for char in text if not char.isspace()))


def given_twice(names: Iterable[str]) -> str | None:
    """The first name that was there before; None where all differ."""
    seen = set[str]()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


def half_character(text: str) -> str | None:
    """The first lone surrogate of a text as ``\\ud83d``; None where the text can be written as UTF-8."""
    half = _HALF.search(text)
    return None if half is None else f"\\u{ord(half.group()):04x}"


def printable(text: str, *, lines: bool = False) -> str:
    """A text that is safe to print on a terminal: control characters are escaped, as ``\\x1b``.

    Args:
        text: any text from a user's file.
        lines: whether line ends stay as they are.
    """
    return _STEERING.sub(lambda m: m.group() if lines and m.group() == "\n" else _escaped(m.group()), text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


def shown(value: object, most: int = 60) -> str:
    """A user's value, shortened and in quotes, for a message.

    Args:
        value: any value.
        most: the length of the longest text that is not shortened, in characters.
    """
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a number of thousands of digits, a list within itself
        return f"a {type(value).__name__} that is too long to show"
    return text if len(text) <= most + 2 else f"{text[:most]}…"
