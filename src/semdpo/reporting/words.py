"""Which words of a prompt a rewrite kept, added or lost."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

ARTICLES = frozenset({"a", "an", "the"})
MANY = 250_000  # word comparisons; above this, difflib's faster matching is used, which ignores frequent words


@dataclass(frozen=True, slots=True)
class Word:
    """A word of a rewrite: ``same`` as in the prompt, ``added``, or ``lost`` (in the prompt only)."""

    text: str
    kind: str


def word_marks(prompt: str, rewrite: str) -> list[Word]:
    """The words of a rewrite, each marked as kept or added, followed by the words of the prompt that it lost.

    Prompt and rewrite are compared as sequences: a word that moved counts as added in its new place and lost in its
    old one. Case, punctuation and articles are ignored, since they hardly change the meaning.

    Args:
        prompt: the user's prompt.
        rewrite: the rewrite of the prompt.

    Returns:
        All words of the rewrite in order, then every word that the rewrite lost, once.
    """
    rewritten = rewrite.split()
    prompted = [bare for bare in map(_bare, prompt.split()) if _counts(bare)]
    places = [place for place, word in enumerate(rewritten) if _counts(_bare(word))]
    added, lost = _differences(prompted, [_bare(rewritten[place]) for place in places])
    marked = {places[k] for k in added}
    words = [Word(word, "added" if place in marked else "same") for place, word in enumerate(rewritten)]
    return [*words, *(Word(word, "lost") for word in dict.fromkeys(prompted[k] for k in lost))]


def _differences(before: Sequence[str], after: Sequence[str]) -> tuple[list[int], list[int]]:
    """Positions of the words that only ``after`` has, and of those that only ``before`` has."""
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
    """The longest common subsequence; among equally long ones, the one with most words at unchanged positions."""
    match = min(len(before), len(after)) + 1
    best = [[0] * (len(after) + 1) for _ in range(len(before) + 1)]  # best score for before[i:] and after[j:]
    for i in reversed(range(len(before))):
        for j in reversed(range(len(after))):
            matched = best[i + 1][j + 1] + match + (i == j) if before[i] == after[j] else 0
            best[i][j] = max(matched, best[i + 1][j], best[i][j + 1])
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
    """Adjacent words of the same kind joined, so that a phrase gets one mark."""
    groups = itertools.groupby(words, key=lambda word: word.kind)
    return [Word(" ".join(word.text for word in group), kind) for kind, group in groups]


def _bare(word: str) -> str:
    return "".join(character for character in word.casefold() if character.isalnum())


def _counts(bare: str) -> bool:
    return bool(bare) and bare not in ARTICLES
