"""Makes atoms of simple English captions by rules: "two red balls on a table", "a cat chasing a mouse, at night".

A clause (what stands between commas) is read as a whole or not at all. It must consist of things, each with a number or
an article, colours and the like before its name, joined by "and", a preposition or a word with -ing. Words that are not
known stay with the name, so that no question asks for something that the caption does not say: "a fluffy cat" is a
thing of this name. A clause that cannot be read so gives no atom, and is counted.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from semdpo.analysis.atoms import words_of
from semdpo.analysis.wording import CLICHES, FUNCTION_WORDS
from semdpo.data.atoms import NUMBERS, Atom

ATTRIBUTES = frozenset(
    """
    red green blue yellow purple white black orange pink brown gray grey golden silver turquoise beige
    small large big tiny little huge tall short long round square triangular oval
    wooden metal metallic plastic glass stone leather rubber paper golden striped spotted checkered
    old new open closed empty full wet dry broken
    """.split()  # noqa: SIM905 - a list literal would be hard to read
)
RELATIONS = (
    *("in front of", "on top of", "to the left of", "to the right of", "on the left of", "on the right of"),
    *("left of", "right of", "next to", "inside of"),
    *(
        "behind",
        "beside",
        "near",
        "above",
        "over",
        "below",
        "under",
        "underneath",
        "beneath",
        "inside",
        "in",
        "on",
        "at",
    ),
)
TIMES = frozenset(("night", "sunset", "sunrise", "dawn", "dusk", "noon", "midnight"))
_OPENING = re.compile(r"^(?:an? |the )?(?:photo|picture|image|painting|drawing|photograph|illustration) of ")
_CLAUSES = re.compile(r"[,;.!?:]+(?:\s+|$)")
_TOKEN = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")
_ING_THINGS = frozenset(
    """
    building ceiling clothing earring king painting ring string swing wedding wing railing icing thing spring evening
    """.split()  # noqa: SIM905 - a list literal would be hard to read
)
DOING = ","  # the joint after a word with -ing that needs no preposition: "a dog chasing a cat"
_BOTH = frozenset(("sheep", "fish", "deer"))  # one or several
_PLURALS = frozenset(["people", "men", "women", "children", "mice", "geese", "feet", "teeth"])
_ARTICLES = {"a": "one", "an": "one", "the": None}
_MOST = 3  # words of a thing's name
_NUMBERS = frozenset(NUMBERS)
_DIGITS = {str(number): word for number, word in enumerate(NUMBERS, start=1)}
_UNSURE = FUNCTION_WORDS | {
    "few",
    "several",
    "many",
    "pair",
    "couple",
    "group",
    "bunch",
    "lot",
    "full",
    "made",
    "style",
}


@dataclass(frozen=True, slots=True)
class _Thing:
    """What stands between two joints of a clause: its number, its attributes, its name, and what it does."""

    number: str | None
    attributes: tuple[str, ...]
    name: str
    doing: str = ""

    @property
    def plural(self) -> bool:
        return self.number not in (None, "one") or (self.number is None and _is_plural(self.name))

    @property
    def shown(self) -> str:
        if self.number == "one":
            return f"{'an' if self.name[0] in 'aeiou' else 'a'} {self.name}"
        return f"any {self.name}" if self.plural else f"the {self.name}"

    @property
    def kind(self) -> str:
        return " ".join(words_of(self.name))

    def looking(self, attribute: str) -> str:
        return replace(self, name=f"{attribute} {self.name}").shown

    @property
    def subject(self) -> str:
        return f"{'Are' if self.plural else 'Is'} the {self.name}"


def caption_atoms(prompt_id: str, prompt: str) -> tuple[list[Atom], int]:
    """The atoms of a caption, and the number of its clauses that could not be read.

    Args:
        prompt_id: the caption's id.
        prompt: the caption, in English.
    """
    clauses = [part.strip() for part in _CLAUSES.split(prompt.lower()) if part.strip()]
    read = [_clause(_OPENING.sub("", text) if number == 0 else text) for number, text in enumerate(clauses)]
    named = Counter(thing.kind for clause in read if clause is not None for thing in clause[0])
    questions: list[_Question] = []
    for things, others in (clause for clause in read if clause is not None):
        questions += [question for thing in things for question in _facts(thing, alone=named[thing.kind] == 1)]
        questions += others
    atoms: dict[str, Atom] = {}
    for skill, question, words in questions:
        atoms.setdefault(question, Atom(prompt_id, skill, question, words=words))
    return list(atoms.values()), sum(clause is None for clause in read)


_Question = tuple[str, str, str]  # skill, question, the words that state it


def _clause(text: str) -> tuple[list[_Thing], list[_Question]] | None:
    """The things of one clause, and the questions beside those about each thing; None where it cannot be read."""
    if any(f" {phrase} " in f" {text} " for phrase in CLICHES):
        return None
    parts = _split([_DIGITS.get(word, word) for word in _TOKEN.findall(text)])
    things: list[_Thing] = []
    questions: list[_Question] = []
    asked = True  # whether a question asks what the last thing does
    for joint, part in parts[1:] if parts[0] == ("", []) else parts:
        if joint == "at" and len(part) == 1 and part[0] in TIMES:
            questions.append(("scene", f"Is the scene at {part[0]}?", part[0]))
            continue
        thing = _thing(part)
        if thing is None or (joint not in ("", "and") and not things) or (joint == "and" and not asked):
            return None
        if joint not in ("", "and") and thing.kind != things[-1].kind:
            questions.append(_relation(things[-1], joint, thing))
        things.append(thing)
        asked = not thing.doing
    if not asked:
        last = things[-1]
        questions.append(("attribute", f"{last.subject} {last.doing}?", f"{last.name} {last.doing}"))
    return things, questions


def _facts(thing: _Thing, *, alone: bool) -> list[_Question]:
    """Whether it is there, how many there are, and what it is like.

    Of several things of one kind ("a red ball and a blue ball") the number is not asked for, and "the ball" would be
    unclear.
    """
    found = [("object", f"Does the image show {thing.shown}?", thing.name)]
    if not alone:
        looks = [
            ("attribute", f"Does the image show {thing.looking(w)}?", f"{w} {thing.name}") for w in thing.attributes
        ]
        return found + looks
    if thing.number is not None:
        words = f"{thing.number} {thing.name}"
        found.append(("count", f"Does the image show exactly {words}?", words))
    return found + [("attribute", f"{thing.subject} {word}?", f"{word} {thing.name}") for word in thing.attributes]


def _relation(one: _Thing, joint: str, other: _Thing) -> _Question:
    words = " ".join(word for word in (one.doing, joint if joint != DOING else "") if word)
    return "relation", f"{one.subject} {words} the {other.name}?", f"{one.name} {words} {other.name}"


def _split(words: Sequence[str]) -> list[tuple[str, list[str]]]:
    """The words of a clause between its joints, each part with the joint before it."""
    parts: list[tuple[str, list[str]]] = [("", [])]
    place = 0
    while place < len(words):
        joint = _joint(words, place)
        if joint is not None:
            parts.append((joint, []))
            place += len(joint.split())
            continue
        part = parts[-1][1]
        if part and _is_doing(part[-1]) and len(part) > 1 and _begins_thing(words[place]):
            parts.append((DOING, []))  # "a dog chasing a cat"
            part = parts[-1][1]
        part.append(words[place])
        place += 1
    return parts


def _joint(words: Sequence[str], place: int) -> str | None:
    if words[place] == "and" and not {*words[place - 1 : place], *words[place + 1 : place + 2]} <= ATTRIBUTES:
        return "and"  # and not "a red and white ball"
    for relation in RELATIONS:
        if list(words[place : place + len(relation.split())]) == relation.split():
            return relation
    return None


def _begins_thing(word: str) -> bool:
    return word in _ARTICLES or word in _NUMBERS or word in ATTRIBUTES


def _is_doing(word: str) -> bool:
    return len(word) > 4 and word.endswith("ing") and word not in _ING_THINGS


def _is_plural(name: str) -> bool:
    return name.split()[-1] in _PLURALS or (name.endswith("s") and not name.endswith(("ss", "us", "is")))


def _thing(words: Sequence[str]) -> _Thing | None:
    """A thing with its number and attributes; None where the words are something else."""
    left = [word for word in words if word != "and"]  # "red and white balls": both are asked for
    number: str | None = None
    marked = bool(left) and (left[0] in _ARTICLES or left[0] in _NUMBERS)
    if marked:
        number = _ARTICLES.get(left[0], left[0])
        left = left[1:]
    attributes = []
    while len(left) > 1 and left[0] in ATTRIBUTES:
        attributes.append(left.pop(0))
    doing = left.pop() if len(left) > 1 and _is_doing(left[-1]) else ""
    name = " ".join(left)
    if not 0 < len(left) <= _MOST or any(word in _UNSURE or word in _NUMBERS or word.isdigit() for word in left):
        return None
    if any(_is_doing(word) for word in left) or name in ATTRIBUTES:
        return None
    if not marked and not attributes and not _is_plural(name):
        return None  # "oil painting", "snow": perhaps a style, perhaps a thing
    if number is not None and (number == "one") == _is_plural(name) and left[-1] not in _BOTH:
        return None  # "a cat sits": a verb
    return _Thing(number, tuple(dict.fromkeys(attributes)), name, doing)
