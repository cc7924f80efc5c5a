"""What of a prompt's words a rewrite kept, added and lost."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

ARTICLES = frozenset({"a", "an", "the"})


@dataclass(frozen=True, slots=True)
class Word:
    """A word of a rewrite: ``same`` as in the prompt, ``added``, or ``lost`` (in the prompt only)."""

    text: str
    kind: str


def word_marks(prompt: str, rewrite: str) -> list[Word]:
    """The words of a rewrite, those marked that the user did not write; then the user's words that were lost.

    Order, case, punctuation and articles do not count: they change no meaning that a reader looks for here.

    Args:
        prompt: what the user wrote.
        rewrite: what the rewriter made of it.

    Returns:
        All words of the rewrite in order, then each word of the prompt that the rewrite lacks, once.
    """
    asked = {_bare(word) for word in prompt.split()} | ARTICLES
    given = {_bare(word) for word in rewrite.split()} | ARTICLES
    words = [Word(word, "same" if not _bare(word) or _bare(word) in asked else "added") for word in rewrite.split()]
    lost = dict.fromkeys(_bare(word) for word in prompt.split() if _bare(word) and _bare(word) not in given)
    return [*words, *(Word(word, "lost") for word in lost)]


def runs(words: Sequence[Word]) -> list[Word]:
    """Neighbours of one kind joined, so that a phrase carries one mark."""
    groups = itertools.groupby(words, key=lambda word: word.kind)
    return [Word(" ".join(word.text for word in group), kind) for kind, group in groups]


def _bare(word: str) -> str:
    return "".join(letter for letter in word.casefold() if letter.isalnum())
