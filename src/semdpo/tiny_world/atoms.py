"""The embedded world's own atoms: the facts of a prompt as yes/no questions in its words, which `facts` reads back."""

from __future__ import annotations

import re

from semdpo.tiny_world.facts import Facts, parse
from semdpo.tiny_world.grammar import PLACE_WORDS, TIME_WORDS, Item

_NUMBER = re.compile(r"(?:Are|Is) there exactly (one|two) things?\?")
_NUMBERS = ("one", "two")


def atoms_of(prompt: str) -> list[tuple[str, str]]:
    """The facts of a prompt as questions, each with its skill: (skill, question).

    A thing, its colour, its size, how many things there are, how the first two stand, the place and the time of day.
    The number counts as stated: "a red ball" is one thing. Styles are no facts. A prompt without a thing has no atoms.

    Args:
        prompt: a prompt in the embedded world's words.
    """
    facts = parse(prompt)
    if not facts.items:
        return []
    found = [("object", f"Is there {_named(item.thing)}?") for item in facts.items]
    for item in facts.items:
        found += [("attribute", f"Is there {_named(word, item.thing)}?") for word in (item.color, item.size) if word]
    if len(facts.items) <= len(_NUMBERS):
        number = _NUMBERS[len(facts.items) - 1]
        found.append(
            ("count", "Is there exactly one thing?" if number == "one" else f"Are there exactly {number} things?")
        )
    found += [("relation", question) for question in _arrangement(facts)]
    found += [("scene", f"Is it {PLACE_WORDS[place][0]}?") for place in facts.places]
    found += [("scene", f"Is it {TIME_WORDS[time][0]}?") for time in facts.times]
    return list(dict.fromkeys(found))


def asked_number(question: str) -> int | None:
    """The number of things that a question asks for; None if it asks for something else."""
    match = _NUMBER.fullmatch(question)
    return None if match is None else _NUMBERS.index(match[1]) + 1


def _named(*words: str) -> str:
    name = " ".join(words)
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def _arrangement(facts: Facts) -> list[str]:
    if len(facts.items) != 2:  # of more, the grammar says nothing
        return []
    alike = facts.items[0].thing == facts.items[1].thing
    first, second = (_phrase(item, with_color=alike) for item in facts.items)
    words = {("row", True): "to the left of", ("stack", True): "above"}
    return [f"Is {first} {words.get((facts.layout or 'row', facts.ordered), 'next to')} {second}?"]


def _phrase(item: Item, *, with_color: bool) -> str:
    """A thing; of two that are alike, with its colour, so that a wrong colour is not also a wrong arrangement."""
    return _named(*(word for word in (item.color if with_color else None, item.thing) if word))
