"""The rows that stages pass to each other. Ids are hashes of content, so equal rows have equal ids."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

BLACKENED = "blackened by the renderer's safety checker"  # why an image has no score


def content_id(*parts: str) -> str:
    """Sixteen hexadecimal digits of the SHA-256 of the parts.

    Args:
        parts: texts, joined by the unit separator so that ("ab", "c") and ("a", "bc") differ.
    """
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:16]


def content_seed(*parts: str) -> int:
    """A 63-bit seed that depends on content only, never on a row's position in a batch."""
    return int.from_bytes(hashlib.sha256("\x1f".join(parts).encode()).digest()[:8], "big") >> 1


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a user asked for; ``split`` is ``train`` or ``test``."""

    prompt_id: str
    prompt: str
    source: str
    split: str

    @classmethod
    def of(cls, prompt: str, source: str, split: str) -> Prompt:
        """The record of a text, with its id."""
        return cls(content_id(prompt), prompt, source, split)


@dataclass(frozen=True, slots=True)
class Candidate:
    """One rewrite of a prompt, drawn from the SFT rewriter."""

    candidate_id: str
    prompt_id: str
    prompt: str
    rewrite: str
    index: int
    seed: int
    truncated: bool


@dataclass(frozen=True, slots=True)
class Score:
    """A scorer's score of the image of a candidate, or of a rewrite that is evaluated, against the user's prompt.

    ``truncated`` says that the scorer did not read the prompt to its end, or the renderer the candidate. ``error`` says
    why there is no score, in which case ``score`` is None.
    """

    candidate_id: str
    scorer: str
    score: float | None
    image_seed: int
    truncated: bool
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Pair:
    """A preference: for ``prompt``, ``chosen`` drew the better image.

    ``distance`` is the cosine distance of prompt and chosen (None before the weigh stage); the weight is
    computed from it when training, so that another alpha needs no new embedding. ``weight`` is the data's own, and
    the fidelities are those of a text-fidelity scorer, where there is one. ``encoder`` is the name of the encoder that
    measured the distances, and ``encoder_fingerprint`` the SHA-256 of its files.
    """

    pair_id: str
    prompt: str
    chosen: str
    rejected: str
    chosen_score: float | None
    rejected_score: float | None
    distance: float | None = None
    rejected_distance: float | None = None
    truncated: bool | None = None
    weight: float | None = None
    chosen_fidelity: float | None = None
    rejected_fidelity: float | None = None
    encoder: str | None = None
    encoder_fingerprint: str | None = None


@dataclass(frozen=True, slots=True)
class PairLoss:
    """ℓ = −log σ(Δ) of a training pair under a trained rewriter, before any weight, and how far its chosen drifts."""

    pair_id: str
    distance: float
    loss: float


@dataclass(frozen=True, slots=True)
class Curve:
    """One point of a training curve: the value of ``name`` at ``step`` of ``method``'s training."""

    method: str
    step: int
    name: str
    value: float


@dataclass(frozen=True, slots=True)
class RenderedImage:
    """What a method drew for a prompt; ``image`` is lossless WebP, so that a scorer added later sees the same pixels.

    ``tokens``, ``distance`` and ``truncated`` are as in ``EvaluationRow``, before any scorer has read the prompt.
    ``blackened`` says that the renderer's safety checker made it black, so that no scorer is asked about it.
    """

    method: str
    prompt_id: str
    prompt: str
    source: str
    image_seed: int
    rewrite: str
    tokens: int
    distance: float
    truncated: bool
    image: bytes
    blackened: bool = False

    @property
    def candidate_id(self) -> str:
        """Of the rewrite, as in ``Candidate``."""
        return content_id(self.prompt_id, self.rewrite)


@dataclass(frozen=True, slots=True)
class EvaluationRow:
    """One image of one method: its scores against the user's prompt.

    ``tokens`` counts the rewrite's tokens under the rewriter's tokenizer, ``distance`` is that of prompt and
    rewrite, ``image`` holds WebP bytes for the few images that the report shows. ``consistency`` is the cosine of the
    image and the *rewrite* under the encoder that measures drift, None where that encoder is none of the scorers.
    """

    method: str
    prompt_id: str
    prompt: str
    source: str
    image_seed: int
    rewrite: str
    tokens: int
    distance: float
    truncated: bool
    metrics: dict[str, float]
    image: bytes | None
    consistency: float | None = None
