"""What rewriters, renderers, scorers and encoders must offer: a method that takes a batch and keeps its order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL import Image

Float = NDArray[np.float32]
Float64 = NDArray[np.float64]
Bool = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Embeddings:
    """Texts as points on the unit sphere.

    Attributes:
        vectors: unit vectors, [n, dim].
        truncated: whether each text is longer than the encoder reads, [n].
        unknown: the share of each text's words that the encoder has never seen, [n]; None when it does not know.
    """

    vectors: Float
    truncated: Bool
    unknown: Float | None = None


@dataclass(frozen=True, slots=True)
class ScoreBatch:
    """Scores of images against prompts.

    Attributes:
        values: the scores, [n]; higher is better.
        truncated: whether each prompt is longer than the scorer reads, [n].
    """

    values: Float
    truncated: Bool


class UnscoredError(Exception):
    """An image that a scorer cannot score, and why; the others of its batch may have scores.

    The stages note it in the image's row. It is no ``SemdpoError``, for it does not end a run.
    """


@runtime_checkable
class Rewriter(Protocol):
    """A policy that rewrites prompts.

    A rewrite depends on its prompt, its index and the seed only, not on the other prompts or their number: stages pass
    prompts in groups of any size, with the same seed for every group.
    """

    def rewrite(self, prompts: Sequence[str], n: int, seed: int) -> list[list[str]]:
        """Gives ``n`` rewrites for each prompt; the first m of them are those of a call with n = m."""
        ...


@runtime_checkable
class FlaggingRewriter(Protocol):
    """A rewriter that reports which rewrites were truncated at its token budget."""

    def rewrite_flagged(self, prompts: Sequence[str], n: int, seed: int) -> list[list[tuple[str, bool]]]:
        """Gives ``n`` rewrites for each prompt, each with whether it was truncated."""
        ...


@dataclass(frozen=True, slots=True)
class Answer:
    """A rewriter's answer to one prompt.

    Attributes:
        text: the rewrite on one line; empty when there is none.
        truncated: whether it was truncated at the token budget.
        reason: why there is no rewrite; empty when there is one.
        likelihood: the mean of log π(token) over its tokens, in nats; None when the rewriter does not know.
    """

    text: str
    truncated: bool = False
    reason: str = ""
    likelihood: float | None = None


@runtime_checkable
class AnsweringRewriter(Protocol):
    """A rewriter that says more of its rewrites: how likely they are, or why there is none."""

    def answers(self, prompts: Sequence[str], n: int, seed: int) -> list[list[Answer]]:
        """Gives ``n`` answers for each prompt."""
        ...


def answers(rewriter: Rewriter, prompts: Sequence[str], n: int, seed: int) -> list[list[Answer]]:
    """Asks any rewriter, and gives as much as it knows of its rewrites.

    Args:
        rewriter: the rewriter.
        prompts: the texts to rewrite.
        n: the number of rewrites of each prompt, ≥ 1.
        seed: the seed of the sampling.

    Returns:
        For each prompt, ``n`` answers.
    """
    if isinstance(rewriter, AnsweringRewriter):
        return rewriter.answers(prompts, n, seed)
    if isinstance(rewriter, FlaggingRewriter):
        return [[Answer(*each) for each in row] for row in rewriter.rewrite_flagged(prompts, n, seed)]
    return [[Answer(text) for text in row] for row in rewriter.rewrite(prompts, n, seed)]


@runtime_checkable
class Renderer(Protocol):
    """A text-to-image model."""

    def render(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[Image.Image]:
        """Renders one image per prompt; an equal (prompt, seed) gives an equal image, whatever else is in the batch."""
        ...


@runtime_checkable
class CheckingRenderer(Protocol):
    """A renderer that reports which images its safety checker blackened; such an image shows nothing."""

    def render_checked(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[tuple[Image.Image, bool]]:
        """Renders one image per prompt, each with whether it was blackened."""
        ...


def render_checked(renderer: Renderer, prompts: Sequence[str], seeds: Sequence[int]) -> list[tuple[Image.Image, bool]]:
    """Renders images with any renderer; one without a safety checker blackens none.

    Args:
        renderer: the text-to-image model.
        prompts: the texts to render, [n].
        seeds: the images' seeds, [n].

    Returns:
        n images, each with whether it was blackened.
    """
    if isinstance(renderer, CheckingRenderer):
        return renderer.render_checked(prompts, seeds)
    return [(image, False) for image in renderer.render(prompts, seeds)]


@runtime_checkable
class Scorer(Protocol):
    """A scorer of images."""

    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> ScoreBatch:
        """Scores each image against its prompt; higher is better."""
        ...


@runtime_checkable
class Answerer(Protocol):
    """A model that answers questions about images."""

    def answer(self, images: Sequence[Image.Image], questions: Sequence[tuple[str, str]]) -> Float64:
        """Gives the probability of the right answer about each image, [n], for its (question, right answer)."""
        ...


@runtime_checkable
class TextEncoder(Protocol):
    """The frozen encoder e that measures drift."""

    def encode(self, texts: Sequence[str]) -> Embeddings:
        """Embeds texts as unit vectors."""
        ...


@runtime_checkable
class KnowsWords(Protocol):
    """An encoder that knows which words it has never seen, without embedding a text."""

    def unknown_words(self, texts: Sequence[str]) -> Float | None:
        """Gives the share of unknown words in each text, [n]; None when it does not know for any text."""
        ...


@runtime_checkable
class KnowsLength(Protocol):
    """An encoder that counts tokens, and knows how many it reads."""

    @property
    def reads(self) -> int:
        """The number of tokens that it reads, without its begin and end tokens."""
        ...

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """Counts each text's tokens, [n], without begin and end tokens."""
        ...
