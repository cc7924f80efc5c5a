from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from semdpo.data.records import EvaluationRow, Prompt, RenderedImage, content_seed
from semdpo.engine import parquet
from semdpo.errors import DataError
from semdpo.models.scoring import score_images
from semdpo.protocols import Embeddings, ScoreBatch
from semdpo.reporting.evaluated import join
from semdpo.stages.evaluate import render, rewrite_all

PROMPTS = [Prompt.of(text, "test", "test") for text in ("a cat", "a dog", "an owl")]


class Painter:
    """Draws a colour made of prompt and seed, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int]] = []

    def render(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[Image.Image]:
        self.asked += zip(prompts, seeds, strict=True)
        seeds = [content_seed(p, str(s)) for p, s in zip(prompts, seeds, strict=True)]
        return [Image.fromarray(np.random.default_rng(s).integers(0, 256, (8, 8, 3), np.uint8)) for s in seeds]

    def too_long(self, prompts: Sequence[str]) -> np.ndarray:
        return np.array([len(prompt) > 20 for prompt in prompts], np.bool_)


class Judge:
    """Scores the image's first pixel and the prompt's length."""

    def __init__(self, limit: int = 100) -> None:
        self.limit = limit

    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> ScoreBatch:
        values = [image.getpixel((0, 0))[0] + len(p) for image, p in zip(images, prompts, strict=True)]
        return ScoreBatch(np.array(values, np.float32), np.array([len(p) > self.limit for p in prompts], np.bool_))


class Encoder:
    """Angle by length."""

    def encode(self, texts: Sequence[str]) -> Embeddings:
        angles = np.array([len(text) / 10 for text in texts])
        vectors = np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)
        return Embeddings(vectors, np.zeros(len(texts), np.bool_))


class Echo:
    def rewrite(self, prompts: Sequence[str], n: int, seed: int) -> list[list[str]]:
        return [[f"{prompt} {seed} {i}" for i in range(n)] for prompt in prompts]


def _words(texts: Sequence[str]) -> list[int]:
    return [len(text.split()) for text in texts]


def _drawn(
    rewrites: Sequence[str], prompts: Sequence[Prompt] = PROMPTS, painter: Painter | None = None
) -> list[RenderedImage]:
    return render("dpo", prompts, rewrites, painter or Painter(), Encoder(), [0, 5], 4, _words)


def _rows(rewrites: Sequence[str], keep: int = 2, **scorers: Judge) -> list[EvaluationRow]:
    images = _drawn(rewrites)
    return join(images, {name: score_images(images, each, name) for name, each in scorers.items()}, keep)


def test_rows_come_prompt_by_prompt_with_all_that_is_known() -> None:
    rewrites = ["a cat, art", "a dog", "an owl that is much too long"]
    rows = _rows(rewrites, clip=Judge(limit=5), hps=Judge())
    assert [(row.prompt, row.image_seed) for row in rows] == [(p.prompt, s) for p in PROMPTS for s in (0, 5)]
    assert [row.rewrite for row in rows[::2]] == rewrites
    assert [row.tokens for row in rows[::2]] == [3, 2, 7]
    assert [row.distance for row in rows[::2]] == pytest.approx([1 - np.cos(0.5), 0, 1 - np.cos(2.2)], abs=1e-6)
    assert {(row.method, row.source) for row in rows} == {("dpo", "test")}
    # the scorer sees the user's prompt: "an owl" has 6 letters, its rewrite more
    drawn = Painter().render([rewrites[2]], [content_seed("image", PROMPTS[2].prompt_id, "5")])[0]
    assert rows[5].metrics == {name: drawn.getpixel((0, 0))[0] + 6 for name in ("clip", "hps")}
    assert [row.truncated for row in rows] == [False] * 4 + [True] * 2


def test_progress_is_told_by_images() -> None:
    told: list[tuple[int, int]] = []
    render(
        "m", PROMPTS, ["x", "y", "z"], Painter(), Encoder(), [0, 5], 4, _words,
        lambda done, total, note="": told.append((done, total)),
    )  # fmt: skip
    assert told == [(4, 6), (6, 6)]


def test_a_judge_or_the_renderer_that_reads_a_part_only_flags_the_row() -> None:
    def cut(limit: int, rewrite: str) -> bool:
        return _rows([rewrite, "b", "c"], clip=Judge(limit=limit))[0].truncated

    assert cut(4, "a cat")
    assert not cut(6, "a cat")
    assert cut(100, "a cat with a very long tail")


def test_images_are_kept_to_the_pixel_and_methods_share_seeds() -> None:
    one, two = Painter(), Painter()
    images = _drawn(["x", "y", "z"], painter=one)
    _drawn(["u", "v", "w"], painter=two)
    assert [seed for _, seed in one.asked] == [seed for _, seed in two.asked]
    assert len({seed for _, seed in one.asked}) == 6
    again = Painter()
    _drawn(["z"], PROMPTS[2:], again)
    assert again.asked == one.asked[4:]  # whatever else is in the batch
    stored = Image.open(io.BytesIO(images[3].image))
    np.testing.assert_array_equal(np.asarray(stored), np.asarray(Painter().render(*zip(one.asked[3]))[0]))


def test_images_of_the_first_prompts_are_shown_at_the_first_seed() -> None:
    rows = _rows(["x", "y", "z"], a=Judge())
    assert [row.image is not None for row in rows] == [True, False, True, False, False, False]
    assert rows[0].image is not None
    shown = Image.open(io.BytesIO(rows[0].image))
    assert (shown.format, shown.size) == ("WEBP", (8, 8))
    assert all(row.image is None for row in _rows(["x", "y", "z"], keep=0, a=Judge()))


def test_images_of_earlier_runs_are_read_and_show_something(tmp_path: Path) -> None:
    images = _drawn(["x", "y", "z"])
    now = pq.read_table(io.BytesIO(parquet.encode(RenderedImage, images, {})))
    pq.write_table(now.drop_columns(["error"]), tmp_path / "part.parquet")  # as before images could be missing
    assert parquet.read_file(tmp_path / "part.parquet", RenderedImage) == images
    assert {image.missing for image in images} == {None}


class Shy(Painter):
    """Cannot draw some texts."""

    def render(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[Image.Image]:
        if "y" in prompts:
            raise ValueError("no y here")
        return super().render(prompts, seeds)


def test_an_image_that_cannot_be_rendered_costs_no_other() -> None:
    images, whole = _drawn(["x", "y", "z"], painter=Shy()), _drawn(["x", "y", "z"])
    wanted = "the image cannot be rendered (ValueError: no y here)"
    assert [image.error for image in images] == [None, None, wanted, wanted, None, None]
    assert [image.image for image in images[:2] + images[4:]] == [image.image for image in whole[:2] + whole[4:]]
    scores = score_images(images, Judge(), "a")
    assert [(row.score is None, row.error, row.unscored) for row in scores[2:5]] == [
        (True, wanted, False), (True, wanted, False), (False, None, False),
    ]  # fmt: skip
    assert [row.prompt for row in join(images, {"a": scores}, 3)] == ["a cat", "a cat", "an owl", "an owl"]
    assert score_images(images[2:4], Judge(), "a")[0].error == wanted, "no scorer is asked without an image"


def test_rewrites_must_be_as_many_as_prompts_and_may_be_empty() -> None:
    with pytest.raises(DataError, match="dpo has 1 rewrites for 3 prompts"):
        _drawn(["x"])
    assert _drawn([], []) == []
    assert join([], {}, 3) == []
    assert rewrite_all(PROMPTS, Echo(), 9) == (["a cat 9 0", "a dog 9 0", "an owl 9 0"], 0)

    class Budgeted(Echo):
        def rewrite_flagged(self, prompts: Sequence[str], n: int, seed: int) -> list[list[tuple[str, bool]]]:
            return [[(text, text == "a dog")] for text in prompts]

    assert rewrite_all(PROMPTS, Budgeted(), 9) == (["a cat", "a dog", "an owl"], 1)

    class Mute(Echo):
        def rewrite(self, prompts: Sequence[str], n: int, seed: int) -> list[list[str]]:
            return [[" "] for _ in prompts]

    assert rewrite_all(PROMPTS, Mute(), 0) == ([" "] * 3, 0)
    assert len(_drawn([""] * 3)) == 6


def test_a_renderer_that_draws_too_few_is_refused() -> None:
    class Lazy(Painter):
        def render(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[Image.Image]:
            return super().render(prompts, seeds)[:-1]

    with pytest.raises(DataError, match="a model gave 3 results for 4 images; correct the renderer"):
        _drawn(["x", "y", "z"], painter=Lazy())


def test_a_half_written_image_is_named() -> None:
    images = _drawn(["x", "y", "z"])
    broken = replace(images[2], image=images[2].image[: len(images[2].image) // 2])
    named = f"method 'dpo', prompt {PROMPTS[1].prompt_id}, seed 0 is damaged or incomplete"
    with pytest.raises(DataError, match=named):
        score_images([*images[:2], broken, *images[3:]], Judge(), "clip")


def test_a_judge_that_gives_too_few_scores_or_no_numbers_is_refused_by_name() -> None:
    class Tired(Judge):
        def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> ScoreBatch:
            return super().score(images[:3], prompts[:3])

    class Lost(Judge):
        def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> ScoreBatch:
            found = super().score(images, prompts)
            found.values[[1, 4]] = np.nan
            return found

    images = _drawn(["x", "y", "z"])
    after = f"'clip' gave 3 scores for 6 images; .* method 'dpo', prompt {PROMPTS[1].prompt_id}, seed 5"
    with pytest.raises(DataError, match=after):
        score_images(images, Tired(), "clip")
    named = (
        rf"2 scores that are not finite \(method 'dpo', prompt {PROMPTS[0].prompt_id}, seed 5, .*{PROMPTS[2].prompt_id}"
    )
    with pytest.raises(DataError, match=named):
        score_images(images, Lost(), "clip")


def test_judgements_of_other_images_are_refused() -> None:
    images = _drawn(["x", "y", "z"])
    found = score_images(images, Judge(), "clip")
    with pytest.raises(DataError, match="'clip' scored 5 images, but there are 6"):
        join(images, {"clip": found[:-1]}, 0)
    with pytest.raises(DataError, match=f"'clip' scored rewrite {images[1].candidate_id}, seed 5, instead of"):
        join(images, {"clip": [found[1], found[0], *found[2:]]}, 0)
