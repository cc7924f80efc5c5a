"""The rows that stages pass to each other. Ids are hashes of the content, so that equal rows have equal ids."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

BLACKENED = "blackened by the renderer's safety checker"  # why an image has no score
UNRENDERED = "the image cannot be rendered"  # how the error of an image that is not there begins


def content_id(*parts: str) -> str:
    """An id: the first sixteen hexadecimal digits of the SHA-256 of some texts.

    Args:
        parts: the texts, joined by the unit separator so that ("ab", "c") and ("a", "bc") differ.
    """
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:16]


def content_seed(*parts: str) -> int:
    """A 63-bit seed that depends on some texts only, never on a row's position in a batch."""
    return int.from_bytes(hashlib.sha256("\x1f".join(parts).encode()).digest()[:8], "big") >> 1


@dataclass(frozen=True, slots=True)
class Prompt:
    """A user's prompt; ``split`` is ``train``, ``test`` or, for tuning prompts, ``tune``."""

    prompt_id: str
    prompt: str
    source: str
    split: str

    @classmethod
    def of(cls, prompt: str, source: str, split: str) -> Prompt:
        """A prompt's record, with the id of its text."""
        return cls(content_id(prompt), prompt, source, split)


@dataclass(frozen=True, slots=True)
class Leak:
    """A prompt of a benchmark that the run has used before; ``used_as`` is ``trained``, ``sft`` or ``tuning``."""

    prompt_id: str
    prompt: str
    used_as: str


@dataclass(frozen=True, slots=True)
class Candidate:
    """One rewrite of a prompt, sampled from the SFT rewriter or another one."""

    candidate_id: str
    prompt_id: str
    prompt: str
    rewrite: str
    index: int
    seed: int
    truncated: bool


@dataclass(frozen=True, slots=True)
class RenderDraw:
    """Whether the render budget keeps a prompt's candidates, so that they are rendered.

    ``candidates`` is their number, and ``distance`` the cosine distance of the prompt and its nearest candidate.
    ``probability`` is exp(−α·distance), with which they are kept.
    """

    prompt_id: str
    candidates: int
    distance: float
    probability: float
    kept: bool


@dataclass(frozen=True, slots=True)
class Score:
    """A scorer's score of an image against the user's prompt; the image shows a candidate or an evaluated rewrite.

    ``truncated`` is true when the prompt is longer than the scorer reads, or the candidate longer than the renderer
    reads. Where there is no score, ``score`` is None and ``error`` gives the reason.
    """

    candidate_id: str
    scorer: str
    score: float | None
    image_seed: int
    truncated: bool
    error: str | None = None

    @property
    def unscored(self) -> bool:
        """Whether the scorer had no score for an image that shows something."""
        return self.error not in (None, BLACKENED) and not str(self.error).startswith(UNRENDERED)


@dataclass(frozen=True, slots=True)
class Pair:
    """A preference: for ``prompt``, the image of ``chosen`` is better than that of ``rejected``.

    ``distance`` is the cosine distance of prompt and chosen, ``rejected_distance`` that of prompt and rejected; both
    are None before the stage ``drift``. Training computes Sem-DPO's weight from the distance, so that a new α needs no
    new embedding. ``weight`` multiplies the pair's loss: a weight from the user's data, or, in a run with a render
    budget, 1/p, where p is the probability with which the prompt's candidates were rendered. The fidelities are the
    scores of a text-fidelity scorer, where there is one. ``encoder`` is the name of the encoder that measured the
    distances, and ``encoder_fingerprint`` the SHA-256 of its files.
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

    @property
    def own_weight(self) -> float:
        """``weight``, or 1 where there is none."""
        return 1.0 if self.weight is None else self.weight


@dataclass(frozen=True, slots=True)
class PairLoss:
    """A training pair's loss ℓ = −log σ(Δ) under a trained rewriter, without a weight, and the drift of its chosen."""

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
    """The image of a method's rewrite of a prompt.

    ``image`` is lossless WebP, so that a scorer that is added later sees the same pixels. ``tokens``, ``distance`` and
    ``truncated`` are those of ``EvaluationRow``, before any scorer has read the prompt. ``blackened`` is true when the
    renderer's safety checker made the image black; such an image is not scored. Where the image could not be rendered,
    ``image`` is empty and ``error`` gives the reason.
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
    error: str | None = None

    @property
    def missing(self) -> str | None:
        """Why the image has no score and stands in no comparison; None where it shows something."""
        return BLACKENED if self.blackened else self.error

    @property
    def candidate_id(self) -> str:
        """The rewrite's id, as in ``Candidate``."""
        return content_id(self.prompt_id, self.rewrite)


@dataclass(frozen=True, slots=True)
class EvaluationRow:
    """One image of one method, with its scores against the user's prompt.

    ``tokens`` is the number of the rewrite's tokens under the rewriter's tokenizer, and ``distance`` the cosine
    distance of prompt and rewrite. ``image`` holds WebP bytes for the few images that the report shows.
    ``consistency`` is the cosine of the image and the *rewrite* under the encoder that measures drift; it is None
    where that encoder is not one of the scorers.
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
