"""An evaluation whose server does not render every image: what is noted, left out and refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from semdpo.data.records import RenderedImage, Score
from semdpo.engine import store
from semdpo.engine.stage import Run
from semdpo.errors import DataError
from semdpo.reporting.evaluated import evaluation_rows, unrendered, unscored
from semdpo.stages.evaluate import evaluation
from tests.image_servers import (
    FIRST,
    answer,
    models_of_servers,
    recipe_of,
    run_stages,
)
from tests.loopback import Asked, Loopback, Reply, error

pytestmark = pytest.mark.usefixtures("stand_in_trainings")


def _refuses(*prompts: str) -> Callable[[Asked], Reply]:
    def picky(asked: Asked) -> Reply:
        return error(400, "content policy") if asked.body.get("prompt") in prompts else answer(asked)

    return picky


def _stages_of(*methods: str) -> list[str]:
    return [f"evaluate/{method}/{name}" for method in methods for name in ("images", "clip", "consistency", "vlm")]


def test_an_evaluation_notes_what_a_server_does_not_render(tmp_path: Path, server: Loopback) -> None:
    server.answer = _refuses("another 1")
    recipe, run = recipe_of(tmp_path, server.url), tmp_path / "run"
    run_stages(recipe, run, *FIRST, "evaluate/human/images", "evaluate/human/clip", "evaluate/human/vlm")
    images = store.read_rows(run / "evaluate/human/images", RenderedImage)
    lost = [row for row in images if row.error]
    assert {(row.prompt, row.image, row.blackened) for row in lost} == {("another 1", b"", False)}
    assert {row.error for row in lost} == {
        f"the image cannot be rendered ({server.url} refuses the request (content policy); change what it names)"
    }
    assert store.counts(run / "evaluate/human/images")["failed"] == len(lost) == 2
    for metric in ("clip", "vlm"):
        scores = store.read_rows(run / f"evaluate/human/{metric}", Score)
        assert [row.score is None for row in scores] == [row.error is not None for row in images]
        assert [row.error for row in scores if row.error] == [row.error for row in lost]
        assert "failed" not in store.counts(run / f"evaluate/human/{metric}"), "that is no failure of the scorer"
    asked = [json.dumps(each.body, sort_keys=True) for each in server.asked if "generations" in each.path]
    assert len(asked) == len(set(asked)), "a batch with one refusal is not rendered again"


def test_methods_stay_paired_where_one_of_them_has_no_image(tmp_path: Path, server: Loopback) -> None:
    recipe, run = recipe_of(tmp_path, server.url), tmp_path / "run"
    models = models_of_servers()
    found = evaluation(recipe)
    whole = replace(found, models={name: found.models[name] for name in ("human", "sft")})
    server.answer = _refuses("another 1")
    run_stages(recipe, run, *FIRST, *_stages_of("human", "sft"))
    rows = evaluation_rows(whole, Run(run, recipe, models))
    places = [{(row.prompt, row.image_seed) for row in rows if row.method == method} for method in ("human", "sft")]
    assert places[0] == places[1] == {(f"another {k}", seed) for k in (0, 2, 3, 4, 5) for seed in (0, 1)}
    lost = unrendered(whole, Run(run, recipe, models))
    assert {method: len(found) for method, found in lost.items()} == {"human": 2, "sft": 0}
    assert not any(unscored(whole, Run(run, recipe, models)).values())


def test_too_many_missing_images_stop_an_evaluation_which_resumes(tmp_path: Path, server: Loopback) -> None:
    server.answer = _refuses("another 1", "another 2", "another 3")  # of two shards, so that one has two of them
    recipe, run = recipe_of(tmp_path, server.url), tmp_path / "run"
    strict = r"\d of a shard's \d rewrites have no image, and evaluate\.max_failed is 0\.01; the first is that of met"
    with pytest.raises(DataError, match=strict):
        run_stages(recipe, run, *FIRST, "evaluate/human/images")
    generous = recipe_of(tmp_path, server.url, "evaluate.max_failed=1")
    run_stages(generous, run, "evaluate/human/images")
    assert store.counts(run / "evaluate/human/images")["failed"] == 6
    run_stages(recipe, run, "evaluate/human/images")  # the share is no part of what the images depend on
    server.answer, none = _refuses("another 5"), recipe_of(tmp_path, server.url, "evaluate.max_failed=0")
    with pytest.raises(DataError, match=r"evaluate\.max_failed is 0;"):
        run_stages(none, tmp_path / "none", *FIRST, "evaluate/human/images")


def test_where_no_image_is_left_the_report_says_why(tmp_path: Path, server: Loopback) -> None:
    recipe, run = recipe_of(tmp_path, server.url, "evaluate.max_failed=1"), tmp_path / "run"
    server.answer = _refuses(*(f"another {k}" for k in range(6)))
    run_stages(recipe, run, *FIRST, *_stages_of("human"))
    whole = replace(evaluation(recipe), models={"human": "sft"})
    with pytest.raises(DataError, match="the image of a method could not be rendered; name another renderer"):
        evaluation_rows(whole, Run(run, recipe, models_of_servers()))
