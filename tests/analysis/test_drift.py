"""Stage 6: distances, each text embedded once, and words that the encoder does not know."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import weakref
from collections.abc import Sequence
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semdpo.analysis import drift as stage
from semdpo.analysis.drift import Drift, measure, unknown_beforehand, weigh
from semdpo.analysis.semantics import cosine_distance
from semdpo.data.records import Pair, content_seed
from semdpo.errors import DataError
from semdpo.protocols import Embeddings, Float

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
        value = np.nan

        def encode(self, texts: Sequence[str]) -> Embeddings:
            found = super().encode(texts)
            found.vectors[[t == "near" for t in texts]] = self.value
            return found

    with pytest.raises(DataError, match="the embedding of 'near' is not finite"):
        weigh(PAIRS, Broken())
    Broken.value = 0.0
    with pytest.raises(DataError, match=r"the embedding of 'near' is zero, .* use another encoder"):
        weigh(PAIRS, Broken())


def test_the_row_of_a_text_that_cannot_be_read_is_named() -> None:
    class Refuses(Encoder):
        def encode(self, texts: Sequence[str]) -> Embeddings:
            if "y" in texts:
                raise DataError("the text 'y' contains 'y', which is a control token; remove it")
            return super().encode(texts)

    with pytest.raises(DataError, match=r"row 2 \(pair y-x\): the text 'y' contains"):
        weigh(PAIRS, Refuses())


# ------------------------------------------------------------------------------------------------- chunks


class Letters:
    """Vectors that depend on a text alone; counts what it is asked, and how many of its rows are still in memory."""

    def __init__(self, tells: bool = True) -> None:
        self.seen: list[str] = []
        self.tells = tells
        self.alive = self.most = 0

    def encode(self, texts: Sequence[str]) -> Embeddings:
        self.seen += texts
        vectors = np.array([np.random.default_rng(content_seed(t)).normal(size=7) for t in texts], np.float32)
        self.alive += len(texts)
        self.most = max(self.most, self.alive)
        weakref.finalize(vectors, self._freed, len(texts))
        share = np.array([content_seed(t) % 100 / 100 for t in texts], np.float32)
        return Embeddings(vectors, np.array([t < "b" for t in texts]), share if self.tells else None)

    def _freed(self, rows: int) -> None:
        self.alive -= rows


def _all_at_once(pairs: Sequence[Pair], encoder: Letters) -> Drift:
    texts = list(dict.fromkeys(text for p in pairs for text in (p.prompt, p.chosen, p.rejected)))
    whole, row = encoder.encode(texts), {text: i for i, text in enumerate(texts)}
    a, b, c = (np.array([row[getattr(p, name)] for p in pairs]) for name in ("prompt", "chosen", "rejected"))
    distance, rejected = (cosine_distance(whole.vectors[a], whole.vectors[other]) for other in (b, c))
    unknown = None if whole.unknown is None else float(whole.unknown.mean())
    return Drift(distance, rejected, whole.truncated[a] | whole.truncated[b] | whole.truncated[c], unknown)


@given(
    triples=st.lists(st.tuples(*[st.sampled_from("abcdefgh")] * 3), min_size=1, max_size=30),
    chunk=st.integers(1, 12),
    held=st.integers(0, 4),
    batch_size=st.integers(1, 9),
    tells=st.booleans(),
)
def test_chunks_and_batches_change_no_bit(
    triples: list[tuple[str, str, str]], chunk: int, held: int, batch_size: int, tells: bool
) -> None:
    pairs = [_pair(*texts) for texts in triples]
    expected = _all_at_once(pairs, Letters(tells))
    told: list[tuple[int, int]] = []
    with patch.object(stage, "CHUNK", chunk), patch.object(stage, "PROMPTS_HELD", held):
        found = measure(pairs, Letters(tells), batch_size, lambda done, total, note="": told.append((done, total)))
    for name in ("distance", "rejected_distance", "truncated"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    assert found.unknown == expected.unknown
    assert told == sorted(told)
    assert {total for _, total in told} == {len(pairs)}
    assert max(done for done, _ in told) <= len(pairs)


def test_embeddings_of_few_texts_are_in_memory_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "CHUNK", 10)
    pairs = [_pair(f"prompt {i}", f"chosen {i}", f"rejected {i}") for i in range(500)]
    encoder = Letters()
    measure(pairs, encoder, batch_size=4)
    assert sorted(encoder.seen) == sorted(text for p in pairs for text in (p.prompt, p.chosen, p.rejected))
    assert encoder.most <= 2 * 3 * 10, "those of this chunk, and of the one before until its place is taken"


def test_a_prompt_is_embedded_once_while_it_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "CHUNK", 1)
    pairs = [_pair(prompt, f"{i} chosen", f"{i} rejected") for i, prompt in enumerate("ababcabc")]

    def asked(held: int) -> list[int]:
        monkeypatch.setattr(stage, "PROMPTS_HELD", held)
        encoder = Letters()
        measure(pairs, encoder, batch_size=1)
        return [encoder.seen.count(prompt) for prompt in "abc"]

    assert asked(3) == [1, 1, 1]
    assert asked(2) == [2, 2, 2], "of three, the one that was used longest ago is forgotten"
    assert asked(0) == [3, 3, 2]


def test_the_row_is_counted_over_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "CHUNK", 2)

    class Refuses(Letters):
        def encode(self, texts: Sequence[str]) -> Embeddings:
            if "bad" in texts:
                raise DataError("'bad' cannot be read")
            return super().encode(texts)

    pairs = [*(_pair(f"p {i}", "c", "r") for i in range(5)), _pair("p 5", "bad", "r")]
    with pytest.raises(DataError, match=r"row 6 \(pair p 5-bad\): 'bad' cannot be read"):
        measure(pairs, Refuses(), batch_size=1)


def test_words_are_judged_before_anything_is_embedded_where_the_encoder_can() -> None:
    class Knows(Letters):
        def __init__(self, share: float | None) -> None:
            super().__init__()
            self.share = share

        def unknown_words(self, texts: Sequence[str]) -> Float | None:
            return None if self.share is None else np.full(len(texts), self.share, np.float32)

    assert unknown_beforehand(iter(PAIRS), Knows(0.5)) == 0.5
    assert unknown_beforehand(iter(PAIRS), Encoder(0.5)) is None
    unread = iter(PAIRS)
    assert unknown_beforehand(unread, Knows(None)) is None
    assert list(unread) == PAIRS, "nothing is read for an encoder that cannot tell"


@pytest.mark.slow
def test_the_whole_command_needs_little_more_than_the_texts() -> None:
    """All embeddings together would be 36 KB a pair, and were."""
    script = Path(__file__).parents[2] / "benchmarks/weigh_memory.py"
    command = [sys.executable, str(script), "--sizes", "2000", "8000"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert json.loads(said.splitlines()[-1])["kb_per_pair"] < 10
