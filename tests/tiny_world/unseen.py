"""Looks for the held-out combinations in texts, without `facts`."""

from __future__ import annotations

import re

from semdpo.tiny_world.grammar import HELD_OUT, THING_WORDS

_NAMES = [f"{color} {word}" for thing, color in HELD_OUT for word in THING_WORDS.get(thing, (thing,))]
_UNSEEN = re.compile(rf"\b(?:{'|'.join(sorted(set(_NAMES)))})\b", re.IGNORECASE)


def names_unseen(text: str) -> bool:
    """Whether a text names a thing in a colour that no model may have read it in."""
    return _UNSEEN.search(text) is not None
