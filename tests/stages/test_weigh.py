"""Stage 6: distances, each text embedded once, and words that the encoder does not know."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from semdpo.errors import DataError
from semdpo.protocols import Embeddings
from semdpo.records import Pair
from semdpo.stages.weigh import measure, weigh

ANGLES = {"x": 0.0, "near": 0.1, "far": 2.0, "y": 1.0}


class Encoder:
    def __init__(self, unknown: float | None = None) -> None:
        self.seen: list[str] = []
        self.unknown = unknown

    def encode(self, texts: Sequence[str]) -> Embeddings:
        self.seen += texts
        vectors = np.array([[math.cos(ANGLES[t]), math.sin(ANGLES[t])] for t in texts], np.float32)
        share = None if self.unknown is None else np.full(len(texts), self.unknown, np.float32)
        return Embeddings(vectors, np.array([t == "far" for t in texts]), share)


def _pair(prompt: str, chosen: str, rejected: str) -> Pair:
    return Pair(f"{prompt}-{chosen}", prompt, chosen, rejected, 1.0, 0.0)


PAIRS = [_pair("x", "near", "far"), _pair("y", "x", "near")]


def test_distances_are_those_of_the_prompt() -> None:
    rows = weigh(PAIRS, Encoder(), batch_size=3)
    assert [row.pair_id for row in rows] == ["x-near", "y-x"]
    expected = [(1 - math.cos(0.1), 1 - math.cos(2.0)), (1 - math.cos(1.0), 1 - math.cos(0.9))]
    for row, values in zip(rows, expected, strict=True):
        assert (row.distance, row.rejected_distance) == pytest.approx(values, abs=1e-6)
    assert [row.truncated for row in rows] == [True, False]
    assert rows[0].chosen_score == 1.0


def test_every_text_is_embedded_once_and_batches_do_not_matter() -> None:
    encoder = Encoder()
    rows = weigh(PAIRS, encoder, batch_size=1)
    assert sorted(encoder.seen) == ["far", "near", "x", "y"]
    assert rows == weigh(PAIRS, Encoder(), batch_size=64)


def test_unknown_words_are_refused_above_a_fifth() -> None:
    assert measure(PAIRS, Encoder(0.1)).unknown == pytest.approx(0.1)
    assert measure(PAIRS, Encoder()).unknown is None
    weigh(PAIRS, Encoder(0.19))
    with pytest.raises(DataError, match="tiny:clip knows only its world's words: 63% of the words here are unknown"):
        weigh(PAIRS, Encoder(0.63), name="tiny:clip")


def test_what_cannot_be_measured_is_refused() -> None:
    with pytest.raises(DataError, match="there are no pairs to weigh"):
        weigh([], Encoder())

    class Broken(Encoder):
        def encode(self, texts: Sequence[str]) -> Embeddings:
            found = super().encode(texts)
            found.vectors[[t == "near" for t in texts]] = np.nan
            return found

    with pytest.raises(DataError, match="no finite embedding of 'near'"):
        weigh(PAIRS, Broken())


def test_the_row_of_a_text_that_cannot_be_read_is_named() -> None:
    class Refuses(Encoder):
        def encode(self, texts: Sequence[str]) -> Embeddings:
            if "y" in texts:
                raise DataError("the text 'y' contains 'y', which is a control token; remove it")
            return super().encode(texts)

    with pytest.raises(DataError, match=r"row 2 \(pair y-x\): the text 'y' contains"):
        weigh(PAIRS, Refuses())
