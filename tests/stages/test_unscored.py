"""Images for which a scorer has no score: recorded with the reason, and left out for every method."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from semdpo.data.records import Candidate, Prompt, RenderedImage, content_id
from semdpo.engine import store
from semdpo.engine.stage import Run
from semdpo.errors import DataError, PartlyRefusedError, RefusedRequestError
from semdpo.models.scoring import score_images
from semdpo.protocols import ScoreBatch, UnscoredError
from semdpo.recipe.label import LabelConfig
from semdpo.recipe.models import RendererConfig
from semdpo.reporting.collect import report_data
from semdpo.reporting.evaluated import join
from semdpo.stages.evaluate import evaluation, render
from semdpo.stages.flow import flow
from semdpo.stages.label import label
from tests.stand_ins import Encoder, Renderer, models, recipe_of, run_without_report

pytestmark = pytest.mark.usefixtures("stand_in_trainings")


class Shy:
    """A scorer that has no score for images whose first pixel is in some range."""

    def __init__(self, below: int) -> None:
        self.below = below

    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> ScoreBatch:
        values = [int(np.asarray(image)[0, 0, 0]) for image in images]
        if low := [value for value in values if value < self.below]:
            raise UnscoredError(f"no 'Final Score:' in the answer '{low[0]}'")
        return ScoreBatch(np.array(values, np.float32), np.zeros(len(images), np.bool_))


def _images(rewrites: Sequence[str]) -> tuple[list[RenderedImage], list[int]]:
    prompts = [Prompt.of(text, "test", "test") for text in ("a cat", "a dog", "an owl")]
    images = render("m", prompts, rewrites, Renderer(0.0), Encoder(), [0, 1], 3, lambda texts: [1] * len(texts))
    scored = score_images(images, Shy(0), "rating")
    return images, [int(row.score or 0) for row in scored]


def test_the_others_of_its_batch_have_scores() -> None:
    images, values = _images(["x", "y", "z"])
    border = sorted(values)[2]
    assert border > min(values)
    rows = score_images(images, Shy(border), "rating")
    assert [row.score for row in rows] == [value if value >= border else None for value in values]
    assert {row.error for row in rows if row.score is None} == {
        f"rating: no 'Final Score:' in the answer '{value}'" for value in values if value < border
    }
    joined = join(images, {"rating": rows}, 2)
    assert [row.metrics["rating"] for row in joined] == [value for value in values if value >= border]
    with pytest.raises(DataError, match=r"'rating' scored none of 6 images; the first is .*; use another scorer"):
        score_images(images, Shy(1000), "rating")


class PartlyRefused:
    """A server that refuses every second image of a batch, and is not asked for the others again."""

    def __init__(self) -> None:
        self.asked = 0

    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> ScoreBatch:
        self.asked += len(images)
        raise PartlyRefusedError(
            [RefusedRequestError("too bold") if k % 2 else (0.25, k == 2) for k in range(len(images))]
        )


def test_what_a_server_refuses_leaves_the_others_their_scores() -> None:
    images, _ = _images(["x", "y", "z"])
    server = PartlyRefused()
    rows = score_images(images, server, "vlm")
    assert server.asked == 6
    assert [(row.score, row.truncated, row.error) for row in rows[:4]] == [
        *((0.25, False, None), (None, False, "vlm: too bold")),
        *((0.25, True, None), (None, False, "vlm: too bold")),
    ]


def test_labelling_notes_the_reason() -> None:
    config = LabelConfig(renderer=RendererConfig(model="m"), scorer="rating", batch_size=2, max_failed=1.0)
    candidates = [
        Candidate(content_id("a", text), content_id("a"), "a", text, 0, 0, False) for text in ("one", "two", "three")
    ]
    values = [row.score or 0 for row in label(candidates, Renderer(0.0), {"rating": Shy(0)}, config)]
    border = int(sorted(values)[1])
    rows = label(candidates, Renderer(0.0), {"rating": Shy(border)}, config)
    assert [row.score for row in rows] == [value if value >= border else None for value in values]
    assert any("rating cannot score the image (UnscoredError: no 'Final" in (row.error or "") for row in rows)


@pytest.mark.slow
def test_a_run_compares_methods_on_the_images_that_all_have_scores_for(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path)
    run_without_report(recipe, tmp_path / "run", models(), "losses")
    shy = replace(models(), scorer=lambda *_: Shy(60))
    run = Run(tmp_path / "run", recipe, shy)
    run_without_report(recipe, run.folder, shy, "evaluate")
    whole = evaluation(recipe)
    stages = [f"evaluate/{method}/{metric}" for method in whole.models for metric in recipe.evaluate.metrics]
    assert sum(store.counts(run.folder / stage).get("failed", 0) for stage in stages) > 0
    data = report_data(flow(recipe), run)
    places = [
        {(row.prompt_id, row.image_seed) for row in data.evaluation if row.method == method} for method in whole.models
    ]
    assert places[0]
    assert all(each == places[0] for each in places)
    assert any("a scorer had no score for the image of at least one method" in note for note in data.notes)
