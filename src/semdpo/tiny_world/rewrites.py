"""How prompt writers rewrite a request: the same facts as a caption, often more content, and a tail of style words.

The shares follow 2300 real rewrites of DiffusionDB: 31% add things or attributes, 18% a place, 9% a time of day or
weather, 44% any of these, and they are three times as long as the prompt. Rewrites that contradict the prompt are rare.
"""

from __future__ import annotations

from dataclasses import replace
from random import Random

from semdpo.tiny_world.grammar import (
    COLORS,
    HELD_OUT,
    LAYOUTS,
    PLACE_WORDS,
    PLACES,
    STYLES,
    THINGS,
    TIME_WORDS,
    Item,
    Scene,
    allowed,
)
from semdpo.tiny_world.requests import Request
from semdpo.tiny_world.wordings import Wording, compose, decorate, name

# The probabilities of an addition where the request leaves it open, and of a rewrite that gets a fact wrong.
ADD_THING, ADD_PLACE, ADD_TIME, SLIP = 0.45, 0.42, 0.15, 0.02
# The content that prompt writers like: popular content more often than chance.
FAVOURITE_THINGS = ("cat", "flower", "cat", "flower", *THINGS)
FAVOURITE_COLORS = ("purple", "purple", *COLORS)
FAVOURITE_TIMES = ("sunset", "sunset", "sunset", "night", "day")


def slip(said: Scene, rng: Random) -> Scene:
    """The scene with one stated fact exchanged: a thing, a colour, the place or the time."""
    while True:
        index = rng.randrange(len(said.items))
        item = said.items[index]
        color = rng.choice(FAVOURITE_COLORS) if item.color else None
        changed = rng.choice(
            [
                replace(said, items=_exchanged(said, index, replace(item, thing=rng.choice(FAVOURITE_THINGS)))),
                replace(said, items=_exchanged(said, index, replace(item, color=color))),
                replace(said, place=rng.choice(PLACES) if said.place else None),
                replace(said, time=rng.choice(FAVOURITE_TIMES) if said.time else None),
            ]
        )
        if changed != said and allowed(changed):
            return changed


def _exchanged(said: Scene, index: int, item: Item) -> tuple[Item, ...]:
    return (*said.items[:index], item, *said.items[index + 1 :])


def add(request: Request, rng: Random) -> Wording:
    """The request's wording as a caption, with content that nobody asked for where the request leaves it open."""
    asked, wording = request.asked, replace(request.wording, opening="")
    if len(asked.items) == 1 and rng.random() < ADD_THING:
        item = Item(rng.choice(FAVOURITE_THINGS), rng.choice(FAVOURITE_COLORS), None)
        while (item.thing, item.color) in HELD_OUT:
            item = Item(rng.choice(FAVOURITE_THINGS), rng.choice(FAVOURITE_COLORS), None)
        relation = rng.choice(("above", "over")) if rng.choice(LAYOUTS) == "stack" else rng.choice(("and", "next to"))
        wording = replace(wording, items=(*wording.items, name(item, rng)), relation=relation)
    circumstances = [*wording.circumstances]
    if asked.place is None and rng.random() < ADD_PLACE:
        circumstances.append(rng.choice(PLACE_WORDS[rng.choice(PLACES)]))
    if asked.time is None and rng.random() < ADD_TIME:
        circumstances.append(rng.choice(TIME_WORDS[rng.choice(FAVOURITE_TIMES)]))
    return replace(wording, circumstances=tuple(circumstances))


def tail(text: str, rng: Random) -> str:
    """The text with the style words and empty words that prompt writers append."""
    styles = rng.sample(STYLES, rng.choices((0, 1, 2, 3), (0.1, 0.3, 0.35, 0.25))[0])
    return decorate(text, styles, rng.choices(range(7), (0.1, 0.15, 0.2, 0.2, 0.15, 0.1, 0.1))[0], rng)


def rewrite(request: Request, rng: Random, slips: float = SLIP) -> str:
    """A rewrite of a request by a practised prompt writer.

    Args:
        request: The request.
        rng: The random numbers.
        slips: The share of rewrites that get a fact wrong.
    """
    if allowed(request.asked) and rng.random() < slips:
        return tail(compose(slip(request.asked, rng), rng).text, rng)
    return tail(add(request, rng).text, rng)
