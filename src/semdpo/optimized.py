"""What is asked for a prompt, and what it becomes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Request:
    """What a user asks for one prompt.

    Attributes:
        prompt: what the image should show, at most 10,000 characters.
        keep: words and phrases that must not change, besides what ``protected_spans`` finds.
        length: ``short``, ``medium``, ``long``, or the most tokens of a rewrite; None is the rewriter's own length.
        max_drift: the largest cosine distance of a rewrite from its prompt, 0 to 2; None is the optimizer's limit.
        banned: words and phrases that a rewrite must not contain, as whole words.
        n: the number of variants, 1 to 16.
        seed: the seed of the sampling, and of images.
    """

    prompt: str
    keep: tuple[str, ...] = ()
    length: str | int | None = None
    max_drift: float | None = None
    banned: tuple[str, ...] = ()
    n: int = 1
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Optimized:
    """One rewrite of a prompt.

    Attributes:
        prompt: the user's prompt.
        rewrite: the text for the text-to-image model; the user's prompt when no rewrite can be used.
        drift: the cosine distance of ``prompt`` and ``rewrite``; 0 for the user's prompt.
        kept: what must not change and has not, then the prompt's words that the rewrite has too.
        added: the rewrite's words that the prompt does not have.
        lost: the prompt's words that the rewrite does not have.
        reason: why ``rewrite`` is the user's prompt; empty when it is the rewriter's.
        seed: the seed of the sampling.
        truncated: whether ``rewrite`` was truncated at the rewriter's token budget.
        model: the rewriter's name.
        fingerprint: the SHA-256 of the rewriter's files; empty where it has none.
    """

    prompt: str
    rewrite: str
    drift: float
    kept: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()
    reason: str = ""
    seed: int = 0
    truncated: bool = False
    model: str = ""
    fingerprint: str = ""

    def record(self) -> dict[str, Any]:
        """The attributes as plain values, for JSON."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}
