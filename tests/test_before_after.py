"""The PNG of before and after says how both images were made, as other tools read it."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence

import numpy as np
import pytest
from PIL import Image

from semdpo.before_after import GAP, Rendered, parameters, png, render_both, too_long
from semdpo.protected_spans import readable
from semdpo.protocols import Bool

MADE = Rendered(
    'a red cat, "oil": 猫\nart',
    "a red cat",
    7,
    "tiny:sd",
    ("runs/m", "ab" * 32),
    (("Steps", 20), ("Sampler", "DDIM"), ("CFG scale", 7.5)),
)


class Colours:
    """A renderer whose images say which prompt and seed they have."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int]] = []

    def render(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[Image.Image]:
        self.asked += zip(prompts, seeds, strict=True)
        return [Image.new("RGB", (10, 6 + 2 * k), (200 * k, 0, 0)) for k, _ in enumerate(prompts)]


def test_both_images_have_one_seed_and_stand_side_by_side() -> None:
    renderer = Colours()
    both = render_both(renderer, "a (red:1.2) cat <lora:x:1>", "a (red:1.2) cat, oil <lora:x:1>", 7)
    assert renderer.asked == [("a red cat", 7), ("a red cat, oil", 7)]
    assert both.size == (10 + GAP + 10, 8)
    assert [both.getpixel(place) for place in ((0, 0), (12, 0), (19, 7), (0, 7))] == [
        (0, 0, 0), (255, 255, 255), (200, 0, 0), (255, 255, 255),
    ]  # fmt: skip


class Forgets(Colours):
    """A renderer that reads seven characters."""

    def too_long(self, prompts: Sequence[str]) -> Bool:
        return np.array([len(prompt) > 7 for prompt in prompts])


def test_what_a_renderer_does_not_read_is_known() -> None:
    assert too_long(Forgets(), ["a (cat:1.2) <lora:x:1>", "a fat cat"]) == [False, True]
    assert too_long(Colours(), ["a fat cat"]) == [False]


def test_the_metadata_says_how_it_was_made() -> None:
    image = Image.open(io.BytesIO(png(Image.new("RGB", (24, 8)), MADE)))
    image.load()
    assert json.loads(image.info["semdpo"]) == {
        "prompt": "a red cat", "rewrite": 'a red cat, "oil": 猫\nart', "seed": 7, "renderer": "tiny:sd",
        "rewriter": "runs/m", "rewriter_sha256": "ab" * 32,
    }  # fmt: skip
    text, settings = image.info["parameters"].rsplit("\n", 1)
    assert text == 'a red cat, "oil": 猫 art'
    assert settings == (
        'Steps: 20, Sampler: DDIM, CFG scale: 7.5, Seed: 7, Size: 24x8, Model: "tiny:sd", Original prompt: a red cat, '
        "Rewriter: runs/m"
    )


def test_values_with_separators_are_quoted() -> None:
    made = Rendered("a", "a, b: c", 0, "m")
    assert 'Original prompt: "a, b: c"' in parameters(Image.new("RGB", (8, 8)), made)
    assert "Original" not in parameters(Image.new("RGB", (8, 8)), Rendered("a", None, 0, "m"))


@pytest.mark.parametrize(
    ("prompt", "wanted"),
    [
        ("a cat", "a cat"),
        ("a (red:1.2) cat BREAK a [dog|cat] --ar 1:1", "a red cat a dog"),
        ("a cat\nNegative prompt: ugly", "a cat"),
    ],
)
def test_other_tools_syntax_is_not_rendered(prompt: str, wanted: str) -> None:
    assert readable(prompt) == wanted
