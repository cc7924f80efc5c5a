"""What is computed of atoms: Soft-TIFA's two means, and whether a text still states an atom."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from semdpo.analysis.wording import FUNCTION_WORDS
from semdpo.data.atoms import NUMBERS, Atom

GAP = 2  # words that may stand between two words of an attribute or a count: "two large red balls"
RELATION_GAP = 5
_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")
_DIGITS = {str(number): word for number, word in enumerate(NUMBERS, start=1)}
_ONE = frozenset(("a", "an", "one"))
_ASKING = frozenset(("there", "image", "picture", "show", "shown", "exactly", "many", "how", "any", "visible", "scene"))


def arithmetic_mean(probabilities: ArrayLike) -> float:
    """Soft-TIFA AM of an image: the mean of the right answers' probabilities, an estimate of the share shown.

    Args:
        probabilities: the probability of each atom's right answer, in [0, 1], [atoms], at least one.

    Source:
        GenEval 2 (arXiv 2512.16853), ``soft_tifa`` of its evaluation.py.
    """
    return float(np.mean(_checked(probabilities)))


def geometric_mean(probabilities: ArrayLike) -> float:
    """Soft-TIFA GM of an image, an estimate of whether it shows all of its prompt: exp of the mean logarithm.

    Arguments and source are those of ``arithmetic_mean``. It is 0 where one probability is 0.
    """
    p = _checked(probabilities)
    return float(np.exp(np.mean(np.log(p)))) if (p > 0).all() else 0.0


MEANS = {"arithmetic": arithmetic_mean, "geometric": geometric_mean}


def _checked(probabilities: ArrayLike) -> np.ndarray:
    p = np.asarray(probabilities, np.float64)
    if p.ndim != 1 or not p.size or not ((p >= 0) & (p <= 1 + 1e-6)).all():
        raise ValueError("probabilities must lie in [0, 1], one for each atom, and there must be at least one")
    return p


# ------------------------------------------------------------------------------------------------- texts


def words_of(text: str) -> list[str]:
    """The words of a text in small letters, in a form in which they are compared: singular, and digits as words."""
    return [_same(word) for word in _WORD.findall(text.lower())]


def _same(word: str) -> str:
    """A word without the ending of a plural; a number in digits becomes a word."""
    if word in _DIGITS:
        return _DIGITS[word]
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        if word.endswith("ies") and len(word) > 4:
            return f"{word[:-3]}y"
        return word[:-2] if word.endswith(("ches", "shes", "sses", "xes")) else word[:-1]
    return word


def stating_words(question: str, answer: str, prompt: str) -> str:
    """The words of a prompt that state an atom: those that are also in its question, or are its answer.

    Args:
        question: the atom's question.
        answer: its answer.
        prompt: the prompt.

    Returns:
        The words in the prompt's order, joined by spaces; empty where prompt and question share no such word.
    """
    wanted = {*words_of(question), *([] if answer == "yes" else [answer])} - FUNCTION_WORDS - _ASKING
    return " ".join(dict.fromkeys(word for word in words_of(prompt) if word in wanted))


def states(text: str, atom: Atom, maker: str) -> bool | None:
    """Whether a text states an atom, judged by its words alone.

    The atoms of the embedded world are read with its grammar. Otherwise the atom's words must be in the text: those of
    an attribute or a count in their order and near each other, or an attribute right behind its thing ("a ball, red");
    those of a relation in their order; others anywhere. A synonym counts as another word, so that the share of atoms
    that are lost is an upper bound.

    Args:
        text: a rewrite.
        atom: an atom of its prompt.
        maker: who made the atom, as in a recipe.

    Returns:
        None where no words of the atom are known.
    """
    if maker == "tiny":
        return _states_fact(text, atom.question)
    wanted = [_same(word) for word in atom.words.split()]
    if not wanted:
        return None
    said = words_of(text)
    if atom.skill == "count" and wanted[0] in _ONE:
        return _one(wanted[1:], text)
    if atom.skill == "attribute":
        return _in_order(wanted, said, GAP) or _in_order(wanted[::-1], said, 0)
    if atom.skill in ("count", "relation"):
        return _in_order(wanted, said, GAP if atom.skill == "count" else RELATION_GAP)
    return set(wanted) <= set(said)


def share_lost(text: str, atoms: Sequence[Atom], maker: str) -> float | None:
    """The share of a prompt's atoms that a text does not state, in [0, 1]; None where that cannot be told of any.

    Args:
        text: a rewrite.
        atoms: the prompt's atoms.
        maker: who made them, as in a recipe.
    """
    told = [kept for atom in atoms if (kept := states(text, atom, maker)) is not None]
    return sum(not kept for kept in told) / len(told) if told else None


def _states_fact(text: str, question: str) -> bool:
    """Whether a text of the embedded world states the fact that a question of ``tiny_world.atoms`` asks for."""
    from semdpo.tiny_world.atoms import asked_number  # here, because the tiny world needs an extra
    from semdpo.tiny_world.facts import compare, parse

    number, said = asked_number(question), parse(text)
    if number is not None:
        return len(said.items) == number
    return compare(parse(question), said).lost == 0


def _in_order(wanted: Sequence[str], said: Sequence[str], gap: int) -> bool:
    """Whether words occur in an order, with at most ``gap`` other words between two of them."""
    places = [-1]
    for index, word in enumerate(wanted):
        near = range(len(said)) if index == 0 else None
        found = near if near is not None else {p + 1 + k for p in places for k in range(gap + 1)}
        places = [place for place in sorted(found) if place < len(said) and said[place] == word]
        if not places:
            return False
    return True


def _one(thing: Sequence[str], text: str) -> bool:
    """Whether a text names a single thing: in the singular, and without another number before it."""
    plain, said = _WORD.findall(text.lower()), words_of(text)
    for place in range(len(said) - len(thing) + 1):
        last = place + len(thing) - 1
        if said[place : last + 1] == list(thing) and plain[last] == said[last]:
            return not set(said[max(0, place - GAP - 1) : place]) & set(NUMBERS[1:])
    return False
