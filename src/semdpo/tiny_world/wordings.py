"""How scenes are put into words: captions of images, and what users type instead of a caption."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random

from semdpo.tiny_world.grammar import (
    EMPTY_WORDS,
    PLACE_WORDS,
    SIZE_WORDS,
    THING_WORDS,
    TIME_WORDS,
    Item,
    Scene,
    forget,
)

OPENINGS = ("", "", "", "a picture of ", "a photo of ", "an image of ")
BEFORE = (
    "i want ",
    "i would like ",
    "draw ",
    "draw me ",
    "please draw ",
    "show me ",
    "make ",
    "can you draw ",
    "could you make ",
    "i need a picture of ",
    "please make a picture of ",
)
AFTER = ("", "", "", " please", " thanks", " for me")

# How users word a prompt, and the share of each way. Of 2300 real prompts (DiffusionDB), 42% have no article and 19%
# neither article nor preposition. As a caption "a red ball in the snow", without articles "red ball in snow",
# telegraphic "red ball snow", as tags "red ball, snow", chatty "draw me a red ball in the snow please".
WAYS = {"caption": 0.5, "without articles": 0.2, "telegraphic": 0.1, "tags": 0.1, "chatty": 0.1}
CAPITAL, FULL_STOP = 0.09, 0.03  # the shares of prompts that begin with a capital (as there), or end with a full stop

_ARTICLES = frozenset(("a", "an", "the"))
# The words before a place or a time that a telegraphic prompt and tags leave out.
SMALL_WORDS = _ARTICLES | {"in", "on", "at", "by", "under", "deep", "front", "of"}


@dataclass(frozen=True, slots=True)
class Wording:
    """One wording of a scene's facts, in pieces.

    Attributes:
        items: The names of the things, one or two, in the order of the text.
        relation: The words between two names; empty for one.
        circumstances: The words for place and time, in the order of the text.
        opening: The words before the first name, such as "a photo of ".
        in_front: Whether the circumstances come first.
    """

    items: tuple[str, ...]
    relation: str
    circumstances: tuple[str, ...]
    opening: str = ""
    in_front: bool = False

    @property
    def text(self) -> str:
        """The pieces as a caption."""
        subject = self.opening + f" {self.relation} ".join(self.items)
        if self.circumstances and self.in_front:
            return f"{' '.join(self.circumstances)}, {subject}"
        return " ".join([subject, *self.circumstances])


def name(item: Item, rng: Random) -> str:
    """One of the names of an item, with its article."""
    size = [rng.choice(SIZE_WORDS[item.size])] if item.size else []
    color = [item.color] if item.color else []
    words = [*size, *color, rng.choice(THING_WORDS.get(item.thing, (item.thing,)))]
    return " ".join(["an" if words[0][0] in "aeiou" else "a", *words])


def compose(said: Scene, rng: Random) -> Wording:
    """One of the many wordings of a scene's facts, without its styles."""
    names = tuple(name(item, rng) for item in said.items)
    relation = ""
    if len(names) == 2:
        if said.layout == "stack":
            relation = rng.choice(("above", "over", "below"))
        else:
            relation = rng.choice(("and", "and", "next to", "beside", "to the left of", "to the right of"))
        if relation in ("below", "to the right of"):
            names = names[::-1]
    where = [rng.choice(PLACE_WORDS[said.place])] if said.place else []
    when = [rng.choice(TIME_WORDS[said.time])] if said.time else []
    circumstances = tuple(where + when if rng.random() < 0.7 else when + where)
    return Wording(names, relation, circumstances, rng.choice(OPENINGS), rng.random() < 0.15)


def wording(said: Scene, rng: Random) -> str:
    """One of the many captions of a scene's facts, without its styles."""
    return compose(said, rng).text


def _without(words: frozenset[str], text: str) -> str:
    return " ".join(word for word in text.split() if word not in words)


def say(wording: Wording, way: str, rng: Random) -> str:
    """A wording's facts in one of the `WAYS` that users write prompts."""
    if way == "caption":
        return wording.text
    if way == "without articles":
        return _without(_ARTICLES, wording.text)
    if way == "chatty":
        before = rng.choice(BEFORE)
        opening = "" if before.endswith(" of ") else wording.opening
        return before + replace(wording, opening=opening, in_front=False).text + rng.choice(AFTER)
    between = {"and": "", "next to": "", "beside": "", "to the left of": "left of", "to the right of": "right of"}
    relation = between.get(wording.relation, wording.relation)
    names = [_without(_ARTICLES, one) for one in wording.items]
    circumstances = [_without(SMALL_WORDS, one) for one in wording.circumstances]
    if way == "telegraphic":
        return " ".join([(f" {relation} " if relation else " ").join(names), *circumstances])
    return ", ".join([*([f" {relation} ".join(names)] if relation else names), *circumstances])


def as_typed(wording: Wording, rng: Random) -> str:
    """A wording as users type it: in any of the `WAYS`, sometimes with a capital or a full stop."""
    text = say(wording, rng.choices(list(WAYS), list(WAYS.values()))[0], rng)
    if rng.random() < CAPITAL:
        text = text[0].upper() + text[1:]
    return text + "." if rng.random() < FULL_STOP else text


def written(wording: Wording, casual: float, rng: Random) -> str:
    """A wording as a caption, or, with the probability ``casual``, in any of the other `WAYS`."""
    if rng.random() >= casual:
        return wording.text
    ways = {way: share for way, share in WAYS.items() if way != "caption"}
    return say(wording, rng.choices(list(ways), list(ways.values()))[0], rng)


def decorate(text: str, styles: Sequence[str], empty: int, rng: Random) -> str:
    """Appends the styles and ``empty`` words without effect after commas, in random order."""
    extras = [*styles, *rng.sample(EMPTY_WORDS, empty)]
    rng.shuffle(extras)
    return ", ".join([text, *extras])


@dataclass(frozen=True, slots=True)
class Captions:
    """How a collection of captions is written.

    Attributes:
        style: The probability that a caption names a style of its image, for each style.
        casual: The share of captions in the wordings of users instead of sentences.
        empty: The share of captions with words that have no effect, one to six of them.
    """

    style: float
    casual: float
    empty: float


# The captions that the encoders and fidelity scorers read: as on the web, few name a style.
WEB = Captions(style=0.08, casual=0.25, empty=0.25)
# The captions that tiny:sd learns from: whole sentences, and enough style words to learn what they look like.
DESCRIPTIVE = Captions(style=0.5, casual=0.0, empty=0.4)


def caption(full: Scene, rng: Random, captions: Captions = WEB) -> tuple[str, Scene]:
    """A caption of an image, and the facts that it states: most facts, and some of the styles."""
    styles = tuple(style for style in full.styles if rng.random() < captions.style)
    said = replace(forget(full, rng), styles=styles)
    text = written(compose(said, rng), captions.casual, rng)
    return decorate(text, styles, rng.randint(1, 6) if rng.random() < captions.empty else 0, rng), said
