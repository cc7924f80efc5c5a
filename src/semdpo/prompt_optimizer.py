"""Rewrites a user's prompt, and keeps the prompt when a rewrite drifts too far or loses what must not change."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from semdpo import protected_spans
from semdpo.analysis.semantics import UNKNOWN_ALLOWED, cosine_distance
from semdpo.engine import model_folders
from semdpo.errors import ConfigError, DataError, ModelError
from semdpo.protected_spans import LostSpanError, Protected
from semdpo.recipe import defaults
from semdpo.texts import is_visible, shown, trimmed

if TYPE_CHECKING:
    from semdpo.models.rewriter_settings import RewriterSettings
    from semdpo.protocols import Rewriter, TextEncoder

KEPT = "the prompt is kept:"
DEFAULT_ENCODER = defaults.ENCODER  # used where neither the user nor the rewriter names an encoder

log = logging.getLogger("semdpo")


@dataclass(frozen=True, slots=True)
class Optimized:
    """The result for one prompt.

    Attributes:
        prompt: the user's prompt.
        rewrite: the text for the text-to-image model; the user's prompt when all rewrites drift too far.
        distance: the cosine distance of ``prompt`` and ``rewrite``.
        reason: why ``rewrite`` is the user's prompt; empty when it is the rewriter's.
        truncated: whether ``rewrite`` was truncated at the rewriter's token budget.
    """

    prompt: str
    rewrite: str
    distance: float
    reason: str = ""
    truncated: bool = False

    @property
    def kept(self) -> bool:
        """Whether ``rewrite`` comes from the rewriter."""
        return not self.reason


class PromptOptimizer:
    """A rewriter, and the encoder that measures how far its rewrites drift.

    Args:
        greedy: the rewriter that gives a prompt's most probable rewrite.
        sampling: the rewriter that samples other rewrites, when that one drifts too far.
        encoder: the encoder that measures the drift.
        max_distance: the largest cosine distance of a rewrite from its prompt, 0 to 2; None allows all.
        candidates: the number of other rewrites to sample, ≥ 1.
        seed: the seed of the sampling.
        encoder_name: the encoder's name, for messages.
        max_new_tokens: the rewriters' token budget, for messages; None where it is not known.

    Raises:
        ConfigError: an option is out of range.

    Source:
        The distance: Sem-DPO (arXiv 2507.20133), section 3.

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
            raise ConfigError(f"max_distance is {max_distance}; it must be a cosine distance, from 0 to 2")
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
        """Loads a trained rewriter, with the settings that ``semdpo.json`` in its folder gives.

        Args:
            path: the rewriter's folder, or a model's name.
            encoder: any CLIP or sentence-transformers model. None takes the encoder that measured the rewriter's
                training pairs; where the rewriter names none, ``tiny:clip``, which knows only the embedded world's
                words.
            max_distance: the largest cosine distance of a rewrite from its prompt, 0 to 2; None allows all.
            candidates: the number of other rewrites to sample when the most probable one drifts too far, ≥ 1.
            seed: the seed of the sampling.
            max_new_tokens: the token budget of a rewrite; None takes the rewriter's, which fits the longest rewrite
                that it was trained on.

        Raises:
            ModelError: a model cannot be loaded, or the encoder that the rewriter names is missing.
            ConfigError: an option is out of range.
            StoreError: semdpo wrote the rewriter, and one of its files has changed since.
        """
        from semdpo.models.registry import resolve
        from semdpo.models.rewriter import Decoding, load_rewriter
        from semdpo.models.rewriter_settings import read_settings
        from semdpo.models.text_encoder import load_text_encoder

        folder = resolve(str(path)).folder()
        model_folders.refuse_damaged(folder)
        settings = read_settings(folder)
        name = _encoder_of(settings, str(path)) if encoder is None else encoder
        budget = max_new_tokens or settings.max_new_tokens or Decoding().max_new_tokens
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
        """The share of a prompt's words that the encoder has never seen; None when it does not know."""
        plain = " ".join(part.plain for part in protected_spans.protect(trimmed(prompt)))
        shares = self._encoder.encode([plain]).unknown
        return None if shares is None else float(shares[0])

    def optimize(self, prompt: str, keep: Sequence[str] = ()) -> Optimized:
        """Rewrites a prompt.

        The result is the most probable rewrite if its distance from the prompt is at most ``max_distance``; otherwise
        the nearest of the sampled rewrites, if its distance is; otherwise the user's prompt. A rewrite whose words the
        encoder does not know has no distance and is not used. A prompt of such words is returned unchanged.

        What ``protected_spans`` finds (syntax of image tools, quoted text, numbers) stays as it is, letter by letter;
        a rewrite that lost some of it is not used. Distances are those of the texts without this syntax. The parts of a
        prompt that ``BREAK`` or ``AND`` separates are rewritten one by one, and ``distance`` is the largest of theirs.

        Args:
            prompt: the user's prompt.
            keep: words and phrases that must not change either.

        Raises:
            DataError: the prompt is empty, or too long for the rewriter.
        """
        text = trimmed(prompt)
        if not is_visible(text):
            raise DataError("the prompt is empty, or shows nothing; say what the image should show")
        unknown = self.unknown(text)
        if unknown is not None and unknown > UNKNOWN_ALLOWED:
            return Optimized(text, text, 0.0, f"{KEPT} the encoder does not know {unknown:.0%} of its words")
        rewrites: list[str] = []
        found: list[Optimized] = []
        for part in protected_spans.protect(text, keep):
            if not is_visible(part.plain):  # syntax alone
                rewrites.append(part.restore(part.plain))
                continue
            found.append(self._rewritten(part))
            if not found[-1].kept:
                return Optimized(text, text, 0.0, found[-1].reason)
            rewrites.append(found[-1].rewrite)
        if not found:
            return Optimized(text, text, 0.0, f"{KEPT} it has no words to rewrite")
        farthest = max(each.distance for each in found)
        return Optimized(
            text, protected_spans.join(text, rewrites), farthest, truncated=any(each.truncated for each in found)
        )

    def _rewritten(self, part: Protected) -> Optimized:
        """The best rewrite of one part of a prompt, with its spans put back."""
        lost: list[str] = []
        for rewriter, n in ((self._greedy, 1), (self._sampling, self._candidates)):
            usable = []
            for text, truncated in _rewrites(rewriter, part.plain, n, self._seed):
                try:
                    usable.append((text, part.restore(text), truncated))
                except LostSpanError as error:
                    lost.append(error.text)
            if nearest := self._nearest(part.plain, usable):
                return nearest
        reason = f"no rewrite kept {shown(lost[-1])} and was near enough" if lost else "no rewrite was near enough"
        return Optimized(part.plain, part.plain, 0.0, f"{KEPT} {reason}")

    def _nearest(self, prompt: str, rewrites: Sequence[tuple[str, str, bool]]) -> Optimized | None:
        """The rewrite with the smallest distance; None when all drift too far.

        Args:
            prompt: the text that was rewritten.
            rewrites: each as the rewriter wrote it, with its spans put back, and whether it was truncated.
        """
        visible = list({rewrite[0]: rewrite for rewrite in rewrites if is_visible(rewrite[0])}.values())
        if not visible:
            return None
        embeddings = self._encoder.encode([prompt, *(text for text, *_ in visible)])
        distances = cosine_distance(embeddings.vectors[:1].repeat(len(visible), axis=0), embeddings.vectors[1:])
        if embeddings.unknown is not None:
            distances[embeddings.unknown[1:] > UNKNOWN_ALLOWED] = math.inf
        best = int(distances.argmin())
        limit = 2.0 if self._max_distance is None else self._max_distance
        if distances[best] > limit:
            return None
        _, restored, truncated = visible[best]
        return Optimized(prompt, restored, float(distances[best]), truncated=truncated)


def _rewrites(rewriter: Rewriter, prompt: str, n: int, seed: int) -> list[tuple[str, bool]]:
    """Rewrites of a prompt, each with whether it was truncated, as far as the rewriter reports it."""
    from semdpo.protocols import FlaggingRewriter

    if isinstance(rewriter, FlaggingRewriter):
        return rewriter.rewrite_flagged([prompt], n, seed)[0]
    return [(text, False) for text in rewriter.rewrite([prompt], n, seed)[0]]


def _encoder_of(settings: RewriterSettings, path: str) -> str:
    """The encoder that a rewriter names; warns where its files have changed since it measured the training pairs.

    Raises:
        ModelError: the encoder is missing.
    """
    from semdpo.engine import fingerprint

    if settings.encoder is None:
        return DEFAULT_ENCODER
    try:
        now = fingerprint.model(settings.encoder)
    except ModelError as error:
        raise ModelError(
            f"the encoder '{settings.encoder}', which measured the training pairs of '{path}', is missing ({error}); "
            "restore it, or name another with --encoder (in Python: encoder=)"
        ) from error
    if settings.encoder_fingerprint not in (None, now):
        log.warning(
            "the encoder '%s' has changed since it measured the training pairs of '%s'; its distances may differ",
            settings.encoder, path,
        )  # fmt: skip
    return settings.encoder
