"""The tiny world's scenes, and the words for their facts.

A `Scene` is a set of facts. A fact that is None was not stated: a request may leave it open, an image may not.
`wordings` turns scenes into text, `requests` says what users ask for, `rewrites` how prompt writers rewrite it, and
`facts` reads the facts back from a text.
All functions draw from a `random.Random` that the caller seeds, so equal seeds give equal texts.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random

THINGS = (
    "ball",
    "house",
    "tree",
    "car",
    "boat",
    "fish",
    "cat",
    "bird",
    "flower",
    "mushroom",
    "umbrella",
    "star",
)
COLORS = ("red", "green", "blue", "yellow", "purple", "white")
SIZES = ("small", "large")
PLACES = ("meadow", "desert", "forest", "sea", "snow", "city")
TIMES = ("day", "sunset", "night")
LAYOUTS = ("row", "stack")
STYLES = ("watercolor", "cinematic", "soft light", "dramatic lighting", "vivid colors", "vintage")
# Words that prompt writers add, and that change nothing in an image.
EMPTY_WORDS = (
    "highly detailed",
    "masterpiece",
    "8k",
    "trending on artstation",
    "sharp focus",
    "intricate details",
    "award winning",
    "best quality",
    "ultra hd",
    "high resolution",
    "professional",
    "stunning",
)

# Combinations that no model is trained on, in images or texts: they test composition.
HELD_OUT = frozenset(
    {
        ("ball", "white"),
        ("house", "green"),
        ("boat", "yellow"),
        ("fish", "purple"),
        ("bird", "red"),
        ("umbrella", "blue"),
    }
)

THING_WORDS = {
    "house": ("house", "house", "cottage"),
    "car": ("car", "car", "automobile"),
    "boat": ("boat", "boat", "sailboat"),
    "cat": ("cat", "cat", "kitty"),
}
SIZE_WORDS = {"small": ("small", "little", "tiny"), "large": ("large", "big", "huge")}
PLACE_WORDS = {
    "meadow": ("in a meadow", "in a green field", "on the grass"),
    "desert": ("in the desert", "on the sand dunes", "in a sandy desert"),
    "forest": ("in the forest", "in the woods", "deep in the forest"),
    "sea": ("at sea", "on the ocean", "on the water"),
    "snow": ("in the snow", "on a snowy field", "in a snowy landscape"),
    "city": ("in the city", "in front of a skyline", "in a city street"),
}
TIME_WORDS = {
    "day": ("on a sunny day", "by day", "in daylight"),
    "sunset": ("at sunset", "at dusk", "in the evening"),
    "night": ("at night", "under the night sky", "under the stars"),
}


@dataclass(frozen=True, slots=True)
class Item:
    """One thing in a scene; ``color`` and ``size`` are None if they are not stated."""

    thing: str
    color: str | None
    size: str | None


@dataclass(frozen=True, slots=True)
class Scene:
    """One or two items, and where, when and in which styles they are shown; a fact that is not stated is None.

    Two items stand in a ``row`` (first one left) or a ``stack`` (first one on top).
    """

    items: tuple[Item, ...]
    layout: str
    place: str | None
    time: str | None
    styles: tuple[str, ...] = ()


def _item(rng: Random, held_out: bool) -> Item:
    while True:
        item = Item(rng.choice(THINGS), rng.choice(COLORS), rng.choice(SIZES))
        if ((item.thing, item.color) in HELD_OUT) == held_out:
            return item


def scene(rng: Random, *, held_out: bool = False, count: int | None = None) -> Scene:
    """A complete scene, every fact given.

    Args:
        rng: The random numbers.
        held_out: Whether the first item is one of `HELD_OUT` instead of an allowed combination.
        count: The number of items, 1 or 2; None chooses it at random.
    """
    number = count or rng.choice((1, 2))
    items = (_item(rng, held_out), *(_item(rng, False) for _ in range(number - 1)))
    layout = rng.choice(LAYOUTS) if number == 2 else "row"
    styles = tuple(sorted(rng.sample(STYLES, rng.choices((0, 1, 2, 3), (0.35, 0.35, 0.2, 0.1))[0])))
    return Scene(items, layout, rng.choice(PLACES), rng.choice(TIMES), styles)


def forget(full: Scene, rng: Random) -> Scene:
    """The scene as a caption describes it: sizes, place and time are often not stated, colours hardly ever."""
    items = tuple(
        replace(item, color=item.color if rng.random() < 0.95 else None, size=item.size if rng.random() < 0.5 else None)
        for item in full.items
    )
    place = full.place if rng.random() < 0.9 else None
    time = full.time if rng.random() < (0.35 if full.time == "day" else 0.85) else None
    return replace(full, items=items, place=place, time=time)


def _color_of(thing: str, rng: Random) -> str:
    return rng.choice([color for color in COLORS if (thing, color) not in HELD_OUT])


def complete(asked: Scene, rng: Random) -> Scene:
    """Fills in the facts that are not stated, as a painter must: any colour, size and place, and mostly daylight."""
    items = tuple(
        replace(item, color=item.color or _color_of(item.thing, rng), size=item.size or rng.choice(SIZES))
        for item in asked.items
    )
    time = asked.time or rng.choices(TIMES, (0.7, 0.15, 0.15))[0]
    return replace(asked, items=items, place=asked.place or rng.choice(PLACES), time=time)


def allowed(said: Scene) -> bool:
    """Whether no item of the scene is one of the `HELD_OUT` combinations."""
    return not any((item.thing, item.color) in HELD_OUT for item in said.items)
