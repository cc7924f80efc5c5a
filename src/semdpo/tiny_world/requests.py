"""What users ask for: facts that leave much open, and a prompt that is typed in any of many ways."""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random

from semdpo.tiny_world.grammar import Scene, scene
from semdpo.tiny_world.wordings import Wording, as_typed, compose

# The probabilities that a request is for one thing, and that it states a thing's colour, a thing's size and the place.
ONE_THING, COLOR, SIZE, PLACE = 0.65, 0.92, 0.3, 0.6
# The probability that it states the time: sunset and night more often than day, which goes without saying.
TIME, DAYLIGHT = 0.5, 0.15


@dataclass(frozen=True, slots=True)
class Request:
    """A user's request.

    Attributes:
        asked: The facts that it states; the others are None.
        wording: A caption of these facts, in pieces.
        prompt: The text that the user typed.
    """

    asked: Scene
    wording: Wording
    prompt: str


def request(rng: Random, *, held_out: bool = False, count: int | None = None) -> Scene:
    """The facts of a request. It is for one thing in 65%, and states the place in 60% and the time in 38%.

    Args:
        rng: The random numbers.
        held_out: Whether the first item is one of `grammar.HELD_OUT` instead of an allowed combination; its colour is
            then stated.
        count: The number of items, 1 or 2; None chooses it at random.
    """
    full = scene(rng, held_out=held_out, count=count or (1 if rng.random() < ONE_THING else 2))
    items = tuple(
        replace(
            item,
            color=item.color if rng.random() < COLOR or (held_out and item is full.items[0]) else None,
            size=item.size if rng.random() < SIZE else None,
        )
        for item in full.items
    )
    place = full.place if rng.random() < PLACE else None
    time = full.time if rng.random() < (DAYLIGHT if full.time == "day" else TIME) else None
    return replace(full, items=items, place=place, time=time, styles=())


def ask(rng: Random, *, held_out: bool = False, count: int | None = None) -> Request:
    """A user's request, with its prompt; arguments as in `request`."""
    return worded(request(rng, held_out=held_out, count=count), rng)


def worded(asked: Scene, rng: Random) -> Request:
    """A request for these facts, typed in one of the many ways."""
    wording = compose(asked, rng)
    return Request(asked, wording, as_typed(wording, rng))
