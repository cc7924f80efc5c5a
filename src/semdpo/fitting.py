"""Makes a rewrite fit what its user allows: its length, and words that it must not contain.

A rewrite of a prompt is a list of clauses with commas between them. What does not fit is left out clause by clause, so
that no word and no phrase is ever cut in two. The first clause says what the image shows, and always stays.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from semdpo.errors import ConfigError
from semdpo.span_syntax import whole_words
from semdpo.texts import shown

SHARES = {"short": 0.25, "medium": 0.5, "long": 1.0}  # of the tokens that the text encoder of the renderer reads
_CLAUSE = re.compile(r",\s+")

Count = Callable[[str], int]


def most_tokens(length: str | int | None, limit: int) -> int:
    """The largest number of tokens of a rewrite.

    Args:
        length: ``short``, ``medium`` or ``long`` (a quarter, a half and all of what the renderer reads), a number of
            tokens, or None for all.
        limit: the number of tokens that the renderer reads, without its begin and end tokens.

    Raises:
        ConfigError: it is no such class, or a number that is not from 1 to the limit.
    """
    if length is None:
        return limit
    if isinstance(length, str):
        if length not in SHARES:
            raise ConfigError(f"length is {shown(length)}; use short, medium, long, or a number of tokens")
        return max(1, int(limit * SHARES[length]))
    if isinstance(length, bool) or not 1 <= length <= limit:
        raise ConfigError(f"length is {length}; it must be from 1 to {limit} tokens, which is what the renderer reads")
    return length


def fitted(
    rewrite: str, most: int | None, count: Count, banned: Sequence[str] = (), truncated: bool = False
) -> str | None:
    """A rewrite without the clauses that do not fit.

    Args:
        rewrite: the rewrite, on one line.
        most: the largest number of its tokens; None is no limit.
        count: counts a text's tokens.
        banned: whole words or phrases that no clause may contain, whatever their case.
        truncated: whether the last clause is incomplete; it is left out unless it is the only one.

    Returns:
        The rewrite; None when its first clause does not fit.
    """
    clauses = _CLAUSE.split(rewrite)
    if truncated and len(clauses) > 1:
        clauses.pop()
    finders = [whole_words(phrase) for phrase in banned]
    if any(finder.search(clauses[0]) for finder in finders):
        return None
    clauses = [clause for clause in clauses if not any(finder.search(clause) for finder in finders)]
    while most is not None and len(clauses) > 1 and count(", ".join(clauses)) > most:
        clauses.pop()
    text = ", ".join(clauses)
    fits = most is None or count(text) <= most
    return text if fits and not any(finder.search(text) for finder in finders) else None
