"""What a part must do to take part: one batch method each, order kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL import Image

Float = NDArray[np.float32]
Bool = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Embeddings:
    """Texts as points on the unit sphere.

    Attributes:
        vectors: unit vectors, [n, dim].
        truncated: texts longer than the encoder reads, [n].
        unknown: share of each text's words that the encoder has never seen, [n]; None when it cannot tell.
    """

    vectors: Float
    truncated: Bool
    unknown: Float | None = None


@dataclass(frozen=True, slots=True)
class ScoreBatch:
    """Scores of images against prompts, [n], and which prompts were longer than the scorer reads, [n]."""

    values: Float
    truncated: Bool


@runtime_checkable
class Rewriter(Protocol):
    """A policy that rewrites prompts.

    A rewrite depends on its prompt, its index and the seed only, not on the other prompts or their number: stages call
    it with prompts in parts of any size, and with the same seed for every part.
    """

    def rewrite(self, prompts: Sequence[str], n: int, seed: int) -> list[list[str]]:
        """``n`` rewrites for each prompt; the first m of them are those of a call with n = m."""
        ...


@runtime_checkable
class FlaggingRewriter(Protocol):
    """A rewriter that tells which rewrites met its token budget before they had ended."""

    def rewrite_flagged(self, prompts: Sequence[str], n: int, seed: int) -> list[list[tuple[str, bool]]]:
        """``n`` rewrites for each prompt, each with its flag."""
        ...


@runtime_checkable
class Renderer(Protocol):
    """A text-to-image model."""

    def render(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[Image.Image]:
        """One image a prompt; equal (prompt, seed) give equal images, whatever else is in the batch."""
        ...


@runtime_checkable
class CheckingRenderer(Protocol):
    """A renderer that tells which images its safety checker blackened; such an image shows nothing of the prompt."""

    def render_checked(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[tuple[Image.Image, bool]]:
        """One image a prompt, each with its flag."""
        ...


def render_checked(renderer: Renderer, prompts: Sequence[str], seeds: Sequence[int]) -> list[tuple[Image.Image, bool]]:
    """Images with their flags, of any renderer; one without a checker blackens none."""
    if isinstance(renderer, CheckingRenderer):
        return renderer.render_checked(prompts, seeds)
    return [(image, False) for image in renderer.render(prompts, seeds)]


@runtime_checkable
class Scorer(Protocol):
    """A scorer of images."""

    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> ScoreBatch:
        """One score an image, higher is better."""
        ...


@runtime_checkable
class TextEncoder(Protocol):
    """The frozen encoder e of the semantic distance."""

    def encode(self, texts: Sequence[str]) -> Embeddings:
        """Unit vectors."""
        ...


@runtime_checkable
class KnowsWords(Protocol):
    """An encoder that tells which words it has never seen without embedding a text."""

    def unknown_words(self, texts: Sequence[str]) -> Float | None:
        """Share of each text's words, [n]; None when it cannot tell, whatever the texts."""
        ...
