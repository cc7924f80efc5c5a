"""What a user calls: rewrite a prompt, measure how far the rewrite drifts, and guard against drifting too far."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from semdpo.errors import ConfigError, DataError
from semdpo.semantics import UNKNOWN_ALLOWED, cosine_distance

if TYPE_CHECKING:
    from semdpo.protocols import Rewriter, TextEncoder


@dataclass(frozen=True, slots=True)
class Optimized:
    """What came of a prompt.

    Attributes:
        prompt: the user's own.
        rewrite: to give to the text-to-image model; the user's own prompt when no rewrite was near enough.
        distance: cosine distance of prompt and ``rewrite``.
        reason: why the user's own prompt was given back; empty when ``rewrite`` is the rewriter's.
    """

    prompt: str
    rewrite: str
    distance: float
    reason: str = ""

    @property
    def kept(self) -> bool:
        """Whether ``rewrite`` is the rewriter's."""
        return not self.reason


class PromptOptimizer:
    """A rewriter with the encoder that watches it.

    Args:
        greedy: gives a prompt's most probable rewrite.
        sampling: gives others, when that one drifts too far.
        encoder: measures the drift.
        max_distance: rewrites that are farther from the prompt are not given out; None allows all.
        candidates: how many others are tried, ≥ 1.
        seed: of these.

    Raises:
        ConfigError: an option is out of range.
    """

    def __init__(
        self,
        greedy: Rewriter,
        sampling: Rewriter,
        encoder: TextEncoder,
        *,
        max_distance: float | None = None,
        candidates: int = 8,
        seed: int = 0,
    ) -> None:
        if max_distance is not None and not 0 <= max_distance <= 2:
            raise ConfigError(f"max_distance is a cosine distance, from 0 to 2, not {max_distance}")
        if candidates < 1:
            raise ConfigError(f"candidates must be at least 1, not {candidates}")
        self._greedy, self._sampling, self._encoder = greedy, sampling, encoder
        self._max_distance, self._candidates, self._seed = max_distance, candidates, seed

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        encoder: str = "tiny:clip",
        *,
        max_distance: float | None = None,
        candidates: int = 8,
        seed: int = 0,
    ) -> PromptOptimizer:
        """Loads a trained rewriter.

        Args:
            path: its folder, or a name.
            encoder: any CLIP or sentence-transformers model; ``tiny:clip`` knows only the embedded world's words.
            max_distance: rewrites that are farther from the prompt are not given out; None allows all.
            candidates: how many others are tried when the most probable rewrite drifts too far, ≥ 1.
            seed: of these.

        Raises:
            ModelError: a model cannot be loaded.
            ConfigError: an option is out of range.
        """
        from semdpo.models.rewriter import load_rewriter
        from semdpo.models.text_encoder import load_text_encoder

        greedy = load_rewriter(path, temperature=0.0)
        return cls(
            greedy,
            greedy.at_temperature(1.0),
            load_text_encoder(encoder),
            max_distance=max_distance,
            candidates=candidates,
            seed=seed,
        )

    def optimize(self, prompt: str) -> Optimized:
        """Rewrites a prompt.

        The most probable rewrite is taken if it is near enough; otherwise the nearest of some others, if that is;
        otherwise the user's own prompt. A rewrite whose words the encoder does not know has no distance, and counts
        as too far; a prompt of such words is given back at once.

        Args:
            prompt: what the user wants to see.

        Raises:
            DataError: the prompt is empty, or too long for the rewriter.
        """
        asked = prompt.strip()
        if not asked:
            raise DataError("the prompt is empty; say what the picture should show")
        unknown = self._encoder.encode([asked]).unknown
        if unknown is not None and unknown[0] > UNKNOWN_ALLOWED:
            return Optimized(
                asked, asked, 0.0, f"the prompt is kept: the encoder does not know {unknown[0]:.0%} of its words"
            )
        found = self._nearest(asked, self._greedy.rewrite([asked], 1, self._seed)[0])
        if found is None:
            found = self._nearest(asked, self._sampling.rewrite([asked], self._candidates, self._seed)[0])
        return found or Optimized(asked, asked, 0.0, "the prompt is kept: no rewrite was near enough")

    def _nearest(self, prompt: str, rewrites: Sequence[str]) -> Optimized | None:
        """The rewrite with the smallest drift; None when there is none that is near enough."""
        texts = [each for each in dict.fromkeys(rewrites) if each.strip()]
        if not texts:
            return None
        found = self._encoder.encode([prompt, *texts])
        distances = cosine_distance(found.vectors[:1].repeat(len(texts), axis=0), found.vectors[1:])
        if found.unknown is not None:
            distances[found.unknown[1:] > UNKNOWN_ALLOWED] = math.inf
        best = int(distances.argmin())
        limit = 2.0 if self._max_distance is None else self._max_distance
        return Optimized(prompt, texts[best], float(distances[best])) if distances[best] <= limit else None
