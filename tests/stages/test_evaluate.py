from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import pytest
from PIL import Image

from semdpo.config import EvaluateConfig
from semdpo.errors import DataError
from semdpo.protocols import Embeddings, ScoreBatch
from semdpo.records import Prompt, content_seed
from semdpo.stages.evaluate import evaluate, rewrite_all

PROMPTS = [Prompt.of(text, "test", "test") for text in ("a cat", "a dog", "an owl")]


class Painter:
    """Draws a colour made of prompt and seed, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int]] = []

    def render(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[Image.Image]:
        self.asked += zip(prompts, seeds, strict=True)
        colors = [content_seed(p, str(s)).to_bytes(8, "big") for p, s in zip(prompts, seeds, strict=True)]
        return [Image.new("RGB", (8, 8), tuple(color[-3:])) for color in colors]

    def too_long(self, prompts: Sequence[str]) -> np.ndarray:
        return np.array([len(prompt) > 20 for prompt in prompts], np.bool_)


class Judge:
    """Scores the picture's colour and the prompt's length."""

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


def _config(**changes: object) -> EvaluateConfig:
    values = {
        "metrics": {"clip": "tiny:clip", "hps": "tiny:hps"},
        "image_seeds": [0, 5],
        "keep_images": 2,
        "renderer": {"model": "tiny:sd", "batch_size": 4},
        "rewrite": {"seed": 9},
    }
    return EvaluateConfig.model_validate(values | changes)


def _words(texts: Sequence[str]) -> list[int]:
    return [len(text.split()) for text in texts]


def test_rows_come_prompt_by_prompt_with_all_that_is_known() -> None:
    painter, rewrites = Painter(), ["a cat, art", "a dog", "an owl that is much too long"]
    judges = {"clip": Judge(limit=5), "hps": Judge()}
    progress: list[tuple[int, int]] = []
    rows = evaluate(
        "dpo", PROMPTS, rewrites, painter, judges, Encoder(), _config(), _words,
        lambda done, total, note="": progress.append((done, total)),
    )  # fmt: skip
    assert [(row.prompt, row.image_seed) for row in rows] == [(p.prompt, s) for p in PROMPTS for s in (0, 5)]
    assert [row.rewrite for row in rows[::2]] == rewrites
    assert [row.tokens for row in rows[::2]] == [3, 2, 7]
    assert [row.distance for row in rows[::2]] == pytest.approx([1 - np.cos(0.5), 0, 1 - np.cos(2.2)], abs=1e-6)
    assert {(row.method, row.source) for row in rows} == {("dpo", "test")}
    # the judge sees the user's prompt: "an owl" has 6 letters, its rewrite more
    drawn = Painter().render([rewrites[2]], [content_seed("image", PROMPTS[2].prompt_id, "5")])[0]
    assert rows[5].metrics == {name: drawn.getpixel((0, 0))[0] + 6 for name in ("clip", "hps")}
    assert [row.truncated for row in rows] == [False] * 4 + [True] * 2
    assert progress == [(4, 18), (6, 18), (12, 18), (18, 18)]


def test_a_judge_or_the_renderer_that_reads_a_part_only_flags_the_row() -> None:
    def cut(judge: Judge, rewrite: str) -> bool:
        [row, _] = evaluate("m", PROMPTS[:1], [rewrite], Painter(), {"clip": judge}, Encoder(), _config(), _words)
        return row.truncated

    assert cut(Judge(limit=4), "a cat")
    assert not cut(Judge(limit=5), "a cat")
    assert cut(Judge(), "a cat with a very long tail")


def test_pictures_are_drawn_once_and_methods_share_seeds() -> None:
    painters = [Painter(), Painter()]
    for painter, rewrites in zip(painters, (["x", "y", "z"], ["u", "v", "w"]), strict=True):
        evaluate("m", PROMPTS, rewrites, painter, {"a": Judge(), "b": Judge()}, Encoder(), _config(), _words)
    one, two = (painter.asked for painter in painters)
    assert len(one) == 6
    assert [seed for _, seed in one] == [seed for _, seed in two]
    assert len({seed for _, seed in one}) == 6
    again = Painter()
    evaluate("m", PROMPTS[2:], ["z"], again, {}, Encoder(), _config(), _words)
    assert again.asked == one[4:]  # whatever else is in the batch


def test_pictures_of_the_first_prompts_are_kept_at_the_first_seed() -> None:
    rows = evaluate("m", PROMPTS, ["x", "y", "z"], Painter(), {"a": Judge()}, Encoder(), _config(), _words)
    assert [row.image is not None for row in rows] == [True, False, True, False, False, False]
    image = rows[0].image
    assert image is not None
    kept = Image.open(io.BytesIO(image))
    assert (kept.format, kept.size) == ("WEBP", (8, 8))


def test_rewrites_must_be_as_many_as_prompts_and_may_be_empty() -> None:
    with pytest.raises(DataError, match="m has 1 rewrites for 3 prompts"):
        evaluate("m", PROMPTS, ["x"], Painter(), {}, Encoder(), _config(), _words)
    assert evaluate("m", [], [], Painter(), {}, Encoder(), _config(), _words) == []
    assert rewrite_all(PROMPTS, Echo(), 9) == ["a cat 9 0", "a dog 9 0", "an owl 9 0"]

    class Mute(Echo):
        def rewrite(self, prompts: Sequence[str], n: int, seed: int) -> list[list[str]]:
            return [[" "] for _ in prompts]

    assert rewrite_all(PROMPTS, Mute(), 0) == [" "] * 3
    assert len(evaluate("m", PROMPTS, [""] * 3, Painter(), {}, Encoder(), _config(), _words)) == 6
