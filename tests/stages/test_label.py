"""Stage 4: what is drawn, with which seed, and against which text it is scored."""

from __future__ import annotations

import errno
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from PIL import Image

from semdpo.data.records import Candidate, content_id
from semdpo.errors import DataError, StoreError
from semdpo.protocols import ScoreBatch
from semdpo.recipe.label import LabelConfig
from semdpo.recipe.models import RendererConfig
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


class Broken(Scorer):
    """Gives no number to the prompt b."""

    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> ScoreBatch:
        values = [np.nan if prompt == "b" else 1.0 for prompt in prompts]
        return ScoreBatch(np.array(values, np.float32), np.zeros(len(prompts), bool))


def test_a_score_that_is_no_number_is_noted_with_its_reason() -> None:
    candidates = [_candidate("a", "x"), _candidate("b", "y"), _candidate("c", "z")]
    scorers: dict[str, Scorer] = {"judge": Broken(), "other": Scorer()}
    rows = label(candidates, Renderer(), scorers, CONFIG)
    assert [row.error for row in rows if row.scorer == "judge"] == [
        None,
        "judge gave a score that is not finite (nan)",
        None,
    ]
    assert [row.score is None for row in rows] == [False, False, True, False, False, False]


@pytest.mark.parametrize(("share", "fails"), [(0.0, True), (0.01, False), (1.0, False)])
def test_one_candidate_may_fail_unless_none_may(share: float, fails: bool) -> None:
    candidates = [_candidate("a", "x"), _candidate("b", "y")]
    config = CONFIG.model_copy(update={"max_failed": share})
    if not fails:
        assert len(label(candidates, Renderer(), {"judge": Broken()}, config)) == 2
        return
    with pytest.raises(DataError, match=rf"1 of a shard's 2 .* is {candidates[1].candidate_id}: judge gave .* not fin"):
        label(candidates, Renderer(), {"judge": Broken()}, config)


def test_more_failures_than_allowed_stop_the_run() -> None:
    candidates = [_candidate("b" if i < 4 else "a", str(i)) for i in range(40)]
    allowed, refused = (CONFIG.model_copy(update={"max_failed": share}) for share in (0.1, 0.099))
    assert sum(row.score is None for row in label(candidates, Renderer(), {"judge": Broken()}, allowed)) == 4
    with pytest.raises(DataError, match=r"4 of a shard's 40 candidates have no score, and label\.max_failed is 0\.099"):
        label(candidates, Renderer(), {"judge": Broken()}, refused)


class Picky(Renderer):
    """Cannot render a batch in which a rewrite is bad."""

    error: Exception = RuntimeError("no such glyph\nin the font")

    def render(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[Image.Image]:
        if "bad" in prompts:
            raise self.error
        return super().render(prompts, seeds)


def test_an_image_that_cannot_be_rendered_costs_no_other() -> None:
    candidates = [_candidate("a", text) for text in ("x", "bad", "y", "z")]
    rows = label(candidates, Picky(), {"judge": Scorer()}, CONFIG)
    plain = label(candidates, Renderer(), {"judge": Scorer()}, CONFIG)
    assert [row.error for row in rows] == [
        None,
        "the image cannot be rendered (RuntimeError: no such glyph)",
        None,
        None,
    ]
    assert [row for row in rows if row.error is None] == [plain[0], *plain[2:]]


def test_a_scorer_that_fails_at_one_image_costs_no_other() -> None:
    class Failing(Scorer):
        def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> ScoreBatch:
            if "b" in prompts:
                raise ValueError
            return super().score(images, prompts)

    candidates = [_candidate("a", "x"), _candidate("b", "y")]
    rows = label(candidates, Renderer(), {"judge": Failing()}, CONFIG)
    assert [row.error for row in rows] == [None, "judge cannot score the image (ValueError)"]


@pytest.mark.parametrize(
    "error", [DataError("all is wrong"), MemoryError(), torch.OutOfMemoryError("CUDA"), KeyboardInterrupt()]
)
def test_what_no_single_image_causes_ends_the_run(error: Exception) -> None:
    renderer = Picky()
    renderer.error = error
    with pytest.raises(type(error)):
        label([_candidate("a", "bad"), _candidate("a", "y")], renderer, {"judge": Scorer()}, CONFIG)


def test_a_full_disk_is_no_failure_of_an_image() -> None:
    renderer = Picky()
    renderer.error = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(StoreError, match="there is no space left for the files of a renderer or scorer"):
        label([_candidate("a", "bad"), _candidate("a", "y")], renderer, {"judge": Scorer()}, CONFIG)


def test_a_wrong_number_of_images_ends_the_run() -> None:
    class Short(Renderer):
        def render(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[Image.Image]:
            return super().render(prompts, seeds)[:1]

    with pytest.raises(DataError, match="a model gave 1 results for 2 images"):
        label([_candidate("a", "x"), _candidate("a", "y")], Short(), {"judge": Scorer()}, CONFIG)


def test_progress_reaches_the_end() -> None:
    told: list[tuple[int, int]] = []
    candidates = [_candidate(str(i), "x") for i in range(5)]
    label(candidates, Renderer(), {"judge": Scorer()}, CONFIG, lambda done, total, note="": told.append((done, total)))
    assert told == [(2, 5), (4, 5), (5, 5)]
