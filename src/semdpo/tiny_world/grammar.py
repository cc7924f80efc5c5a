"""The tiny world's scenes, the many ways to word them, and how prompt writers rewrite them.

A `Scene` is a set of facts. A fact that is None was not stated: a request may leave it open, an image may not.
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
EMPTY_WORDS = ("highly detailed", "masterpiece", "8k", "trending on artstation")

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
OPENINGS = ("", "", "", "a picture of ", "a photo of ", "an image of ")


@dataclass(frozen=True, slots=True)
class Item:
    """One thing in a scene; ``size`` is None if it is not stated."""

    thing: str
    color: str
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


def request(rng: Random, *, held_out: bool = False, count: int | None = None) -> Scene:
    """A user's request: a scene without styles, in which some facts are not stated."""
    return forget(replace(scene(rng, held_out=held_out, count=count), styles=()), rng)


def forget(full: Scene, rng: Random) -> Scene:
    """The scene as people describe it: sizes, place and time are often not stated, daylight least of all."""
    items = tuple(replace(item, size=item.size if rng.random() < 0.5 else None) for item in full.items)
    place = full.place if rng.random() < 0.9 else None
    time = full.time if rng.random() < (0.35 if full.time == "day" else 0.85) else None
    return replace(full, items=items, place=place, time=time)


def complete(asked: Scene, rng: Random) -> Scene:
    """Fills in the facts that are not stated, as a painter must: any size and place, and mostly daylight."""
    items = tuple(replace(item, size=item.size or rng.choice(SIZES)) for item in asked.items)
    time = asked.time or rng.choices(TIMES, (0.7, 0.15, 0.15))[0]
    return replace(asked, items=items, place=asked.place or rng.choice(PLACES), time=time)


def _name(item: Item, rng: Random) -> str:
    size = rng.choice(SIZE_WORDS[item.size]) + " " if item.size else ""
    return f"a {size}{item.color} {rng.choice(THING_WORDS.get(item.thing, (item.thing,)))}"


def _subject(said: Scene, rng: Random) -> str:
    names = [_name(item, rng) for item in said.items]
    if len(names) == 1:
        return names[0]
    first, second = names
    if said.layout == "stack":
        return rng.choice((f"{first} above {second}", f"{first} over {second}", f"{second} below {first}"))
    return rng.choice(
        (
            f"{first} and {second}",
            f"{first} and {second}",
            f"{first} next to {second}",
            f"{first} beside {second}",
            f"{first} to the left of {second}",
            f"{second} to the right of {first}",
        )
    )


def wording(said: Scene, rng: Random) -> str:
    """One of the many wordings of a scene's facts, without its styles."""
    where = [rng.choice(PLACE_WORDS[said.place])] if said.place else []
    when = [rng.choice(TIME_WORDS[said.time])] if said.time else []
    circumstances = where + when if rng.random() < 0.7 else when + where
    subject = rng.choice(OPENINGS) + _subject(said, rng)
    if circumstances and rng.random() < 0.15:
        return f"{' '.join(circumstances)}, {subject}"
    return " ".join([subject, *circumstances])


def decorate(text: str, styles: tuple[str, ...], empty: int, rng: Random) -> str:
    """Appends the styles and ``empty`` words without effect after commas, in random order."""
    extras = [*styles, *rng.sample(EMPTY_WORDS, empty)]
    rng.shuffle(extras)
    return ", ".join([text, *extras])


def caption(full: Scene, rng: Random) -> tuple[str, Scene]:
    """A caption of an image, and the facts that it states: most facts, and about half of the styles."""
    styles = tuple(style for style in full.styles if rng.random() < 0.5)
    said = replace(forget(full, rng), styles=styles)
    return decorate(wording(said, rng), styles, int(rng.random() < 0.25), rng), said


# The content that prompt writers add when they drift: popular content more often than chance.
_FAVOURITE_THINGS = ("cat", "flower", "cat", "flower", *THINGS)
_FAVOURITE_COLORS = ("purple", "purple", *COLORS)


def _drift_once(said: Scene, rng: Random) -> Scene:
    index = rng.randrange(len(said.items))
    items = list(said.items)
    change = rng.choices(("thing", "color", "time", "place", "count"), (0.3, 0.2, 0.2, 0.1, 0.2))[0]
    if change == "thing":
        items[index] = replace(items[index], thing=rng.choice(_FAVOURITE_THINGS))
    elif change == "color":
        items[index] = replace(items[index], color=rng.choice(_FAVOURITE_COLORS))
    elif change == "time":
        return replace(said, time=rng.choice(("sunset", "sunset", "night")))
    elif change == "place":
        return replace(said, place=rng.choice(PLACES))
    elif len(items) == 1:
        items.append(Item(rng.choice(_FAVOURITE_THINGS), rng.choice(COLORS), None))
        return replace(said, items=tuple(items), layout=rng.choice(LAYOUTS))
    else:
        del items[index]
        return replace(said, items=tuple(items), layout="row")
    return replace(said, items=tuple(items))


def _allowed(said: Scene) -> bool:
    return not any((item.thing, item.color) in HELD_OUT for item in said.items)


def drift(said: Scene, rng: Random) -> Scene:
    """The scene with one or two facts changed, mostly towards popular content."""
    changed = said
    for _ in range(rng.choice((1, 1, 2))):
        step = _drift_once(changed, rng)
        while not _allowed(step):
            step = _drift_once(changed, rng)
        changed = step
    return changed


def rewrite(said: Scene, prompt: str, rng: Random) -> str:
    """A rewrite of ``prompt`` by a practised prompt writer: styles, empty words, and in two of five cases drift.

    Args:
        said: The facts of the prompt.
        prompt: The prompt's wording, which most of the faithful rewrites keep.
        rng: The random numbers.
    """
    if rng.random() < 0.4:
        text = wording(drift(said, rng), rng)
    else:
        text = prompt if rng.random() < 0.7 else wording(said, rng)
    styles = tuple(rng.sample(STYLES, rng.choices((0, 1, 2, 3), (0.15, 0.35, 0.35, 0.15))[0]))
    return decorate(text, styles, rng.choices((0, 1, 2), (0.4, 0.4, 0.2))[0], rng)
