from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from semdpo.best_of import BestOf
from semdpo.engine import fingerprint
from semdpo.errors import ConfigError, DataError, ModelError
from semdpo.models import drift_limit
from semdpo.prompt_optimizer import Optimized, PromptOptimizer, Request
from semdpo.protocols import Answer, Bool, Embeddings, ScoreBatch
from semdpo.recipe import defaults
from tests import tiny_models

ANGLES = {"a cat": 0.0, "a cat, art": 0.2, "a fat cat": 0.5, "a dog": 1.5, "a quokka": 0.1}
DISTANCES = {text: 1 - np.cos(angle) for text, angle in ANGLES.items()}
TOO_FAR = "the prompt is kept: no rewrite was near enough (drift at most {:.3g})"


class Says:
    """A rewriter that says what it was told to."""

    def __init__(self, *texts: str) -> None:
        self.texts = list(texts)
        self.asked: list[int] = []

    def rewrite(self, prompts: Sequence[str], n: int, seed: int) -> list[list[str]]:
        self.asked.append(n)
        return [self.texts[:n] if n > 1 else self.texts for _ in prompts]


class Angles:
    """An encoder that knows five texts, and has never seen the word quokka."""

    def encode(self, texts: Sequence[str]) -> Embeddings:
        angles = [ANGLES[text] for text in texts]
        vectors = np.array([[np.cos(a), np.sin(a)] for a in angles], np.float32)
        unknown = np.array(["quokka" in text for text in texts], np.float32) / 2
        return Embeddings(vectors, np.zeros(len(texts), np.bool_), unknown)


def _run(greedy: Says, sampling: Says, max_drift: float, prompt: str = " a cat ") -> Optimized:
    return PromptOptimizer(greedy, sampling, Angles(), max_drift=max_drift).optimize(prompt)


def _check(found: Optimized, rewrite: str, reason: str = "") -> None:
    assert (found.prompt, found.rewrite, found.reason) == ("a cat", rewrite, reason)
    assert found.drift == pytest.approx(DISTANCES[rewrite], abs=1e-6)


def test_without_a_guard_the_most_probable_rewrite_is_taken() -> None:
    sampling = Says("a cat, art")
    _check(_run(Says("a dog"), sampling, 2.0), "a dog")
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
    _check(_run(Says("a dog"), Says("a fat cat", "a dog"), 0.05), "a cat", TOO_FAR.format(0.05))


def test_an_empty_rewrite_is_none() -> None:
    _check(_run(Says(""), Says(""), 2.0), "a cat", "the prompt is kept: the rewriter wrote nothing")
    _check(_run(Says(""), Says("a fat cat"), 2.0), "a fat cat")


def test_a_prompt_of_unknown_words_is_kept_and_nothing_is_asked() -> None:
    greedy = Says("a cat")
    found = _run(greedy, Says("a cat"), 2.0, "a quokka")
    assert (found.rewrite, found.drift) == ("a quokka", 0.0)
    assert found.reason == "the prompt is kept: the encoder does not know 50% of its words; name another with --encoder"
    assert greedy.asked == []


def test_a_rewrite_of_unknown_words_counts_as_too_far() -> None:
    _check(_run(Says("a quokka"), Says("a quokka", "a cat, art"), 2.0), "a cat, art")


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
    found = PromptOptimizer(greedy, Adds(""), Counts(), max_drift=2).optimize(prompt)
    assert (found.rewrite, found.reason, greedy.read) == (rewrite, "", read)
    assert found.drift > 0


def test_a_rewrite_that_lost_a_span_is_replaced_or_the_prompt_comes_back() -> None:
    prompt = "a (red:1.2) ball in snow"
    found = PromptOptimizer(Adds("", "red"), Adds(", art"), Counts(), max_drift=2).optimize(prompt)
    assert found.rewrite == "a (red:1.2) ball in snow, art"
    found = PromptOptimizer(Adds("", "red"), Adds("", "red"), Counts(), max_drift=2).optimize(prompt)
    assert found.rewrite == prompt
    assert found.reason == "the prompt is kept: no rewrite kept '(red:1.2)' and was near enough"
    found = PromptOptimizer(Adds("", "snow"), Adds("", "snow"), Counts(), max_drift=2).optimize(prompt, ["Snow"])
    assert found.reason == "the prompt is kept: no rewrite kept 'snow' and was near enough"


def test_one_part_that_drifts_keeps_the_whole_prompt() -> None:
    prompt = "a cat BREAK a very fat dog in the snow"
    found = PromptOptimizer(Adds("", "dog"), Adds("", "dog"), Counts(), max_drift=0.0).optimize(prompt)
    assert (found.rewrite, bool(found.reason)) == (prompt, True)


def test_a_prompt_of_syntax_alone_is_kept() -> None:
    found = PromptOptimizer(Adds(", art"), Adds(""), Counts(), max_drift=2).optimize("<lora:x:1> --ar 1:1")
    assert (found.rewrite, found.drift) == ("<lora:x:1> --ar 1:1", 0.0)
    assert found.reason == "the prompt is kept: it has no words to rewrite"


def test_bad_input_is_refused() -> None:
    with pytest.raises(DataError, match="prompt is empty"):
        PromptOptimizer(Says(""), Says(""), Angles()).optimize(" \u200b ")
    with pytest.raises(ConfigError, match="max_drift is 3; it must be a cosine distance, from 0 to 2"):
        PromptOptimizer(Says(""), Says(""), Angles(), max_drift=3)
    with pytest.raises(ConfigError, match="candidates must be at least 1"):
        PromptOptimizer(Says(""), Says(""), Angles(), candidates=0)


def test_real_models(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    rewriter, encoder = tiny_models.gpt2(tmp_path / "gpt2"), tiny_models.clip(tmp_path / "clip")
    capfd.readouterr()
    load = partial(PromptOptimizer.from_pretrained, rewriter, encoder=str(encoder), max_new_tokens=12)
    found = load(max_drift=2).optimize("a cat")
    assert not found.reason
    assert found.rewrite != "a cat"
    assert 0 < found.drift <= 2
    assert (found.model, found.fingerprint) == (str(rewriter), fingerprint.model(rewriter))
    assert load(max_drift=0.0).optimize("a cat").reason == TOO_FAR.format(0)
    long = load(max_drift=2).optimize("a cat " * 30)
    assert long.rewrite == ("a cat " * 30).strip()
    assert "is longer than" in long.reason
    with pytest.raises(ModelError, match="max_new_tokens is 128, but the model has room for 128 tokens"):
        PromptOptimizer.from_pretrained(rewriter, encoder=str(encoder), max_new_tokens=128)
    (encoder / "vocabulary.json").write_text(json.dumps(["a"]))
    unknown = load().optimize("a cat")
    assert unknown.rewrite == "a cat"
    assert "does not know 50%" in unknown.reason
    assert capfd.readouterr() == ("", "")


def test_the_limit_is_the_one_that_the_run_measured(tmp_path: Path) -> None:
    rewriter, encoder = tiny_models.gpt2(tmp_path / "gpt2"), tiny_models.clip(tmp_path / "clip")
    other = tiny_models.clip(tmp_path / "other", seed=1)
    before = fingerprint.model(rewriter)
    limit = drift_limit.measured([0.1, 0.4, 0.2], fingerprint.model(encoder), before)
    drift_limit.write(rewriter, limit)
    assert fingerprint.model(rewriter) == before, "the file is no part of the model"
    load = partial(PromptOptimizer.from_pretrained, rewriter)
    assert load(str(encoder)).max_drift == limit.max_drift == 0.4
    assert load(str(encoder), max_drift=0.2).max_drift == 0.2
    assert load(str(other)).max_drift == defaults.MAX_DRIFT, "another encoder measures other distances"
    tiny_models.gpt2(rewriter, seed=1)
    assert load(str(encoder)).max_drift == defaults.MAX_DRIFT, "another model has another drift"
    (rewriter / "guard.json").write_text('{"max_drift": 3}')
    with pytest.raises(ModelError, match=r"guard\.json' is damaged; remove it"):
        load(str(encoder))


def test_the_limit_lets_nineteen_of_twenty_rewrites_pass() -> None:
    drifts = [k / 100 for k in range(100)]
    limit = drift_limit.measured(drifts, "e", "m").max_drift
    assert sum(drift <= limit for drift in drifts) in (95, 96)
    assert limit in drifts
    with pytest.raises(DataError, match="no rewrites"):
        drift_limit.measured([], "e", "m")


class Scored:
    """A rewriter that knows how likely its rewrites are."""

    def __init__(self, *answers: Answer) -> None:
        self.all = list(answers)
        self.asked: list[tuple[list[str], int]] = []

    def rewrite(self, prompts: Sequence[str], n: int, seed: int) -> list[list[str]]:
        raise AssertionError("answers is better")

    def answers(self, prompts: Sequence[str], n: int, seed: int) -> list[list[Answer]]:
        self.asked.append((list(prompts), seed))
        return [self.all for _ in prompts]


def test_variants_come_by_likelihood_and_drift() -> None:
    greedy = Scored(Answer("a dog", likelihood=-0.1))
    sampling = Scored(
        Answer("a fat cat", likelihood=-0.6), Answer("a cat, art", likelihood=-1.5), Answer("a cat", likelihood=-3.0)
    )
    optimizer = PromptOptimizer(greedy, sampling, Angles(), max_drift=0.2)
    (found,) = optimizer.optimize_all([Request("a cat", n=4)])
    # The most probable drifts too far, so the nearest comes first; then −0.6 − 4·0.12 beats −1.5 − 4·0.02.
    assert [each.rewrite for each in found] == ["a cat", "a fat cat", "a cat, art"]
    greedy.all = [Answer("a cat, art")]
    (found,) = optimizer.optimize_all([Request("a cat", n=2)])
    assert [each.rewrite for each in found] == ["a cat, art", "a fat cat"]


def test_many_requests_are_asked_together_and_stay_apart() -> None:
    greedy, sampling = Scored(Answer("a cat, art")), Scored(Answer("a fat cat"))
    optimizer = PromptOptimizer(greedy, sampling, Angles(), max_drift=0.2, model="m", fingerprint="f")
    requests = [
        Request("a cat"),
        Request("a cat", n=2, seed=5),
        Request("a cat", max_drift=0.0),
        Request(" <lora:x:1> "),
    ]
    found = optimizer.optimize_all(requests)
    assert greedy.asked == [(["a cat"] * 3, 0)]
    assert sampling.asked == [(["a cat"], 5), (["a cat"], 0)]
    assert [[each.rewrite for each in row] for row in found] == [
        ["a cat, art"], ["a cat, art", "a fat cat"], ["a cat"], ["<lora:x:1>"],
    ]  # fmt: skip
    assert [row[0].reason[:19] for row in found] == ["", "", "the prompt is kept:", "the prompt is kept:"]
    assert found[1][1].record() == {
        "prompt": "a cat", "rewrite": "a fat cat", "drift": pytest.approx(DISTANCES["a fat cat"]), "kept": ["cat"],
        "added": ["fat"], "lost": [], "reason": "", "seed": 5, "truncated": False, "model": "m", "fingerprint": "f",
    }  # fmt: skip


def test_a_prompt_that_the_rewriter_cannot_read_does_not_fail_the_others() -> None:
    class Refuses(Says):
        def rewrite(self, prompts: Sequence[str], n: int, seed: int) -> list[list[str]]:
            if "a dog" in prompts:
                raise DataError("the prompt is too long; shorten it")
            return super().rewrite(prompts, n, seed)

    optimizer = PromptOptimizer(Refuses("a cat, art"), Refuses("a cat, art"), Angles(), max_drift=2)
    found = optimizer.optimize_all([Request("a cat"), Request("a dog"), Request("a cat")])
    assert [row[0].rewrite for row in found] == ["a cat, art", "a dog", "a cat, art"]
    assert found[1][0].reason == "the prompt is kept: the prompt is too long; shorten it"


def test_a_prompt_in_capitals_is_read_in_small_letters() -> None:
    greedy = Adds(", art")
    found = PromptOptimizer(greedy, Adds(""), Counts(), max_drift=2).optimize("A (RED:1.2) BALL <lora:X:1>")
    assert (greedy.read, found.rewrite) == (["a red ball"], "a (RED:1.2) ball, art <lora:X:1>")
    greedy = Adds(", art")
    PromptOptimizer(greedy, Adds(""), Counts(), max_drift=2).optimize("NASA")
    assert greedy.read == ["NASA"]


def test_banned_words_and_lengths() -> None:
    optimizer = PromptOptimizer(Adds(", at sunset, oil"), Adds(" at sunset"), Counts(), max_drift=2)
    assert optimizer.optimize("a cat", banned=["Sunset"]).rewrite == "a cat, oil"
    assert optimizer.optimize("a cat at sunset", banned=["sunset"]).reason.endswith("had banned words")
    assert optimizer.optimize("a cat", length=4).rewrite == "a cat, at sunset"
    assert optimizer.optimize("a very fat old cat in the snow", length=4).reason.endswith("all rewrites were too long")
    for length, message in (("tiny", "use short, medium, long"), (0, "from 1 to 75"), (76, "from 1 to 75")):
        with pytest.raises(ConfigError, match=message):
            optimizer.optimize("a cat", length=length)


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (Request("a" * 10_001), "has 10001 characters; shorten it to at most 10000"),
        (Request("a cat", n=17), "ask for 1 to 16 variants"),
        (Request("a cat", max_drift=float("nan")), "from 0 to 2"),
        (Request("a cat", seed=-1), "seed is -1"),
        (Request("a cat", banned=(" ",)), "banned has an empty phrase"),
        (Request("a cat", banned="art"), "banned is the text 'art'; give a list"),  # type: ignore[arg-type]
        (Request("a cat", keep="cat"), "keep is the text 'cat'; give a list"),  # type: ignore[arg-type]
    ],
)
def test_a_request_out_of_range_is_refused(request_: Request, message: str) -> None:
    with pytest.raises((ConfigError, DataError), match=message):
        PromptOptimizer(Says("a cat"), Says(""), Angles()).optimize_all([request_])


class Bright:
    """A renderer of one colour, and a scorer that likes long texts, or short ones."""

    def __init__(self, sign: int) -> None:
        self.sign, self.seen = sign, list[tuple[str, int]]()

    def render(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[Image.Image]:
        self.seen += zip(prompts, seeds, strict=True)
        return [Image.new("RGB", (8, 8), (len(prompt), 0, 0)) for prompt in prompts]

    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> ScoreBatch:
        assert set(prompts) == {"a cat"}, "images are scored against the user's prompt"
        values = np.array([self.sign * image.getpixel((0, 0))[0] for image in images], np.float32)  # type: ignore[index]
        return ScoreBatch(values, np.zeros(len(values), np.bool_))


def test_the_best_image_decides_among_rewrites_that_pass_the_guard() -> None:
    for sign, wanted in ((1, "a cat, art"), (-1, "a cat")):
        world = Bright(sign)
        optimizer = PromptOptimizer(
            Says("a dog"),
            Says("a cat", "a cat, art", "a dog"),
            Angles(),
            max_drift=0.2,
            best_of=BestOf(world, world, 3),
        )
        assert optimizer.optimize("a cat", seed=7).rewrite == wanted
        assert world.seen == [("a cat", 7), ("a cat, art", 7)]
    world = Bright(1)
    BestOf(world, world, 2).order("a cat <lora:x:1>", ["a (cat:1.2)", "a cat, art <lora:x:1>"], 0)
    assert [text for text, _ in world.seen] == ["a cat", "a cat, art"], "neither knows other tools' syntax"
    with pytest.raises(ConfigError, match="is no choice"):
        BestOf(world, world, 1)


class Forgets(Bright):
    """A renderer that reads five characters."""

    def too_long(self, prompts: Sequence[str]) -> Bool:
        return np.array([len(prompt) > 5 for prompt in prompts])


def test_rewrites_that_best_of_does_not_read_to_their_end_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    world = Forgets(1)
    BestOf(world, world, 3).order("a cat", ["a cat", "a cat, art", "a fat cat"], 0)
    assert "does not read the end of 2 rewrites" in caplog.text
    caplog.clear()
    BestOf(world, world, 3).order("a cat", ["a cat", "a (cat:1.2)"], 0)
    assert caplog.text == ""


def test_variants_that_best_of_does_not_render_come_after_the_others() -> None:
    world = Bright(1)
    sampling = Says("a fat cat", "a cat", "a cat, art")
    optimizer = PromptOptimizer(Says("a dog"), sampling, Angles(), max_drift=0.2, best_of=BestOf(world, world, 2))
    (found,) = optimizer.optimize_all([Request("a cat", n=3)])
    assert [each.rewrite for each in found] == ["a cat, art", "a cat", "a fat cat"]
    assert len(world.seen) == 2
    (two,) = optimizer.optimize_all([Request("a cat", n=1)])
    assert [each.rewrite for each in two] == ["a cat, art"]


def test_as_many_rewrites_are_sampled_as_best_of_renders() -> None:
    for best_of, candidates, wanted in ((12, 8, 12), (2, 8, 8)):
        world, sampling = Bright(1), Says("a cat", "a cat, art")
        best = BestOf(world, world, best_of)
        PromptOptimizer(Says("a dog"), sampling, Angles(), candidates=candidates, best_of=best).optimize("a cat")
        assert sampling.asked == [wanted]


def test_a_request_does_not_depend_on_what_its_neighbours_ask() -> None:
    sampling = Says("a dog", "a fat cat", "a cat, art")  # the third is the nearest
    optimizer = PromptOptimizer(Says("a dog"), sampling, Angles(), max_drift=0.2, candidates=2)
    alone = optimizer.optimize_all([Request("a cat")])[0]
    (beside, _) = optimizer.optimize_all([Request("a cat"), Request("a cat", n=3)])
    assert [each.rewrite for each in beside] == [each.rewrite for each in alone] == ["a fat cat"]
