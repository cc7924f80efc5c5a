"""Renderers and scorers behind a URL in a run: equal images, what is stored of them, faults, and how a run resumes."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from semdpo.data.records import Candidate, RenderedImage, Score, content_id
from semdpo.engine import store
from semdpo.errors import DataError, ModelError, StoreError
from semdpo.models.endpoint_renderer import load_endpoint_renderer
from semdpo.models.renderer import load_renderer
from semdpo.models.scorers.registry import load_scorer
from semdpo.models.server import SEEDS
from semdpo.protocols import Renderer
from semdpo.recipe.label import LabelConfig
from semdpo.stages.label import label
from tests import stand_ins
from tests.image_servers import (
    FIRST,
    KEY,
    answer,
    recipe_of,
    run_stages,
)
from tests.loopback import Asked, Loopback, Reply, drawn, error, of_bytes

pytestmark = pytest.mark.usefixtures("stand_in_trainings")


def test_images_and_scores_of_a_server_are_a_runs(tmp_path: Path, server: Loopback) -> None:
    run = tmp_path / "run"
    run_stages(recipe_of(tmp_path, server.url), run, *FIRST, "label", "evaluate/human/images", "evaluate/human/vlm")
    candidates = {row.candidate_id: row for row in store.read_rows(run / "candidates", Candidate)}
    scores = store.read_rows(run / "label", Score)
    assert len({row.scorer for row in scores}) == 2
    assert not [row for row in scores if row.error]
    local = stand_ins.Scorer()
    for row in scores[:8]:
        made = candidates[row.candidate_id]
        image = stand_ins.Renderer(0.0).render([made.rewrite], [row.image_seed % SEEDS])
        if row.scorer != server.url:
            assert row.score == pytest.approx(float(local.score(image, [made.prompt]).values[0]))
        else:
            assert 0 < float(row.score or 0) < math.exp(-1)
    images = store.read_rows(run / "evaluate/human/images", RenderedImage)
    assert len(store.read_rows(run / "evaluate/human/vlm", Score)) == len(images) > 0
    assert {asked.headers["authorization"] for asked in server.asked} == {f"Bearer {KEY}"}
    files = [path for path in run.rglob("*") if path.is_file()]
    assert not [path for path in files if KEY.encode() in path.read_bytes()]
    config = json.loads((run / "label/manifest.json").read_text())["config"]
    assert config["renderer"]["endpoint"] == {"model_name": "m", "body": {}}
    assert config["scoring"]["endpoints"] == {server.url: {"model_name": "m", "body": {}}}
    vlm = json.loads((run / "evaluate/human/vlm/manifest.json").read_text())
    assert (vlm["config"]["scoring"], "evaluate.metrics.vlm" in vlm["inputs"]) == (config["scoring"], False)
    inputs = json.loads((run / "label/manifest.json").read_text())["inputs"]
    assert not {"label.renderer.model", "label.fidelity"} & inputs.keys()


def test_how_the_servers_are_reached_may_change_and_what_they_are_asked_may_not(
    tmp_path: Path, server: Loopback
) -> None:
    run = tmp_path / "run"
    run_stages(recipe_of(tmp_path, server.url), run, *FIRST, "label", "evaluate/human/images", "evaluate/human/vlm")
    count = len(server.asked)
    same = ["timeout: 9", "retries: 9", "concurrency: 4", "key_env: MY_KEY"]
    patient = f"{{model_name: m, {', '.join(same)}}}"
    changed = [f"label.renderer.endpoint={patient}", f"evaluate.renderer.endpoint={patient}"]
    changed.append(f"scoring.endpoints={{'{server.url}': {patient}}}")
    run_stages(recipe_of(tmp_path, server.url, *changed), run, "label", "evaluate/human/images", "evaluate/human/vlm")
    assert len(server.asked) == count, "nothing is asked again"
    for stage, change, named in (
        ("label", "label.renderer.endpoint.model_name=n", "renderer.endpoint.model_name"),
        ("label", "label.renderer.endpoint.body={a: 1}", "renderer.endpoint.body"),
        ("label", "label.renderer.steps=5", "renderer.steps"),
        ("label", f"scoring.endpoints={{'{server.url}': {{model_name: n}}}}", "scoring.endpoints"),
        ("evaluate/human/images", "evaluate.renderer.endpoint.body={a: 1}", "renderer.endpoint.body"),
    ):
        with pytest.raises(StoreError, match=f"{stage} was made with {named}"):
            run_stages(recipe_of(tmp_path, server.url, change), run, stage)


def test_a_run_whose_server_ended_resumes_with_the_same_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with Loopback(answer) as server:
        run_stages(recipe_of(tmp_path, server.url), tmp_path / "whole", *FIRST, "label")

    def ends_soon(asked: Asked) -> Reply:
        return Reply(dropped=True) if len(first.asked) > 40 else answer(asked)

    with Loopback(ends_soon, port=server.port) as first, pytest.raises(ModelError, match="cannot be reached"):
        run_stages(recipe_of(tmp_path, server.url), tmp_path / "run", *FIRST, "label")
    with pytest.raises(ModelError, match="cannot be reached"):  # it is down still
        run_stages(recipe_of(tmp_path, server.url), tmp_path / "run", "label")
    done = sorted(path.name for path in (tmp_path / "run/label").glob("*.parquet"))
    assert 0 < len(done) < 5
    with Loopback(answer, port=server.port):
        run_stages(recipe_of(tmp_path, server.url), tmp_path / "run", "label")
    assert stand_ins.files_of(tmp_path / "run") == stand_ins.files_of(tmp_path / "whole")


def test_workers_ask_it_too(tmp_path: Path, server: Loopback) -> None:
    recipe = recipe_of(tmp_path, server.url)
    run_stages(recipe, tmp_path / "one", *FIRST, "label")
    run_stages(recipe, tmp_path / "two", *FIRST, "label", workers=2)
    rows = [store.read_rows(tmp_path / name / "label", Score) for name in ("one", "two")]
    assert rows[0] == rows[1]


def test_what_the_server_refuses_is_noted_and_the_rest_is_asked_once(tmp_path: Path, server: Loopback) -> None:
    def picky(asked: Asked) -> Reply:
        if "generations" not in asked.path:
            return answer(asked)
        if asked.body["prompt"].startswith("a thing 3, style"):
            return error(400, "content policy")
        return of_bytes(b"<html>") if asked.body["prompt"].startswith("a thing 9, style") else answer(asked)

    server.answer = picky
    with pytest.raises(DataError, match=r"candidates have no score, and label\.max_failed is 0\.01; the first is"):
        run_stages(recipe_of(tmp_path, server.url), tmp_path / "strict", *FIRST, "label")
    server.asked.clear()
    run_stages(recipe_of(tmp_path, server.url, "label.max_failed=0.5"), tmp_path / "run", *FIRST, "label")
    rows = store.read_rows(tmp_path / "run/label", Score)
    candidates = {row.candidate_id: row for row in store.read_rows(tmp_path / "run/candidates", Candidate)}
    failed = {candidates[row.candidate_id].prompt: row.error for row in rows if row.error}
    assert failed.keys() == {"a thing 3", "a thing 9"}
    assert "the image cannot be rendered" in str(failed["a thing 3"])
    assert f"{server.url} refuses the request (content policy); change what it names" in str(failed["a thing 3"])
    assert "what it sent is no PNG, JPEG or WEBP file" in str(failed["a thing 9"])
    asked = [json.dumps(each.body, sort_keys=True) for each in server.asked if "generations" in each.path]
    assert len(asked) == len(set(asked)), "a batch with one refusal is not rendered again"


def test_an_image_without_a_score_has_the_reason(tmp_path: Path, server: Loopback) -> None:
    def picky(asked: Asked) -> Reply:
        is_three = "messages" in asked.body and '"a thing 3"' in asked.body["messages"][0]["content"][1]["text"]
        return error(422, "too many pixels") if is_three else answer(asked)

    server.answer = picky
    run_stages(recipe_of(tmp_path, server.url, "label.max_failed=0.5"), tmp_path / "run", *FIRST, "label")
    rows = store.read_rows(tmp_path / "run/label", Score)
    errors = {row.error for row in rows if row.scorer == server.url and row.error}
    assert errors == {
        f"{server.url} cannot score the image ({server.url} refuses the request (too many pixels); change what it "
        "names)"
    }
    assert not [row for row in rows if row.scorer != server.url and row.error]


def test_an_evaluation_notes_what_a_server_does_not_score(tmp_path: Path, server: Loopback) -> None:
    def picky(asked: Asked) -> Reply:
        is_one = "messages" in asked.body and '"another 1"' in asked.body["messages"][0]["content"][1]["text"]
        return error(422, "too many pixels") if is_one else answer(asked)

    server.answer = picky
    recipe, run = recipe_of(tmp_path, server.url), tmp_path / "run"
    run_stages(recipe, run, *FIRST, "evaluate/human/images", "evaluate/human/vlm")
    rows = store.read_rows(run / "evaluate/human/vlm", Score)
    refused = {row.error for row in rows if row.score is None}
    assert refused == {f"vlm: {server.url} refuses the request (too many pixels); change what it names"}
    assert 0 < sum(row.score is None for row in rows) < len(rows)
    server.answer = lambda asked: error(422, "too many pixels") if "messages" in asked.body else answer(asked)
    with pytest.raises(DataError, match=r"'vlm' scored none of \d+ images; .* \(too many pixels\)"):
        run_stages(recipe, tmp_path / "other", *FIRST, "evaluate/human/images", "evaluate/human/vlm")


def test_kept_scores_and_images_follow_the_server_and_its_model(tmp_path: Path, server: Loopback) -> None:
    kept = ["label.reuse_scores=true", "label.reuse_images=true"]
    run_stages(recipe_of(tmp_path, server.url, *kept), tmp_path / "one", *FIRST, "label")
    server.asked.clear()
    run_stages(recipe_of(tmp_path, server.url, *kept), tmp_path / "two", *FIRST, "label")
    assert {asked.path for asked in server.asked} == {"/v1/models"}, "all is known"
    server.models = server.listed = Reply(body={"data": []})
    other = [*kept, "label.renderer.endpoint.model_name=n"]
    run_stages(recipe_of(tmp_path, server.url, *other), tmp_path / "three", *FIRST, "label")
    assert sum("generations" in asked.path for asked in server.asked) > 0, "another model, other images"
    server.asked.clear()
    judge = [*kept, f"scoring.endpoints={{'{server.url}': {{model_name: n}}}}"]
    run_stages(recipe_of(tmp_path, server.url, *judge), tmp_path / "four", *FIRST, "label")
    paths = {asked.path for asked in server.asked}
    assert "/v1/chat/completions" in paths, "another judge, other scores"
    assert "/v1/images/generations" not in paths, "of the images that are kept"


class _Reduced:
    """The local renderer with the seeds that a server gets."""

    def __init__(self, renderer: Renderer) -> None:
        self.renderer = renderer

    def render(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[Image.Image]:
        return self.renderer.render(prompts, [seed % SEEDS for seed in seeds])


def test_the_tiny_worlds_own_pipeline_behind_a_url_gives_the_same_scores() -> None:
    local = load_renderer("tiny:sd", steps=2, guidance=3.5, batch_size=1)

    def serve(asked: Asked) -> Reply:
        assert (asked.body["num_inference_steps"], asked.body["guidance_scale"], asked.body["size"]) == (
            2,
            3.5,
            "64x64",
        )
        return drawn(local.render([asked.body["prompt"]], [asked.body["seed"]])[0])

    named = {"model_name": "m", "concurrency": 1}
    candidates = [
        Candidate(content_id(prompt, rewrite), content_id(prompt), prompt, rewrite, index, 0, False)
        for prompt in ("a red circle", "two blue squares")
        for index, rewrite in enumerate((prompt, f"{prompt} on sand"))
    ]
    scorers = {"tiny:image-reward": load_scorer("tiny:image-reward")}
    with Loopback(serve) as server:
        asked = {"model": server.url, "endpoint": named, "steps": 2, "guidance": 3.5, "height": 64, "width": 64}
        config = LabelConfig.model_validate({"renderer": asked, "scorer": "tiny:image-reward", "batch_size": 4})
        remote = load_endpoint_renderer(config.renderer)
        there = label(candidates, remote, scorers, config)
        here = label(candidates, _Reduced(local), scorers, config)
        assert there == here
        assert len({row.score for row in there}) == 4
        pixels = remote.render(["a red circle"], [5])[0]
    assert np.array_equal(pixels, local.render(["a red circle"], [5])[0])
