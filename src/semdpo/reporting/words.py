"""What of a prompt's words a rewrite kept, added and lost."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

ARTICLES = frozenset({"a", "an", "the"})
MANY = 250_000  # comparisons of two words; above, frequent words are no anchors, so that it stays quick


@dataclass(frozen=True, slots=True)
class Word:
    """A word of a rewrite: ``same`` as in the prompt, ``added``, or ``lost`` (in the prompt only)."""

    text: str
    kind: str


def word_marks(prompt: str, rewrite: str) -> list[Word]:
    """The words of a rewrite, those marked that the user did not write there; then the user's words that were lost.

    Prompt and rewrite are compared as sequences: a word that changed its place is added at one and lost at the other.
    Case, punctuation and articles do not count: they change no meaning that a reader looks for here.

    Args:
        prompt: what the user wrote.
        rewrite: what the rewriter made of it.

    Returns:
        All words of the rewrite in order, then each word of the prompt that the rewrite lost, once.
    """
    given = rewrite.split()
    asked = [bare for bare in map(_bare, prompt.split()) if _counts(bare)]
    places = [place for place, word in enumerate(given) if _counts(_bare(word))]
    added, lost = _differences(asked, [_bare(given[place]) for place in places])
    marked = {places[k] for k in added}
    words = [Word(word, "added" if place in marked else "same") for place, word in enumerate(given)]
    return [*words, *(Word(word, "lost") for word in dict.fromkeys(asked[k] for k in lost))]


def _differences(before: Sequence[str], after: Sequence[str]) -> tuple[list[int], list[int]]:
    """Which words of ``after`` are new, and which of ``before`` are gone, by their places."""
    if len(before) * len(after) > MANY:
        blocks = SequenceMatcher(None, before, after).get_matching_blocks()
        same = [(a + k, b + k) for a, b, size in blocks for k in range(size)]
    else:
        same = _longest(before, after)
    kept_before, kept_after = {a for a, _ in same}, {b for _, b in same}
    return (
        [k for k in range(len(after)) if k not in kept_after],
        [k for k in range(len(before)) if k not in kept_before],
    )


def _longest(before: Sequence[str], after: Sequence[str]) -> list[tuple[int, int]]:
    """The longest common subsequence; of several, the one with most words that stand where they stood."""
    match = min(len(before), len(after)) + 1
    best = [[0] * (len(after) + 1) for _ in range(len(before) + 1)]  # of the words from (i, j) on
    for i in reversed(range(len(before))):
        for j in reversed(range(len(after))):
            own = best[i + 1][j + 1] + match + (i == j) if before[i] == after[j] else 0
            best[i][j] = max(own, best[i + 1][j], best[i][j + 1])
    same, i, j = [], 0, 0
    while i < len(before) and j < len(after):
        if before[i] == after[j] and best[i][j] == best[i + 1][j + 1] + match + (i == j):
            same.append((i, j))
            i, j = i + 1, j + 1
        elif best[i][j] == best[i + 1][j]:
            i += 1
        else:
            j += 1
    return same


def runs(words: Sequence[Word]) -> list[Word]:
    """Neighbours of one kind joined, so that a phrase carries one mark."""
    groups = itertools.groupby(words, key=lambda word: word.kind)
    return [Word(" ".join(word.text for word in group), kind) for kind, group in groups]


def _bare(word: str) -> str:
    return "".join(letter for letter in word.casefold() if letter.isalnum())


def _counts(bare: str) -> bool:
    return bool(bare) and bare not in ARTICLES
