"""How far rewrites drift from their prompts: d(x, y) = 1 − cos(e(x), e(y)), e a frozen encoder (Sem-DPO, section 3)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semdpo.analysis.semantics import UNKNOWN_ALLOWED, cosine_distance
from semdpo.data.records import Pair
from semdpo.errors import DataError
from semdpo.progress import Progress, progress_of_part, silent
from semdpo.protocols import Float, KnowsWords, TextEncoder
from semdpo.recipe import defaults

CHUNK = 512  # pairs whose embeddings are in memory at a time
PROMPTS_HELD = 4096  # prompts whose embeddings are kept for pairs that follow; 12 MB of 768 dimensions


@dataclass(frozen=True)
class Drift:
    """What an encoder says about pairs.

    Attributes:
        distance: of prompt and chosen, [n].
        rejected_distance: of prompt and rejected, [n].
        truncated: whether the encoder could not read the prompt, the chosen or the rejected to its end, [n].
        unknown: mean share of words that the encoder has never seen, over all texts; None when it cannot tell.
    """

    distance: NDArray[np.float64]
    rejected_distance: NDArray[np.float64]
    truncated: NDArray[np.bool_]
    unknown: float | None


def measure(
    pairs: Sequence[Pair], encoder: TextEncoder, batch_size: int = defaults.TEXTS_AT_A_TIME, progress: Progress = silent
) -> Drift:
    """Takes the distances chunk by chunk, so that embeddings of a bounded number of texts are in memory at a time.

    A text is embedded once in a chunk, and a prompt once while it is among the ``PROMPTS_HELD`` that were met last.

    Args:
        pairs: at least one.
        encoder: the frozen encoder e.
        batch_size: texts at a time.
        progress: how many pairs are done; called after every batch.

    Raises:
        DataError: there are no pairs, the encoder cannot read a text (its row is named), or an embedding is not finite.
    """
    refuse_none(len(pairs))
    measuring = _Measuring(encoder, batch_size)
    for start in range(0, len(pairs), max(CHUNK, batch_size)):
        chunk = pairs[start : start + max(CHUNK, batch_size)]
        measuring.add(chunk, start, progress_of_part(progress, start, len(pairs)))
    return measuring.drift()


class _Measuring:
    """What is kept from one chunk of pairs to the next."""

    def __init__(self, encoder: TextEncoder, batch_size: int) -> None:
        self.encoder, self.batch_size = encoder, batch_size
        self.prompts: dict[str, _Embedded] = {}  # those met last, the oldest first
        self.columns: list[tuple[NDArray[Any], ...]] = []  # of each chunk: both distances, truncated
        self.shares: list[Float] = []  # of unknown words, one for each distinct text …
        self.counted: set[str] = set()  # … of these; empty where the encoder cannot tell

    def add(self, chunk: Sequence[Pair], start: int, progress: Progress) -> None:
        """Measures pairs, of which the first stands in row ``start``, counted from 0."""
        found = self._embed(chunk, start, progress)
        triples = [(found[p.prompt], found[p.chosen], found[p.rejected]) for p in chunk]
        prompt, chosen, rejected = (np.stack([each.vector for each in column]) for column in zip(*triples, strict=True))
        truncated = np.array([any(each.truncated for each in triple) for triple in triples])
        self.columns.append((cosine_distance(prompt, chosen), cosine_distance(prompt, rejected), truncated))
        for pair in chunk:
            # A copy, for a row of a batch would keep the whole batch in memory.
            known = self.prompts.pop(pair.prompt) if pair.prompt in self.prompts else found[pair.prompt].copy()
            self.prompts[pair.prompt] = known
        while len(self.prompts) > PROMPTS_HELD:
            del self.prompts[next(iter(self.prompts))]

    def drift(self) -> Drift:
        distance, rejected, truncated = (np.concatenate(column) for column in zip(*self.columns, strict=True))
        return Drift(distance, rejected, truncated, float(np.concatenate(self.shares).mean()) if self.shares else None)

    def _embed(self, chunk: Sequence[Pair], start: int, progress: Progress) -> dict[str, _Embedded]:
        texts = dict.fromkeys(text for p in chunk for text in (p.prompt, p.chosen, p.rejected))
        found = {text: self.prompts[text] for text in texts if text in self.prompts}
        new = [text for text in texts if text not in found]
        for first in range(0, len(new), self.batch_size):
            batch = new[first : first + self.batch_size]
            try:
                encoded = self.encoder.encode(batch)
            except DataError as error:
                raise _named(chunk, start, self.encoder, error) from error
            _refuse_broken(batch, encoded.vectors)
            found |= zip(batch, map(_Embedded, encoded.vectors, encoded.truncated), strict=True)
            self._count(batch, encoded.unknown)
            progress(len(chunk) * (first + len(batch)) // len(new), len(chunk))
        return found

    def _count(self, texts: Sequence[str], unknown: Float | None) -> None:
        if unknown is not None:
            self.shares.append(unknown[[text not in self.counted for text in texts]])
            self.counted.update(texts)


@dataclass(frozen=True, slots=True)
class _Embedded:
    vector: Float
    truncated: bool

    def copy(self) -> _Embedded:
        return _Embedded(self.vector.copy(), self.truncated)


def refuse_none(count: int) -> None:
    """Refuses to weigh no pairs.

    Raises:
        DataError: ``count``, the number of pairs, is 0.
    """
    if not count:
        raise DataError("there are no pairs to weigh; lower pairs.margin or give more prompts")


def _refuse_broken(texts: Sequence[str], vectors: Float) -> None:
    if not np.isfinite(vectors).all():
        bad = texts[int(np.flatnonzero(~np.isfinite(vectors).all(axis=1))[0])]
        raise DataError(f"the encoder gives no finite embedding of {bad[:80]!r}; use another encoder or precision")


def _named(chunk: Sequence[Pair], start: int, encoder: TextEncoder, error: DataError) -> DataError:
    """The encoder's refusal of a text, with the row that the text stands in."""
    for row, pair in enumerate(chunk, start=start + 1):
        try:
            encoder.encode([pair.prompt, pair.chosen, pair.rejected])
        except DataError as refusal:
            return DataError(f"row {row} (pair {pair.pair_id}): {refusal}")
    return error


def unknown_share(
    texts: Sequence[str], encoder: TextEncoder, batch_size: int = defaults.TEXTS_AT_A_TIME
) -> float | None:
    """Mean share of the texts' words that the encoder has never seen; None when it cannot tell."""
    batches = (encoder.encode(texts[start : start + batch_size]) for start in range(0, len(texts), batch_size))
    shares = [batch.unknown for batch in batches if batch.unknown is not None]
    return float(np.concatenate(shares).mean()) if shares else None


def unknown_beforehand(pairs: Iterable[Pair], encoder: TextEncoder) -> float | None:
    """``Drift.unknown`` of all pairs, without embedding them; None when the encoder cannot tell it so.

    Args:
        pairs: read one after the other, if the encoder can tell.
        encoder: the frozen encoder e.
    """
    if not isinstance(encoder, KnowsWords) or encoder.unknown_words([]) is None:
        return None
    texts = dict.fromkeys(text for p in pairs for text in (p.prompt, p.chosen, p.rejected))
    shares = encoder.unknown_words(list(texts))
    return None if shares is None else float(shares.mean())


def refuse_unknown_words(unknown: float | None, name: str) -> None:
    """Refuses words that the encoder has never seen, of which its distances would mean nothing.

    Args:
        unknown: their share, as measured; None passes.
        name: the encoder's.

    Raises:
        DataError: on average, more than a fifth of the words are unknown.
    """
    if unknown is not None and unknown > UNKNOWN_ALLOWED:
        raise DataError(
            f"{name} knows only its world's words: {unknown:.0%} of the words here are unknown; "
            "give a CLIP or a sentence-transformers model: --encoder (in Python encoder=, in a recipe drift.encoder)"
        )


def with_drift(
    pairs: Sequence[Pair], drift: Drift, encoder: str | None = None, fingerprint: str | None = None
) -> list[Pair]:
    """The pairs with their distances filled in, and the name and fingerprint of the encoder that measured them."""
    columns = zip(pairs, drift.distance, drift.rejected_distance, drift.truncated, strict=True)
    return [
        replace(
            pair,
            distance=float(d),
            rejected_distance=float(r),
            truncated=bool(cut),
            encoder=encoder,
            encoder_fingerprint=fingerprint,
        )
        for pair, d, r, cut in columns
    ]


def weigh(
    pairs: Sequence[Pair],
    encoder: TextEncoder,
    batch_size: int = defaults.TEXTS_AT_A_TIME,
    name: str = "the encoder",
    progress: Progress = silent,
    fingerprint: str | None = None,
) -> list[Pair]:
    """Measures pairs and fills in ``distance``, ``rejected_distance``, ``truncated`` and the encoder's two columns.

    Args:
        pairs: at least one.
        encoder: the frozen encoder e.
        batch_size: texts at a time.
        name: of the encoder, to be found again by.
        progress: told after every batch.
        fingerprint: of the encoder; without it, it is not noted with the pairs.

    Raises:
        DataError: there are no pairs, or the encoder does not know their words.
    """
    drift = measure(pairs, encoder, batch_size, progress)
    refuse_unknown_words(drift.unknown, name)
    return with_drift(pairs, drift, *(() if fingerprint is None else (name, fingerprint)))
