"""What rewrites do with the facts of their prompts: three columns of a report, and the marks beside its images.

Facts are read from words, so the texts must be in the language of a world whose words are known: the tiny world's.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from semdpo.data.records import EvaluationRow
from semdpo.reporting.labels import FACTS, USER
from semdpo.tiny_world.facts import Comparison, compare, parse

NAMED = 5  # unknown words that a note names


@dataclass(frozen=True, slots=True)
class Mark:
    """A short line about a rewrite, for people: its ``kind`` is ``wrong``, ``added``, or ``right``."""

    kind: str
    text: str


def compared(prompt: str, rewrite: str) -> Comparison:
    """Which facts of a prompt its rewrite gets wrong, and what it adds; both are in the tiny world's words."""
    return compare(parse(prompt), parse(rewrite))


def columns(prompt: str, rewrite: str) -> dict[str, int]:
    """The columns ``FACTS`` of one rewrite: 1 where it gets a fact wrong, adds content, adds popular content.

    Args:
        prompt: the user's prompt, in the tiny world's words.
        rewrite: the rewrite of the prompt.
    """
    found = compared(prompt, rewrite)
    parts = (found.wrong, found.added, found.popular)
    return {name: int(bool(part)) for name, part in zip(FACTS, parts, strict=True)}


def marks(row: EvaluationRow) -> list[Mark]:
    """The lines beside an image: what its rewrite gets wrong, what it adds, or that all is as asked.

    Each line begins with a sign, so that nobody depends on its colour. The user's own prompt has none.
    """
    if row.method == USER:
        return []
    found = compared(row.prompt, row.rewrite)
    lines = [Mark("wrong", f"✗ wrong: {', '.join(found.wrong)}")] if found.wrong else []
    lines += [Mark("added", f"+ added: {', '.join(found.added)}")] if found.added else []
    return lines or [Mark("right", "✓ all as asked")]


def notes(rows: Iterable[EvaluationRow]) -> list[str]:
    """A remark about prompts with words that the tiny world does not have; empty where there are none."""
    unread = [several for prompt in {row.prompt for row in rows} if (several := parse(prompt).unread)]
    if not unread:
        return []
    words = sorted({word for several in unread for word in several})
    shown = ", ".join(words[:NAMED]) + (" …" if len(words) > NAMED else "")
    return [
        f"Prompts with words that the tiny world does not have ({shown}): {len(unread)}. Facts in these words are not "
        "compared."
    ]
