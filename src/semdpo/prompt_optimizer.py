"""What a user calls: rewrite a prompt, measure how far the rewrite drifts, and guard against drifting too far."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from semdpo.analysis.semantics import UNKNOWN_ALLOWED, cosine_distance
from semdpo.engine import model_folders
from semdpo.errors import ConfigError, DataError, ModelError
from semdpo.recipe import defaults
from semdpo.texts import is_visible, trimmed

if TYPE_CHECKING:
    from semdpo.models.rewriter_settings import RewriterSettings
    from semdpo.protocols import Rewriter, TextEncoder

DEFAULT_ENCODER = defaults.ENCODER  # where neither the user nor the rewriter names one

log = logging.getLogger("semdpo")


@dataclass(frozen=True, slots=True)
class Optimized:
    """What came of a prompt.

    Attributes:
        prompt: the user's own.
        rewrite: to give to the text-to-image model; the user's own prompt when no rewrite was near enough.
        distance: cosine distance of prompt and ``rewrite``.
        reason: why the user's own prompt was given back; empty when ``rewrite`` is the rewriter's.
        truncated: whether ``rewrite`` met the rewriter's token budget before it had ended.
    """

    prompt: str
    rewrite: str
    distance: float
    reason: str = ""
    truncated: bool = False

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
        encoder_name: of the encoder, for messages.
        max_new_tokens: the rewriters' budget, for messages; None where it is not known.

    Raises:
        ConfigError: an option is out of range.

    Example:
        >>> import semdpo
        >>> optimizer = semdpo.PromptOptimizer.from_pretrained("tiny:gpt2", "tiny:clip", max_distance=0.0)
        >>> optimizer.optimize("a red ball in the desert").rewrite  # no rewrite is as near as this
        'a red ball in the desert'
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
        encoder_name: str = "the encoder",
        max_new_tokens: int | None = None,
    ) -> None:
        if max_distance is not None and not 0 <= max_distance <= 2:
            raise ConfigError(f"max_distance is a cosine distance, from 0 to 2, not {max_distance}")
        if candidates < 1:
            raise ConfigError(f"candidates must be at least 1, not {candidates}")
        self._greedy, self._sampling, self._encoder = greedy, sampling, encoder
        self._max_distance, self._candidates, self._seed = max_distance, candidates, seed
        self.encoder_name, self.max_new_tokens = encoder_name, max_new_tokens

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        encoder: str | None = None,
        *,
        max_distance: float | None = None,
        candidates: int = 8,
        seed: int = 0,
        max_new_tokens: int | None = None,
    ) -> PromptOptimizer:
        """Loads a trained rewriter, to be used as it was trained: its folder's ``semdpo.json`` says how.

        Args:
            path: its folder, or a name.
            encoder: any CLIP or sentence-transformers model. None takes the one that weighed the pairs which the
                rewriter learnt from; where it names none, ``tiny:clip``, which knows only the embedded world's words.
            max_distance: rewrites that are farther from the prompt are not given out; None allows all.
            candidates: how many others are tried when the most probable rewrite drifts too far, ≥ 1.
            seed: of these.
            max_new_tokens: budget of a rewrite; None takes the rewriter's own: that of the longest rewrite it learnt.

        Raises:
            ModelError: a model cannot be loaded, or the encoder that the rewriter names is not there.
            ConfigError: an option is out of range.
            StoreError: this package wrote the rewriter, and a file of it is not as it was written.
        """
        from semdpo.models.registry import resolve
        from semdpo.models.rewriter import Decoding, load_rewriter
        from semdpo.models.rewriter_settings import read_settings
        from semdpo.models.text_encoder import load_text_encoder

        folder = resolve(str(path)).folder()
        model_folders.refuse_damaged(folder)
        kept = read_settings(folder)
        name = _same_encoder(kept, str(path)) if encoder is None else encoder
        budget = max_new_tokens or kept.max_new_tokens or Decoding().max_new_tokens
        greedy = load_rewriter(path, temperature=0.0, max_new_tokens=budget)
        return cls(
            greedy,
            greedy.at_temperature(1.0),
            load_text_encoder(name),
            max_distance=max_distance,
            candidates=candidates,
            seed=seed,
            encoder_name=name,
            max_new_tokens=budget,
        )

    def unknown(self, prompt: str) -> float | None:
        """Share of a prompt's words that the encoder has never seen; None when it cannot tell."""
        shares = self._encoder.encode([trimmed(prompt)]).unknown
        return None if shares is None else float(shares[0])

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
        asked = trimmed(prompt)
        if not is_visible(asked):
            raise DataError("the prompt is empty, or shows nothing; say what the image should show")
        unknown = self.unknown(asked)
        if unknown is not None and unknown > UNKNOWN_ALLOWED:
            return Optimized(
                asked, asked, 0.0, f"the prompt is kept: the encoder does not know {unknown:.0%} of its words"
            )
        found = self._nearest(asked, _rewrites(self._greedy, asked, 1, self._seed))
        if found is None:
            found = self._nearest(asked, _rewrites(self._sampling, asked, self._candidates, self._seed))
        return found or Optimized(asked, asked, 0.0, "the prompt is kept: no rewrite was near enough")

    def _nearest(self, prompt: str, rewrites: Sequence[tuple[str, bool]]) -> Optimized | None:
        """The rewrite with the smallest drift; None when there is none that is near enough."""
        truncated = dict(rewrites)
        texts = [each for each in truncated if is_visible(each)]
        if not texts:
            return None
        found = self._encoder.encode([prompt, *texts])
        distances = cosine_distance(found.vectors[:1].repeat(len(texts), axis=0), found.vectors[1:])
        if found.unknown is not None:
            distances[found.unknown[1:] > UNKNOWN_ALLOWED] = math.inf
        best = int(distances.argmin())
        limit = 2.0 if self._max_distance is None else self._max_distance
        if distances[best] > limit:
            return None
        return Optimized(prompt, texts[best], float(distances[best]), truncated=truncated[texts[best]])


def _rewrites(rewriter: Rewriter, prompt: str, n: int, seed: int) -> list[tuple[str, bool]]:
    """Rewrites of a prompt, each with whether it was truncated, as far as the rewriter tells."""
    from semdpo.protocols import FlaggingRewriter

    if isinstance(rewriter, FlaggingRewriter):
        return rewriter.rewrite_flagged([prompt], n, seed)[0]
    return [(text, False) for text in rewriter.rewrite([prompt], n, seed)[0]]


def _same_encoder(kept: RewriterSettings, path: str) -> str:
    """The encoder that a rewriter names; a warning where its files are no longer those that weighed the pairs.

    Raises:
        ModelError: it is not there.
    """
    from semdpo.engine import fingerprint

    if kept.encoder is None:
        return DEFAULT_ENCODER
    try:
        now = fingerprint.model(kept.encoder)
    except ModelError as error:
        raise ModelError(
            f"the encoder '{kept.encoder}', which measured the drift of what '{path}' learnt, is not there ({error}); "
            "put it back, or name another with --encoder (in Python: encoder=)"
        ) from error
    if kept.encoder_fingerprint not in (None, now):
        log.warning(
            "the encoder '%s' has changed since it measured the drift of what '%s' learnt; its distances may be others",
            kept.encoder, path,
        )  # fmt: skip
    return kept.encoder
