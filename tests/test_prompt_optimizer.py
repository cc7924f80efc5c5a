from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from semdpo.errors import ConfigError, DataError
from semdpo.prompt_optimizer import Optimized, PromptOptimizer
from semdpo.protocols import Embeddings
from tests import tiny_models

ANGLES = {"a cat": 0.0, "a cat, art": 0.2, "a fat cat": 0.5, "a dog": 1.5, "a quokka": 0.1}
DISTANCES = {text: 1 - np.cos(angle) for text, angle in ANGLES.items()}
TOO_FAR = "the prompt is kept: no rewrite was near enough"


class Says:
    """A rewriter that says what it was told to."""

    def __init__(self, *texts: str) -> None:
        self.texts = list(texts)
        self.asked: list[int] = []

    def rewrite(self, prompts: Sequence[str], n: int, seed: int) -> list[list[str]]:
        self.asked.append(n)
        return [self.texts for _ in prompts]


class Angles:
    """An encoder that knows five texts, and has never seen the word quokka."""

    def encode(self, texts: Sequence[str]) -> Embeddings:
        angles = [ANGLES[text] for text in texts]
        vectors = np.array([[np.cos(a), np.sin(a)] for a in angles], np.float32)
        unknown = np.array(["quokka" in text for text in texts], np.float32) / 2
        return Embeddings(vectors, np.zeros(len(texts), np.bool_), unknown)


def _run(greedy: Says, sampling: Says, max_distance: float | None, prompt: str = " a cat ") -> Optimized:
    return PromptOptimizer(greedy, sampling, Angles(), max_distance=max_distance).optimize(prompt)


def _check(found: Optimized, rewrite: str, reason: str = "") -> None:
    assert (found.prompt, found.rewrite, found.reason, found.kept) == ("a cat", rewrite, reason, not reason)
    assert found.distance == pytest.approx(DISTANCES[rewrite], abs=1e-6)


def test_without_a_guard_the_most_probable_rewrite_is_taken() -> None:
    sampling = Says("a cat, art")
    _check(_run(Says("a dog"), sampling, None), "a dog")
    assert sampling.asked == []


def test_a_near_rewrite_passes_the_guard() -> None:
    sampling = Says("a cat")
    _check(_run(Says("a cat, art"), sampling, 0.1), "a cat, art")
    assert sampling.asked == []


def test_the_nearest_of_others_replaces_one_that_drifts() -> None:
    sampling = Says("a fat cat", "", "a cat, art", "a dog")
    _check(_run(Says("a dog"), sampling, 0.2), "a cat, art")
    assert sampling.asked == [8]


def test_the_users_prompt_comes_back_when_all_drift() -> None:
    _check(_run(Says("a dog"), Says("a fat cat", "a dog"), 0.05), "a cat", TOO_FAR)


def test_an_empty_rewrite_is_none() -> None:
    _check(_run(Says(""), Says(""), None), "a cat", TOO_FAR)
    _check(_run(Says(""), Says("a fat cat"), None), "a fat cat")


def test_a_prompt_of_unknown_words_is_kept_and_nothing_is_asked() -> None:
    greedy = Says("a cat")
    found = _run(greedy, Says("a cat"), None, "a quokka")
    assert found == Optimized(
        "a quokka", "a quokka", 0.0, "the prompt is kept: the encoder does not know 50% of its words"
    )
    assert greedy.asked == []


def test_a_rewrite_of_unknown_words_counts_as_too_far() -> None:
    _check(_run(Says("a quokka"), Says("a quokka", "a cat, art"), None), "a cat, art")


class Counts:
    """An encoder for any text: more words are a larger distance."""

    def encode(self, texts: Sequence[str]) -> Embeddings:
        angles = np.array([len(text.split()) / 10 for text in texts])
        vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
        return Embeddings(vectors, np.zeros(len(texts), np.bool_))


class Adds:
    """A rewriter that adds words, or loses what it was asked to lose."""

    def __init__(self, words: str, loses: str = "") -> None:
        self.words, self.loses, self.read = words, loses, list[str]()

    def rewrite(self, prompts: Sequence[str], n: int, seed: int) -> list[list[str]]:
        self.read += prompts
        return [[(prompt.replace(self.loses, "") if self.loses else prompt) + self.words] * n for prompt in prompts]


@pytest.mark.parametrize(
    ("prompt", "read", "rewrite"),
    [
        ("a (red:1.2) ball <lora:x:1>", ["a red ball"], "a (red:1.2) ball, art <lora:x:1>"),
        ("a cat BREAK a [dog|cat] --ar 1:1", ["a cat", "a dog"], "a cat, art BREAK a [dog|cat], art --ar 1:1"),
        ("<lora:x:1> BREAK a cat", ["a cat"], "<lora:x:1> BREAK a cat, art"),
    ],
)
def test_the_rewriter_reads_words_and_syntax_comes_back(prompt: str, read: list[str], rewrite: str) -> None:
    greedy = Adds(", art")
    found = PromptOptimizer(greedy, Adds(""), Counts()).optimize(prompt)
    assert (found.rewrite, found.kept, greedy.read) == (rewrite, True, read)
    assert found.distance > 0


def test_a_rewrite_that_lost_a_span_is_replaced_or_the_prompt_comes_back() -> None:
    prompt = "a (red:1.2) ball in snow"
    found = PromptOptimizer(Adds("", "red"), Adds(", art"), Counts()).optimize(prompt)
    assert found.rewrite == "a (red:1.2) ball in snow, art"
    found = PromptOptimizer(Adds("", "red"), Adds("", "red"), Counts()).optimize(prompt)
    assert found.rewrite == prompt
    assert found.reason == "the prompt is kept: no rewrite kept '(red:1.2)' and was near enough"
    found = PromptOptimizer(Adds("", "snow"), Adds("", "snow"), Counts()).optimize(prompt, ["Snow"])
    assert found.reason == "the prompt is kept: no rewrite kept 'snow' and was near enough"


def test_one_part_that_drifts_keeps_the_whole_prompt() -> None:
    prompt = "a cat BREAK a very fat dog in the snow"
    found = PromptOptimizer(Adds("", "dog"), Adds("", "dog"), Counts(), max_distance=0.0).optimize(prompt)
    assert (found.rewrite, found.kept) == (prompt, False)


def test_a_prompt_of_syntax_alone_is_kept() -> None:
    found = PromptOptimizer(Adds(", art"), Adds(""), Counts()).optimize("<lora:x:1> --ar 1:1")
    assert found == Optimized(
        "<lora:x:1> --ar 1:1", "<lora:x:1> --ar 1:1", 0.0, "the prompt is kept: it has no words to rewrite"
    )


def test_bad_input_is_refused() -> None:
    with pytest.raises(DataError, match="prompt is empty"):
        PromptOptimizer(Says(""), Says(""), Angles()).optimize(" \u200b ")
    with pytest.raises(ConfigError, match="max_distance is 3; it must be a cosine distance, from 0 to 2"):
        PromptOptimizer(Says(""), Says(""), Angles(), max_distance=3)
    with pytest.raises(ConfigError, match="candidates must be at least 1"):
        PromptOptimizer(Says(""), Says(""), Angles(), candidates=0)


def test_real_models(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    rewriter, encoder = tiny_models.gpt2(tmp_path / "gpt2"), tiny_models.clip(tmp_path / "clip")
    capfd.readouterr()
    found = PromptOptimizer.from_pretrained(rewriter, encoder=str(encoder)).optimize("a cat")
    assert found.kept
    assert found.rewrite != "a cat"
    assert 0 <= found.distance <= 2
    guarded = PromptOptimizer.from_pretrained(rewriter, encoder=str(encoder), max_distance=0.0).optimize("a cat")
    assert guarded == Optimized("a cat", "a cat", 0.0, TOO_FAR)
    (encoder / "vocabulary.json").write_text(json.dumps(["a"]))
    unknown = PromptOptimizer.from_pretrained(rewriter, encoder=str(encoder)).optimize("a cat")
    assert unknown.rewrite == "a cat"
    assert "does not know 50%" in unknown.reason
    assert capfd.readouterr() == ("", "")
