"""Stage 6: how far rewrites drift from their prompt, d(x, y) = 1 − cos(e(x), e(y)) (Sem-DPO, section 3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from semdpo import defaults
from semdpo.errors import DataError
from semdpo.progress import Progress, silent
from semdpo.protocols import TextEncoder
from semdpo.records import Pair
from semdpo.semantics import UNKNOWN_ALLOWED, cosine_distance


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
    """Embeds every distinct text once and takes the distances.

    Args:
        pairs: at least one.
        encoder: the frozen encoder e.
        batch_size: texts at a time.
        progress: told after every batch.

    Raises:
        DataError: there are no pairs, the encoder cannot read a text (its row is named), or an embedding is not finite.
    """
    if not pairs:
        raise DataError("there are no pairs to weigh; lower pairs.margin or give more prompts")
    texts = list(dict.fromkeys(text for p in pairs for text in (p.prompt, p.chosen, p.rejected)))
    batches = []
    for start in range(0, len(texts), batch_size):
        try:
            batches.append(encoder.encode(texts[start : start + batch_size]))
        except DataError as error:
            raise _named(pairs, encoder, error) from error
        progress(min(start + batch_size, len(texts)), len(texts))
    row = {text: i for i, text in enumerate(texts)}
    prompt, chosen, rejected = (
        np.array([row[text] for text in column])
        for column in zip(*((p.prompt, p.chosen, p.rejected) for p in pairs), strict=True)
    )
    vectors = np.concatenate([batch.vectors for batch in batches])
    if not np.isfinite(vectors).all():
        bad = texts[int(np.flatnonzero(~np.isfinite(vectors).all(axis=1))[0])]
        raise DataError(f"the encoder gives no finite embedding of {bad[:80]!r}; use another encoder or precision")
    cut = np.concatenate([batch.truncated for batch in batches])
    shares = [batch.unknown for batch in batches if batch.unknown is not None]
    return Drift(
        cosine_distance(vectors[prompt], vectors[chosen]),
        cosine_distance(vectors[prompt], vectors[rejected]),
        cut[prompt] | cut[chosen] | cut[rejected],
        float(np.concatenate(shares).mean()) if shares else None,
    )


def _named(pairs: Sequence[Pair], encoder: TextEncoder, error: DataError) -> DataError:
    """The encoder's refusal of a text, with the row that the text stands in."""
    for row, pair in enumerate(pairs, start=1):
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
            "pass --encoder (in a recipe: weigh.encoder) with a CLIP or a sentence-transformers model"
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
