"""Stage 4: what is drawn, with which seed, and against which text it is scored."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from PIL import Image

from semdpo.data.records import Candidate, content_id
from semdpo.errors import DataError
from semdpo.protocols import ScoreBatch
from semdpo.recipe.models import RendererConfig
from semdpo.recipe.schema import LabelConfig
from semdpo.stages.label import label

CONFIG = LabelConfig(renderer=RendererConfig(model="m"), scorer="judge", batch_size=2)


def _candidate(prompt: str, rewrite: str, index: int = 0) -> Candidate:
    identity = content_id(prompt)
    return Candidate(content_id(identity, rewrite, str(index)), identity, prompt, rewrite, index, 0, False)


class Renderer:
    def __init__(self) -> None:
        self.drawn: list[tuple[str, int]] = []

    def render(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[Image.Image]:
        assert len(prompts) <= CONFIG.batch_size
        self.drawn += zip(prompts, seeds, strict=True)
        return [Image.new("L", (1, 1), len(prompt)) for prompt in prompts]


class FlaggingRenderer(Renderer):
    def too_long(self, prompts: Sequence[str]) -> list[bool]:
        return ["endless" in prompt for prompt in prompts]


class Scorer:
    """Image's brightness (the length of what was drawn) plus 100 times the length of what it is scored against."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> ScoreBatch:
        self.asked += prompts
        values = [image.getpixel((0, 0)) + 100 * len(prompt) for image, prompt in zip(images, prompts, strict=True)]
        return ScoreBatch(np.array(values, np.float32), np.array([len(p) > 10 for p in prompts]))


def test_images_are_judged_against_the_users_prompt_and_share_a_seed() -> None:
    candidates = [_candidate("a cat", "a cat, oil"), _candidate("a cat", "a cat, ink!"), _candidate("a fish", "fish")]
    renderer, scorer = Renderer(), Scorer()
    rows = label(candidates, renderer, {"judge": scorer}, CONFIG)
    assert [row.candidate_id for row in rows] == [c.candidate_id for c in candidates]
    assert [row.score for row in rows] == [510.0, 511.0, 604.0]
    assert scorer.asked == ["a cat", "a cat", "a fish"]
    assert [prompt for prompt, _ in renderer.drawn] == ["a cat, oil", "a cat, ink!", "fish"]
    assert [seed for _, seed in renderer.drawn] == [row.image_seed for row in rows]
    assert rows[0].image_seed == rows[1].image_seed != rows[2].image_seed


def test_seeds_do_not_depend_on_position_and_follow_the_recipes_seed() -> None:
    candidates = [_candidate("a", "x"), _candidate("b", "y"), _candidate("c", "z")]
    forward = label(candidates, Renderer(), {"judge": Scorer()}, CONFIG)
    backward = label(candidates[::-1], Renderer(), {"judge": Scorer()}, CONFIG)
    assert forward == backward[::-1]
    other = label(candidates, Renderer(), {"judge": Scorer()}, CONFIG.model_copy(update={"seed": 1}))
    assert {row.image_seed for row in other}.isdisjoint(row.image_seed for row in forward)


def test_a_second_judge_sees_the_same_images_and_adds_its_own_rows() -> None:
    candidates, renderer = [_candidate("a cat", "a cat, oil"), _candidate("a fish", "fish")], Renderer()
    rows = label(candidates, renderer, {"judge": Scorer(), "faithful": Scorer()}, CONFIG)
    assert [(row.candidate_id, row.scorer) for row in rows] == [
        (each.candidate_id, name) for each in candidates for name in ("judge", "faithful")
    ]
    assert len(renderer.drawn) == 2


def test_equal_rewrites_of_a_prompt_are_drawn_once() -> None:
    candidates = [_candidate("a cat", "same", 0), _candidate("a cat", "same", 1), _candidate("a dog", "same", 0)]
    renderer = Renderer()
    rows = label(candidates, renderer, {"judge": Scorer()}, CONFIG)
    assert len(rows) == 3
    assert len(renderer.drawn) == 2, "another prompt has another seed"


def test_texts_that_a_model_cannot_read_to_the_end_are_flagged() -> None:
    candidates = [_candidate("a cat", "endless"), _candidate("a cat", "b"), _candidate("a very long prompt", "c")]
    assert [row.truncated for row in label(candidates, FlaggingRenderer(), {"judge": Scorer()}, CONFIG)] == [
        True,
        False,
        True,
    ]
    assert [row.truncated for row in label(candidates, Renderer(), {"judge": Scorer()}, CONFIG)] == [False, False, True]


def test_a_score_that_is_no_number_names_the_candidates() -> None:
    class Broken(Scorer):
        def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> ScoreBatch:
            values = [np.nan if prompt == "b" else 1.0 for prompt in prompts]
            return ScoreBatch(np.array(values, np.float32), np.zeros(len(prompts), bool))

    candidates = [_candidate("a", "x"), _candidate("b", "y")]
    with pytest.raises(DataError, match=f"not finite to candidates {candidates[1].candidate_id};"):
        label(candidates, Renderer(), {"judge": Broken()}, CONFIG)


def test_progress_reaches_the_end() -> None:
    told: list[tuple[int, int]] = []
    candidates = [_candidate(str(i), "x") for i in range(5)]
    label(candidates, Renderer(), {"judge": Scorer()}, CONFIG, lambda done, total, note="": told.append((done, total)))
    assert told == [(2, 5), (4, 5), (5, 5)]
