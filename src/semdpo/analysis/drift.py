"""How far rewrites drift from their prompts: d(x, y) = 1 − cos(e(x), e(y)), e a frozen encoder (Sem-DPO, section 3)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semdpo.analysis.atoms import share_lost
from semdpo.analysis.semantics import UNKNOWN_ALLOWED, cosine_distance, scorer_disagreement, small_margin
from semdpo.data.atoms import Atom
from semdpo.data.records import Pair, content_id
from semdpo.errors import DataError
from semdpo.progress import Progress, progress_of_part, silent
from semdpo.protocols import Float, KnowsWords, TextEncoder
from semdpo.recipe import defaults

CHUNK = 512  # pairs whose embeddings are in memory at a time
PROMPTS_HELD = 4096  # prompts whose embeddings are kept for later pairs; 12 MB at 768 dimensions


@dataclass(frozen=True)
class Drift:
    """The drift of preference pairs as one encoder measures it.

    Attributes:
        distance: cosine distances between prompt and chosen, [n], in [0, 2].
        rejected_distance: cosine distances between prompt and rejected, [n], in [0, 2].
        truncated: whether the prompt, the chosen or the rejected is longer than the encoder reads, [n].
        unknown: mean share of words per text that the encoder does not know; None where it does not report this.
    """

    distance: NDArray[np.float64]
    rejected_distance: NDArray[np.float64]
    truncated: NDArray[np.bool_]
    unknown: float | None


def measure(
    pairs: Sequence[Pair], encoder: TextEncoder, batch_size: int = defaults.TEXTS_AT_A_TIME, progress: Progress = silent
) -> Drift:
    """Measures the distances chunk by chunk, so that a bounded number of embeddings is in memory at a time.

    Every text is embedded once per chunk, and a prompt only once while it is among the last ``PROMPTS_HELD`` prompts.

    Args:
        pairs: preference pairs, at least one.
        encoder: the frozen encoder e.
        batch_size: number of texts that are encoded at a time.
        progress: called after every batch with the number of finished pairs.

    Raises:
        DataError: there are no pairs, the encoder cannot read a text (its row is named), or an embedding is not finite
            or zero.
    """
    refuse_none(len(pairs))
    [(_, drift)] = measure_pieces([pairs], len(pairs), encoder, batch_size, progress)
    return drift


def measure_pieces(
    pieces: Iterable[Sequence[Pair]],
    total: int,
    encoder: TextEncoder,
    batch_size: int = defaults.TEXTS_AT_A_TIME,
    progress: Progress = silent,
) -> Iterator[tuple[Sequence[Pair], Drift]]:
    """Measures pairs as ``measure`` does, piece by piece.

    Args:
        pieces: the pairs in pieces, each with at least one.
        total: the number of all pairs.
        encoder: the frozen encoder e.
        batch_size: number of texts that are encoded at a time.
        progress: called after every batch with the number of finished pairs.

    Yields:
        Each piece with its drift, of which ``unknown`` is the share in all pieces so far.

    Raises:
        DataError: as ``measure`` raises it.
    """
    measuring, done = _Measuring(encoder, batch_size), 0
    for piece in pieces:
        for start in range(0, len(piece), max(CHUNK, batch_size)):
            chunk = piece[start : start + max(CHUNK, batch_size)]
            measuring.add(chunk, done, progress_of_part(progress, done, total))
            done += len(chunk)
        yield piece, measuring.drift()


class _Measuring:
    """The state that is kept from one chunk of pairs to the next."""

    def __init__(self, encoder: TextEncoder, batch_size: int) -> None:
        self.encoder, self.batch_size = encoder, batch_size
        self.prompts: dict[str, _Embedded] = {}  # the latest prompts, the oldest first
        self.columns: list[tuple[NDArray[Any], ...]] = []  # per chunk of a piece: both distances, truncated
        self.shares: list[Float] = []  # share of unknown words of every distinct text …
        self.counted: set[str] = set()  # … in this set; empty where the encoder does not report them

    def add(self, chunk: Sequence[Pair], start: int, progress: Progress) -> None:
        """Measures a chunk of pairs; ``start`` is the row of its first pair, counted from 0."""
        embedded = self._embed(chunk, start, progress)
        triples = [(embedded[p.prompt], embedded[p.chosen], embedded[p.rejected]) for p in chunk]
        prompt, chosen, rejected = (np.stack([text.vector for text in column]) for column in zip(*triples, strict=True))
        truncated = np.array([any(text.truncated for text in triple) for triple in triples])
        self.columns.append((cosine_distance(prompt, chosen), cosine_distance(prompt, rejected), truncated))
        for pair in chunk:
            # A copy, because a view of one row would keep its whole batch in memory.
            prompt_embedding = (
                self.prompts.pop(pair.prompt) if pair.prompt in self.prompts else embedded[pair.prompt].copy()
            )
            self.prompts[pair.prompt] = prompt_embedding
        while len(self.prompts) > PROMPTS_HELD:
            del self.prompts[next(iter(self.prompts))]

    def drift(self) -> Drift:
        """The drift of the chunks since the last call."""
        distance, rejected, truncated = (np.concatenate(column) for column in zip(*self.columns, strict=True))
        self.columns.clear()
        return Drift(distance, rejected, truncated, float(np.concatenate(self.shares).mean()) if self.shares else None)

    def _embed(self, chunk: Sequence[Pair], start: int, progress: Progress) -> dict[str, _Embedded]:
        texts = dict.fromkeys(text for p in chunk for text in (p.prompt, p.chosen, p.rejected))
        embedded = {text: self.prompts[text] for text in texts if text in self.prompts}
        new = [text for text in texts if text not in embedded]
        for first in range(0, len(new), self.batch_size):
            batch = new[first : first + self.batch_size]
            try:
                encoded = self.encoder.encode(batch)
            except DataError as error:
                raise _named(chunk, start, self.encoder, error) from error
            _refuse_broken(batch, encoded.vectors)
            embedded |= zip(batch, map(_Embedded, encoded.vectors, encoded.truncated), strict=True)
            self._count(batch, encoded.unknown)
            progress(len(chunk) * (first + len(batch)) // len(new), len(chunk))
        return embedded

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
    """Refuses an empty set of pairs.

    Args:
        count: number of pairs.

    Raises:
        DataError: ``count`` is 0.
    """
    if not count:
        raise DataError("there are no pairs to weigh; lower pairs.margin or give more prompts")


def _refuse_broken(texts: Sequence[str], vectors: Float) -> None:
    bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1) | ~vectors.any(axis=1))
    if bad.size:
        fault = "not finite" if vectors[bad[0]].any() else "zero, so that nothing has a distance from it"
        raise DataError(f"the embedding of {texts[bad[0]][:80]!r} is {fault}; use another encoder or precision")


def _named(chunk: Sequence[Pair], start: int, encoder: TextEncoder, error: DataError) -> DataError:
    """The encoder's error, with the row of the text that caused it."""
    for row, pair in enumerate(chunk, start=start + 1):
        try:
            encoder.encode([pair.prompt, pair.chosen, pair.rejected])
        except DataError as refusal:
            return DataError(f"row {row} (pair {pair.pair_id}): {refusal}")
    return error


def unknown_share(
    texts: Sequence[str], encoder: TextEncoder, batch_size: int = defaults.TEXTS_AT_A_TIME
) -> float | None:
    """Mean share of words per text that the encoder does not know; None where the encoder does not report this.

    Args:
        texts: the texts, n.
        encoder: the frozen encoder e.
        batch_size: number of texts that are encoded at a time.
    """
    batches = (encoder.encode(texts[start : start + batch_size]) for start in range(0, len(texts), batch_size))
    shares = [batch.unknown for batch in batches if batch.unknown is not None]
    return float(np.concatenate(shares).mean()) if shares else None


def unknown_beforehand(pairs: Iterable[Pair], encoder: TextEncoder) -> float | None:
    """``Drift.unknown`` of all pairs, computed without embedding them; None where the encoder does not support this.

    Args:
        pairs: preference pairs; not read where the encoder does not support this.
        encoder: the frozen encoder e.
    """
    if not isinstance(encoder, KnowsWords) or encoder.unknown_words([]) is None:
        return None
    texts = dict.fromkeys(text for p in pairs for text in (p.prompt, p.chosen, p.rejected))
    shares = encoder.unknown_words(list(texts))
    return None if shares is None else float(shares.mean())


def refuse_unknown_words(unknown: float | None, name: str) -> None:
    """Refuses texts with many words that the encoder does not know, because their distances would be meaningless.

    Args:
        unknown: mean share of unknown words per text, in [0, 1]; None passes.
        name: name of the encoder, for the message.

    Raises:
        DataError: the share is above ``UNKNOWN_ALLOWED``.
    """
    if unknown is not None and unknown > UNKNOWN_ALLOWED:
        raise DataError(
            f"{name} knows only its world's words: {unknown:.0%} of the words here are unknown; "
            "give a CLIP or a sentence-transformers model: --encoder (in Python encoder=, in a recipe drift.encoder)"
        )


def by_atoms(pairs: Sequence[Pair], atoms: Mapping[str, Sequence[Atom]], maker: str) -> Drift:
    """The share of its prompt's atoms that each rewrite no longer states, as a distance in [0, 1].

    Args:
        pairs: preference pairs.
        atoms: prompt id → its atoms.
        maker: who made them, as in a recipe.

    Raises:
        DataError: a prompt has no atoms, or none of which the words are known; the message names it.
    """
    lost = [
        [share_lost(text, atoms.get(content_id(p.prompt), ()), maker) for text in (p.chosen, p.rejected)] for p in pairs
    ]
    if untold := [pair.prompt for pair, shares in zip(pairs, lost, strict=True) if None in shares]:
        raise DataError(
            f"{len(untold)} prompts have no atom that a text could lose, such as '{untold[0][:80]}': a question must "
            "share a word with its prompt; add such atoms, or set drift.source=encoder"
        )
    distances = np.array(lost, np.float64).reshape(len(pairs), 2)
    return Drift(distances[:, 0], distances[:, 1], np.zeros(len(pairs), np.bool_), None)


def by_scores(pairs: Iterable[Pair], source: str) -> dict[str, float]:
    """Pair id → its distance, where that comes from the scores of its images.

    Args:
        pairs: all preference pairs, because the scale of the scores is that of all.
        source: ``scorer_agreement`` or ``margin``.

    Raises:
        DataError: a pair has no such scores, or they give no scale.
    """
    ids, values = list[str](), list[float]()
    for pair in pairs:
        sides = (pair.chosen_fidelity, pair.rejected_fidelity)
        chosen, rejected = sides if source == "scorer_agreement" else (pair.chosen_score, pair.rejected_score)
        if chosen is None or rejected is None:
            raise DataError(f"pair {pair.pair_id} has no scores for drift.source={source}; label its images again")
        ids.append(pair.pair_id)
        values.append(chosen - rejected)
    try:
        found = scorer_disagreement(values) if source == "scorer_agreement" else small_margin(values)
    except ValueError as error:
        raise DataError(f"drift.source={source}: {error}") from error
    return dict(zip(ids, found.tolist(), strict=True))


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
            truncated=bool(truncated),
            encoder=encoder,
            encoder_fingerprint=fingerprint,
        )
        for pair, d, r, truncated in columns
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
        pairs: preference pairs, at least one.
        encoder: the frozen encoder e.
        batch_size: number of texts that are encoded at a time.
        name: name of the encoder, recorded with the pairs.
        progress: called after every batch.
        fingerprint: fingerprint of the encoder; where None, neither name nor fingerprint is recorded.

    Raises:
        DataError: there are no pairs, or the encoder does not know their words.
    """
    drift = measure(pairs, encoder, batch_size, progress)
    refuse_unknown_words(drift.unknown, name)
    return with_drift(pairs, drift, *(() if fingerprint is None else (name, fingerprint)))
