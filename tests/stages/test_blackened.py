"""Images that a safety checker blackened: recorded, in no pair, given no score, counted in the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from semdpo import pipeline
from semdpo.data.records import BLACKENED, Candidate, Pair, Prompt, RenderedImage, Score, content_id
from semdpo.engine import store
from semdpo.engine.providers import Models
from semdpo.engine.stage import Run
from semdpo.errors import DataError
from semdpo.models.scoring import score_images
from semdpo.protocols import ScoreBatch, render_checked
from semdpo.recipe.label import LabelConfig
from semdpo.recipe.models import RendererConfig
from semdpo.recipe.pairs import PairsConfig
from semdpo.reporting.collect import report_data
from semdpo.reporting.evaluated import join
from semdpo.stages.evaluate import evaluation, render
from semdpo.stages.flow import flow
from semdpo.stages.label import label
from semdpo.stages.pairs import PairCounts, choose
from tests.stand_ins import Encoder, Renderer, models, recipe_of, run_without_report

pytestmark = pytest.mark.usefixtures("stand_in_trainings")


CONFIG = LabelConfig(renderer=RendererConfig(model="m"), scorer="judge", batch_size=2)


class Strict(Renderer):
    """Blackens what is drawn for texts with certain words in them."""

    def __init__(self, *words: str) -> None:
        super().__init__(0.0)
        self.words = words

    def render_checked(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[tuple[Image.Image, bool]]:
        found = zip(self.render(prompts, seeds), prompts, strict=True)
        black = [(image, any(word in prompt for word in self.words)) for image, prompt in found]
        return [(Image.new("RGB", image.size) if flag else image, flag) for image, flag in black]


class Scorer:
    """Refuses to be asked about a black image."""

    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> ScoreBatch:
        assert images, "nothing is asked without images"
        assert all(np.asarray(image).max() > 0 for image in images)
        values = [np.asarray(image).mean() / 255 for image in images]
        return ScoreBatch(np.array(values, np.float32), np.zeros(len(prompts), np.bool_))


def _strict(*words: str) -> Models:
    return replace(models(), renderer=lambda _: Strict(*words), scorer=lambda *_: Scorer())


def _candidate(prompt: str, rewrite: str) -> Candidate:
    return Candidate(content_id(prompt, rewrite), content_id(prompt), prompt, rewrite, 0, 0, False)


def test_a_renderer_without_a_checker_blackens_none() -> None:
    assert [flag for _, flag in render_checked(Renderer(0.0), ["a", "b"], [1, 2])] == [False, False]


def test_labelling_records_it_and_asks_no_scorer() -> None:
    candidates = [_candidate("a", text) for text in ("one", "bad two", "bad three", "bad four", "five")]
    rows = label(candidates, Strict("bad"), {"judge": Scorer(), "faithful": Scorer()}, CONFIG)
    assert [(row.candidate_id, row.scorer) for row in rows] == [
        (each.candidate_id, name) for each in candidates for name in ("judge", "faithful")
    ]
    for row, black in zip(rows, np.repeat([False, True, True, True, False], 2), strict=True):
        assert (row.score is None, row.error) == ((True, BLACKENED) if black else (False, None))
    ordinary = label(candidates, Renderer(0.0), {"judge": Scorer()}, CONFIG)
    assert [rows[0].score, rows[8].score] == [ordinary[0].score, ordinary[4].score], "the others are as ever"


def _scores(candidates: Sequence[Candidate], values: Sequence[float | None]) -> list[Score]:
    return [
        Score(c.candidate_id, "judge", value, 0, False, BLACKENED if value is None else None)
        for c, value in zip(candidates, values, strict=True)
    ]


@pytest.mark.parametrize(
    ("values", "expected", "counts"),
    [
        ([None, 0.2, 0.9], ("b", "c"), PairCounts(1, 0, 0, 0)),
        ([0.1, None, 0.9], ("a", "c"), PairCounts(1, 0, 0, 0)),
        ([0.1, None, None], None, PairCounts(0, 0, 0, 0, blackened=1)),
        ([None, None, None], None, PairCounts(0, 0, 0, 0, blackened=1)),
        ([None, 0.5, 0.5], None, PairCounts(0, 1, 0, 0)),
    ],
)
def test_they_stand_in_no_pair(
    values: list[float | None], expected: tuple[str, str] | None, counts: PairCounts
) -> None:
    candidates = [_candidate("p", text) for text in "abc"]
    pairs, found = choose(candidates, _scores(candidates, values), PairsConfig())
    assert found == counts
    assert [(pair.rejected, pair.chosen) for pair in pairs] == ([] if expected is None else [expected])


def test_one_candidate_alone_is_single_whatever_became_of_its_image() -> None:
    candidates = [_candidate("p", "a")]
    assert choose(candidates, _scores(candidates, [None]), PairsConfig())[1] == PairCounts(0, 0, 0, 1)


def test_a_missing_score_is_still_a_fault() -> None:
    candidates = [_candidate("p", text) for text in "abc"]
    scores = _scores(candidates, [None, 0.1, 0.2])
    with pytest.raises(DataError, match=f"candidates {candidates[2].candidate_id} have no score"):
        choose(candidates, scores[:2], PairsConfig())


def test_evaluation_keeps_the_image_and_gives_no_score() -> None:
    prompts = [Prompt.of(text, "test", "test") for text in ("a cat", "a dog")]
    rewrites = ["a cat", "bad dog"]
    images = render("m", prompts, rewrites, Strict("bad"), Encoder(), [0, 1], 3, lambda texts: [1] * len(texts))
    assert [image.blackened for image in images] == [False, False, True, True]
    scored = score_images(images, Scorer(), "clip")
    assert [row.score is None for row in scored] == [False, False, True, True]
    rows = join(images, {"clip": scored}, 2)
    assert [row.prompt for row in rows] == ["a cat", "a cat"]
    assert score_images(images[2:], Scorer(), "clip") == [
        Score(images[2].candidate_id, "clip", None, s, False, BLACKENED) for s in (0, 1)
    ]
    with pytest.raises(DataError, match="has no score; evaluate again"):
        join([replace(image, blackened=False) for image in images], {"clip": scored}, 2)


@pytest.mark.slow
def test_a_run_counts_them_and_compares_methods_on_the_same_places(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path)
    run = Run(tmp_path / "run", recipe, _strict("style 3", "style 5"))
    run_without_report(recipe, run.folder, run.models)
    scores, candidates = (
        store.read_rows(run.folder / "label", Score),
        store.read_rows(run.folder / "candidates", Candidate),
    )
    black = {c.rewrite for c in candidates if c.rewrite[-1] in "35"}
    assert 0 < store.counts(run.folder / "label")["blackened"] == sum(s.score is None for s in scores) == len(black)
    for pair in store.read_rows(run.folder / "drift", Pair):
        assert not {pair.chosen, pair.rejected} & black
    images = {m: store.read_rows(run.folder / f"evaluate/{m}/images", RenderedImage) for m in evaluation(recipe).models}
    lost = {(p.prompt_id, p.image_seed) for own in images.values() for p in own if p.blackened}
    kept = {(p.prompt_id, p.image_seed) for p in images["human"]} - lost
    assert lost
    assert kept
    data = report_data(flow(recipe), run)
    for method in images:
        assert {(row.prompt_id, row.image_seed) for row in data.evaluation if row.method == method} == kept
    assert data.blackened == {m: sum(p.blackened for p in own) for m, own in images.items()}
    assert any(f"{len(black)} candidates, which are not used in any pair" in note for note in data.notes)
    assert any(f"For {len(lost)} combinations of prompt and image seed" in note for note in data.notes)
    pipeline.run(recipe, run.folder, only="report", models=run.models)
    page = pipeline.report_path(run.folder).read_text()
    assert f"{data.blackened['sem_dpo']} images blackened by the safety checker" in page
    assert "blackened" in (run.folder / "report/tables/counts.csv").read_text().splitlines()[0]


def test_where_all_are_black_a_run_stops_and_names_the_switch(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path)
    with pytest.raises(DataError, match=r"no pair is left, .* 20 prompts .* set label\.renderer\.safety_checker=false"):
        run_without_report(recipe, tmp_path / "run", _strict("style"), "drift")


def test_where_nothing_is_left_to_compare_the_report_says_why(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path)
    run_without_report(recipe, tmp_path / "run", models(), "losses")
    parts = _strict("another")
    pipeline.run(recipe, tmp_path / "run", only="evaluate", models=parts)
    with pytest.raises(DataError, match=r"no image is left to compare: .* evaluate\.renderer\.safety_checker=false"):
        report_data(flow(recipe), Run(tmp_path / "run", recipe, parts))
