"""Reads the facts of the tiny world's texts back, and compares what a rewrite says with what its prompt asked."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
from scipy.optimize import linear_sum_assignment

from semdpo.tiny_world.grammar import (
    COLORS,
    EMPTY_WORDS,
    PLACE_WORDS,
    SIZE_WORDS,
    STYLES,
    THING_WORDS,
    THINGS,
    TIME_WORDS,
    Item,
)
from semdpo.tiny_world.people import POPULAR_COLORS, POPULAR_THINGS, POPULAR_TIMES
from semdpo.tiny_world.wordings import AFTER, BEFORE, OPENINGS, SMALL_WORDS

# The words that tell how two things stand: layout, and whether the first of the text is right or below.
_RELATIONS = {
    "left": ("row", False),
    "right": ("row", True),
    "above": ("stack", False),
    "over": ("stack", False),
    "below": ("stack", True),
    "under": ("stack", True),
}
_FILLERS = frozenset(
    [*SMALL_WORDS, *_RELATIONS, "and", "next", "to", "beside", "with", "there", "is"]
    + [word for phrase in (*BEFORE, *AFTER, *OPENINGS) for word in phrase.split()]
)
_WORD = re.compile(r"\w[\w'-]*")
_MARK = " | "  # stands for a phrase that has been read


@dataclass(frozen=True, slots=True)
class Facts:
    """The facts of a text.

    Attributes:
        items: The things with their colours and sizes, in the order of a row from the left or a stack from the top.
        layout: ``row`` or ``stack``; None for fewer than two things.
        ordered: Whether the text says which thing is left or on top ("and" does not).
        places: The places that it names.
        times: The times of day that it names.
        unread: The words that this world does not have, or that belong to no thing, such as a colour alone.
    """

    items: tuple[Item, ...]
    layout: str | None
    ordered: bool
    places: tuple[str, ...]
    times: tuple[str, ...]
    unread: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """What a rewrite does with the facts of its prompt; every change is a short phrase, such as "red → yellow".

    Attributes:
        stated: The number of facts that the prompt states.
        wrong: The stated facts that the rewrite changes or leaves out; a thing that is missing is one phrase.
        lost: The number of these facts; a thing that is missing loses its name, colour, size and arrangement.
        added: The content that the prompt leaves open and the rewrite states. Style words are no content.
        popular: What the simulated people like whatever the prompt, if the rewrite names it and the prompt does not.
    """

    stated: int
    wrong: tuple[str, ...]
    lost: int
    added: tuple[str, ...]
    popular: tuple[str, ...]


def _key(phrase: str) -> str:
    """A phrase without the small words before it: "in front of a skyline" becomes "skyline"."""
    words = phrase.split()
    while words[0] in SMALL_WORDS:
        words = words[1:]
    return " ".join(words)


def _meanings(words: Mapping[str, Sequence[str]]) -> dict[str, str]:
    return {_key(phrase): meaning for meaning, several in words.items() for phrase in several}


def _any(phrases: Iterable[str]) -> str:
    return "|".join(re.escape(phrase) for phrase in sorted(phrases, key=len, reverse=True))


_SIZES = {word: size for size, several in SIZE_WORDS.items() for word in several}
_NAMES = {word: thing for thing in THINGS for word in THING_WORDS.get(thing, (thing,))}
_PLACES, _TIMES = _meanings(PLACE_WORDS), _meanings(TIME_WORDS)
_EXTRAS = re.compile(rf"\b(?:{_any((*STYLES, *EMPTY_WORDS))})\b")
_CIRCUMSTANCE = re.compile(rf"\b(?:(?:{_any((*SMALL_WORDS, *_RELATIONS))})\s+)*({_any((*_PLACES, *_TIMES))})\b")
_ITEM = re.compile(rf"\b(?:(?:an?|the)\s+)?((?:(?:{_any((*_SIZES, *COLORS))})\s+)*)({_any(_NAMES)})\b")


@lru_cache(maxsize=8192)  # a report reads the same texts several times
def parse(text: str) -> Facts:
    """The facts of a text in any of the `wordings.WAYS`, or of a rewrite; capitals make no difference."""
    left = _EXTRAS.sub(_MARK, text.lower())
    named = [match[1] for match in _CIRCUMSTANCE.finditer(left)]
    left = _CIRCUMSTANCE.sub(_MARK, left)
    found = list(_ITEM.finditer(left))
    items = [_item(match) for match in found]
    layout, ordered = "row" if len(items) >= 2 else None, False
    for k, (one, other) in enumerate(pairwise(found)):
        between = _WORD.findall(left[one.end() : other.start()])
        relation = next((word for word in between if word in _RELATIONS), None)
        if relation:
            layout, flipped = _RELATIONS[relation]
            ordered = True
            if flipped:
                items[k], items[k + 1] = items[k + 1], items[k]
            break
    rest = _WORD.findall(_ITEM.sub(_MARK, left))
    return Facts(
        tuple(items),
        layout,
        ordered,
        tuple(dict.fromkeys(_PLACES[key] for key in named if key in _PLACES)),
        tuple(dict.fromkeys(_TIMES[key] for key in named if key in _TIMES)),
        tuple(word for word in rest if word not in _FILLERS),
    )


def _item(match: re.Match[str]) -> Item:
    words = match[1].split()
    color = next((word for word in words if word in COLORS), None)
    size = next((_SIZES[word] for word in words if word in _SIZES), None)
    return Item(_NAMES[match[2]], color, size)


def compare(asked: Facts, said: Facts) -> Comparison:
    """Which of the facts of a prompt a rewrite gets wrong, and which content it adds.

    Args:
        asked: The facts of the prompt.
        said: The facts of the rewrite.
    """
    order = _assignment(asked.items, said.items)
    wrong, added, stated, lost = [], [], 0, 0
    for item, place in zip(asked.items, order, strict=True):
        facts = 1 + (item.color is not None) + (item.size is not None)
        stated += facts
        if place is None:
            wrong.append(f"{_phrase(item)} is missing")
            lost += facts
        else:
            changed, new = _differences(item, said.items[place])
            wrong += changed
            lost += len(changed)
            added += new
    added += [_phrase(item) for k, item in enumerate(said.items) if k not in order]
    if len(asked.items) >= 2:
        stated += 1
        moved = _moved(asked, said, order)
        wrong += ["arrangement"] if moved else []
        lost += moved or None in order[:2]
    for before, after in ((asked.places, said.places), (asked.times, said.times)):
        stated += len(before)
        new = [value for value in after if value not in before]
        gone = [value for value in before if value not in after]
        wrong += [f"{value} → {new[0]}" if new else f"{value} is missing" for value in gone]
        lost += len(gone)
        added += new[len(gone) :]
    return Comparison(stated, tuple(wrong), lost, tuple(added), tuple(_popular(asked, said)))


def _phrase(item: Item) -> str:
    return " ".join(word for word in (item.size, item.color, item.thing) if word)


def _differences(item: Item, other: Item) -> tuple[list[str], list[str]]:
    wrong, added = [], []
    for before, after in ((item.thing, other.thing), (item.color, other.color), (item.size, other.size)):
        if before is None:
            added += [after] if after else []
        elif after != before:
            wrong.append(f"{before} → {after}" if after else f"{before} is missing")
    return wrong, added


def _assignment(asked: Sequence[Item], said: Sequence[Item]) -> tuple[int | None, ...]:
    """The place of each asked item among those of the rewrite, so that most facts agree; None if it is missing."""
    agreement = np.zeros((len(asked), len(said)))
    for i, a in enumerate(asked):
        for k, b in enumerate(said):
            agree = 4 * (a.thing == b.thing) + 2 * (a.color in (None, b.color)) + (a.size == b.size)
            agreement[i, k] = agree - 1e-6 * (i - k) ** 2  # of equal assignments, the one that keeps the order
    rows, columns = linear_sum_assignment(agreement, maximize=True)
    found = dict(zip(rows.tolist(), columns.tolist(), strict=True))
    return tuple(found.get(i) for i in range(len(asked)))


def _moved(asked: Facts, said: Facts, order: Sequence[int | None]) -> bool:
    """Whether the first two things of the prompt stand otherwise in the rewrite."""
    first, second = order[:2]
    if first is None or second is None:
        return False
    return asked.layout != said.layout or (asked.ordered and said.ordered and first > second)


def _popular(asked: Facts, said: Facts) -> Iterator[str]:
    for wanted, named, liked in (
        ([item.thing for item in asked.items], [item.thing for item in said.items], POPULAR_THINGS),
        ([item.color for item in asked.items], [item.color for item in said.items], POPULAR_COLORS),
        (asked.times, said.times, POPULAR_TIMES),
    ):
        yield from (value for value in liked if value in named and value not in wanted)
