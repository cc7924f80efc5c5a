"""Renderers and scorers behind a URL in a run: equal images, what is stored of them, faults, and how a run resumes."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from semdpo import pipeline
from semdpo.data.atoms import AtomAnswer
from semdpo.data.records import Candidate, RenderedImage, Score, content_id
from semdpo.engine import store
from semdpo.engine.counts import described
from semdpo.engine.providers import Models, own_models
from semdpo.engine.stage import Run
from semdpo.errors import DataError, ModelError, StoreError
from semdpo.models.endpoint_renderer import load_endpoint_renderer
from semdpo.models.renderer import load_renderer
from semdpo.models.scorers.registry import load_scorer
from semdpo.models.server import SEEDS
from semdpo.protocols import Renderer, Scorer
from semdpo.recipe.label import LabelConfig
from semdpo.recipe.models import RendererConfig, ScoringConfig
from semdpo.recipe.schema import Recipe
from semdpo.reporting.evaluated import evaluation_rows, unrendered, unscored
from semdpo.stages.evaluate import evaluation
from semdpo.stages.flow import flow
from semdpo.stages.label import label
from tests import stand_ins
from tests.loopback import Asked, Loopback, Reply, drawn, error, of_bytes, told

KEY = "sk-secret-1234567890"
pytestmark = pytest.mark.usefixtures("stand_in_trainings")


def _remote_renderer(config: RendererConfig) -> Renderer:
    return own_models().renderer(config)


def _any_scorer(name: str, config: ScoringConfig) -> Scorer:
    return own_models().scorer(name, config) if name.startswith("http") else stand_ins.Scorer()


def _models() -> Models:
    """Stand-ins, and real clients of servers; other processes can have them too."""
    return replace(stand_ins.models(), renderer=_remote_renderer, scorer=_any_scorer)


def answer(asked: Asked) -> Reply:
    """Renders as the stand-in does, and is the surer of an image the brighter it is."""
    if "generations" in asked.path:
        return drawn(stand_ins.Renderer(0.0).render([asked.body["prompt"]], [asked.body["seed"]])[0])
    return told(("Yes", -1.0 - len(asked.body["messages"][0]["content"][0]["image_url"]["url"]) / 1000))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Loopback]:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with Loopback(answer) as loopback:
        yield loopback


def _recipe(folder: Path, url: str, *overrides: str) -> Recipe:
    asked = f"{{model: '{url}', endpoint: {{model_name: m, retries: 0}}, steps: 4, guidance: 3.5}}"
    settings = [
        f"label.renderer={asked}",
        f"evaluate.renderer={asked}",
        f"label.fidelity={url}",
        f"evaluate.metrics={{clip: 'tiny:clip', vlm: '{url}'}}",
        "report.fidelity=[clip, vlm]",
        "report.preference=[]",
        "sweep=null",
        "candidates.n=2",
        f"scoring.endpoints={{'{url}': {{model_name: m, retries: 0}}}}",
    ]
    return stand_ins.recipe_of(folder, *settings, *overrides)


def _run(recipe: Recipe, run: Path, *stages: str, workers: int | None = None) -> None:
    for stage in stages:
        pipeline.run(recipe, run, only=stage, models=_models(), workers=workers)


FIRST = ("prompts", "sft", "candidates")


def test_images_and_scores_of_a_server_are_a_runs(tmp_path: Path, server: Loopback) -> None:
    run = tmp_path / "run"
    _run(_recipe(tmp_path, server.url), run, *FIRST, "label", "evaluate/human/images", "evaluate/human/vlm")
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
    _run(_recipe(tmp_path, server.url), run, *FIRST, "label", "evaluate/human/images", "evaluate/human/vlm")
    count = len(server.asked)
    same = ["timeout: 9", "retries: 9", "concurrency: 4", "key_env: MY_KEY"]
    patient = f"{{model_name: m, {', '.join(same)}}}"
    changed = [f"label.renderer.endpoint={patient}", f"evaluate.renderer.endpoint={patient}"]
    changed.append(f"scoring.endpoints={{'{server.url}': {patient}}}")
    _run(_recipe(tmp_path, server.url, *changed), run, "label", "evaluate/human/images", "evaluate/human/vlm")
    assert len(server.asked) == count, "nothing is asked again"
    for stage, change, named in (
        ("label", "label.renderer.endpoint.model_name=n", "renderer.endpoint.model_name"),
        ("label", "label.renderer.endpoint.body={a: 1}", "renderer.endpoint.body"),
        ("label", "label.renderer.steps=5", "renderer.steps"),
        ("label", f"scoring.endpoints={{'{server.url}': {{model_name: n}}}}", "scoring.endpoints"),
        ("evaluate/human/images", "evaluate.renderer.endpoint.body={a: 1}", "renderer.endpoint.body"),
    ):
        with pytest.raises(StoreError, match=f"{stage} was made with {named}"):
            _run(_recipe(tmp_path, server.url, change), run, stage)


def test_a_run_whose_server_ended_resumes_with_the_same_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with Loopback(answer) as server:
        _run(_recipe(tmp_path, server.url), tmp_path / "whole", *FIRST, "label")

    def ends_soon(asked: Asked) -> Reply:
        return Reply(dropped=True) if len(first.asked) > 40 else answer(asked)

    with Loopback(ends_soon, port=server.port) as first, pytest.raises(ModelError, match="cannot be reached"):
        _run(_recipe(tmp_path, server.url), tmp_path / "run", *FIRST, "label")
    with pytest.raises(ModelError, match="cannot be reached"):  # it is down still
        _run(_recipe(tmp_path, server.url), tmp_path / "run", "label")
    done = sorted(path.name for path in (tmp_path / "run/label").glob("*.parquet"))
    assert 0 < len(done) < 5
    with Loopback(answer, port=server.port):
        _run(_recipe(tmp_path, server.url), tmp_path / "run", "label")
    assert stand_ins.files_of(tmp_path / "run") == stand_ins.files_of(tmp_path / "whole")


def test_workers_ask_it_too(tmp_path: Path, server: Loopback) -> None:
    recipe = _recipe(tmp_path, server.url)
    _run(recipe, tmp_path / "one", *FIRST, "label")
    _run(recipe, tmp_path / "two", *FIRST, "label", workers=2)
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
        _run(_recipe(tmp_path, server.url), tmp_path / "strict", *FIRST, "label")
    server.asked.clear()
    _run(_recipe(tmp_path, server.url, "label.max_failed=0.5"), tmp_path / "run", *FIRST, "label")
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
    _run(_recipe(tmp_path, server.url, "label.max_failed=0.5"), tmp_path / "run", *FIRST, "label")
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
    recipe, run = _recipe(tmp_path, server.url), tmp_path / "run"
    _run(recipe, run, *FIRST, "evaluate/human/images", "evaluate/human/vlm")
    rows = store.read_rows(run / "evaluate/human/vlm", Score)
    refused = {row.error for row in rows if row.score is None}
    assert refused == {f"vlm: {server.url} refuses the request (too many pixels); change what it names"}
    assert 0 < sum(row.score is None for row in rows) < len(rows)
    server.answer = lambda asked: error(422, "too many pixels") if "messages" in asked.body else answer(asked)
    with pytest.raises(DataError, match=r"'vlm' scored none of \d+ images; .* \(too many pixels\)"):
        _run(recipe, tmp_path / "other", *FIRST, "evaluate/human/images", "evaluate/human/vlm")


def test_kept_scores_and_images_follow_the_server_and_its_model(tmp_path: Path, server: Loopback) -> None:
    kept = ["label.reuse_scores=true", "label.reuse_images=true"]
    _run(_recipe(tmp_path, server.url, *kept), tmp_path / "one", *FIRST, "label")
    server.asked.clear()
    _run(_recipe(tmp_path, server.url, *kept), tmp_path / "two", *FIRST, "label")
    assert {asked.path for asked in server.asked} == {"/v1/models"}, "all is known"
    server.models = server.listed = Reply(body={"data": []})
    other = [*kept, "label.renderer.endpoint.model_name=n"]
    _run(_recipe(tmp_path, server.url, *other), tmp_path / "three", *FIRST, "label")
    assert sum("generations" in asked.path for asked in server.asked) > 0, "another model, other images"
    server.asked.clear()
    judge = [*kept, f"scoring.endpoints={{'{server.url}': {{model_name: n}}}}"]
    _run(_recipe(tmp_path, server.url, *judge), tmp_path / "four", *FIRST, "label")
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


# ------------------------------------------------------------------------------------------------------- atoms


def _answer_atoms(asked: Asked) -> Reply:
    """As sure as the question is long; nothing of thing 3."""
    if "messages" not in asked.body:
        return answer(asked)
    text = asked.body["messages"][0]["content"][1]["text"]
    if "Answer in one word" not in text:
        return answer(asked)
    return error(422, "too many pixels") if "thing 3?" in text else told(("Yes", -len(text) / 50))


def _with_atoms(folder: Path, url: str, *overrides: str) -> Recipe:
    rows = [
        {"prompt": prompt, "atoms": [{"question": f"Is there {prompt}?", "skill": "object"}]}
        for prompt in [*(f"a thing {k}" for k in range(20)), *(f"another {k}" for k in range(6))]
    ]
    (folder / "atoms.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    atoms = json.dumps({"maker": "file", "file": str(folder / "atoms.jsonl"), "model": url})
    return _recipe(folder, url, f"atoms={atoms}", "label.fidelity=atoms", "label.max_failed=0.5", *overrides)


STAGES = ("prompts", "atoms", "sft", "candidates", "label", "evaluate/human/images", "evaluate/human/atoms")


def test_atoms_are_answered_by_a_server(tmp_path: Path, server: Loopback) -> None:
    server.answer = _answer_atoms
    recipe, run = _with_atoms(tmp_path, server.url), tmp_path / "run"
    _run(recipe, run, *STAGES)
    scores = [row for row in store.read_rows(run / "label", Score) if row.scorer == "atoms"]
    made = {row.candidate_id: row.prompt for row in store.read_rows(run / "candidates", Candidate)}
    for row in scores:
        if made[row.candidate_id] == "a thing 3":
            assert "too many pixels" in str(row.error)
        else:
            text = f"Is there {made[row.candidate_id]}? Answer in one word."
            assert row.score == pytest.approx(math.exp(-len(text) / 50), abs=1e-6)
    answers = store.read_rows(run / "evaluate/human/atoms", AtomAnswer)
    assert answers
    assert all(row.probability is not None for row in answers)
    for stage in ("label", "evaluate/human/atoms"):
        manifest = json.loads((run / stage / "manifest.json").read_text())
        assert manifest["config"]["scoring"]["endpoints"] == {server.url: {"model_name": "m", "body": {}}}
        assert "atoms.model" not in manifest["inputs"]
    count = len(server.asked)
    _run(recipe, run, *STAGES)
    assert len(server.asked) == count, "nothing is asked again"
    other = _with_atoms(tmp_path, server.url, f"scoring.endpoints={{'{server.url}': {{model_name: n}}}}")
    with pytest.raises(StoreError, match=r"label was made with scoring\.endpoints"):
        _run(other, run, "evaluate/human/atoms")
    of_atoms = [next(each for each in flow(some) if each.name == "evaluate/human/atoms") for some in (recipe, other)]
    assert of_atoms[0].config != of_atoms[1].config


def test_questions_that_a_server_does_not_answer_are_counted(tmp_path: Path, server: Loopback) -> None:
    def picky(asked: Asked) -> Reply:
        text = str(asked.body.get("messages"))
        return error(422, "no") if "another 1? Answer" in text else _answer_atoms(asked)

    server.answer = picky
    recipe, run = _with_atoms(tmp_path, server.url), tmp_path / "run"
    _run(recipe, run, *STAGES)
    answers = store.read_rows(run / "evaluate/human/atoms", AtomAnswer)
    open_ = [row for row in answers if row.probability is None]
    assert 0 < len(open_) < len(answers)
    assert store.counts(run / "evaluate/human/atoms")["unanswered"] == len(open_)
    assert described("evaluate/…/atoms", {"rows": 9, "unanswered": 2}) == (
        "9 questions about images, 2 questions that the server did not answer"
    )
    server.answer = lambda asked: error(422, "no") if "messages" in asked.body else answer(asked)
    with pytest.raises(DataError, match=r"none of \d+ questions about images was answered; the first: .*\(no\)"):
        _run(recipe, tmp_path / "other", "prompts", "atoms", "sft", "candidates", *STAGES[-2:])


def test_a_run_whose_server_of_atoms_ended_resumes_with_the_same_files(tmp_path: Path) -> None:
    with Loopback(_answer_atoms) as server:
        _run(_with_atoms(tmp_path, server.url), tmp_path / "whole", *STAGES)
        port = server.port

    def ends_soon(asked: Asked) -> Reply:
        return Reply(dropped=True) if len(first.asked) > 60 else _answer_atoms(asked)

    recipe = _with_atoms(tmp_path, server.url)
    with Loopback(ends_soon, port=port) as first, pytest.raises(ModelError, match="cannot be reached"):
        _run(recipe, tmp_path / "run", *STAGES)
    with Loopback(_answer_atoms, port=port):
        _run(recipe, tmp_path / "run", *STAGES)
    assert stand_ins.files_of(tmp_path / "run") == stand_ins.files_of(tmp_path / "whole")


# ---------------------------------------------------------------------------------- an evaluation without an image


def _refuses(*prompts: str) -> Callable[[Asked], Reply]:
    def picky(asked: Asked) -> Reply:
        return error(400, "content policy") if asked.body.get("prompt") in prompts else answer(asked)

    return picky


def _stages_of(*methods: str) -> list[str]:
    return [f"evaluate/{method}/{name}" for method in methods for name in ("images", "clip", "consistency", "vlm")]


def test_an_evaluation_notes_what_a_server_does_not_render(tmp_path: Path, server: Loopback) -> None:
    server.answer = _refuses("another 1")
    recipe, run = _recipe(tmp_path, server.url), tmp_path / "run"
    _run(recipe, run, *FIRST, "evaluate/human/images", "evaluate/human/clip", "evaluate/human/vlm")
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
    recipe, run = _recipe(tmp_path, server.url), tmp_path / "run"
    models = _models()
    found = evaluation(recipe)
    whole = replace(found, models={name: found.models[name] for name in ("human", "sft")})
    server.answer = _refuses("another 1")
    _run(recipe, run, *FIRST, *_stages_of("human", "sft"))
    rows = evaluation_rows(whole, Run(run, recipe, models))
    places = [{(row.prompt, row.image_seed) for row in rows if row.method == method} for method in ("human", "sft")]
    assert places[0] == places[1] == {(f"another {k}", seed) for k in (0, 2, 3, 4, 5) for seed in (0, 1)}
    lost = unrendered(whole, Run(run, recipe, models))
    assert {method: len(found) for method, found in lost.items()} == {"human": 2, "sft": 0}
    assert not any(unscored(whole, Run(run, recipe, models)).values())


def test_too_many_missing_images_stop_an_evaluation_which_resumes(tmp_path: Path, server: Loopback) -> None:
    server.answer = _refuses("another 1", "another 2", "another 3")  # of two shards, so that one has two of them
    recipe, run = _recipe(tmp_path, server.url), tmp_path / "run"
    strict = r"\d of a shard's \d rewrites have no image, and evaluate\.max_failed is 0\.01; the first is that of met"
    with pytest.raises(DataError, match=strict):
        _run(recipe, run, *FIRST, "evaluate/human/images")
    generous = _recipe(tmp_path, server.url, "evaluate.max_failed=1")
    _run(generous, run, "evaluate/human/images")
    assert store.counts(run / "evaluate/human/images")["failed"] == 6
    _run(recipe, run, "evaluate/human/images")  # the share is no part of what the images depend on
    server.answer, none = _refuses("another 5"), _recipe(tmp_path, server.url, "evaluate.max_failed=0")
    with pytest.raises(DataError, match=r"evaluate\.max_failed is 0;"):
        _run(none, tmp_path / "none", *FIRST, "evaluate/human/images")


def test_where_no_image_is_left_the_report_says_why(tmp_path: Path, server: Loopback) -> None:
    recipe, run = _recipe(tmp_path, server.url, "evaluate.max_failed=1"), tmp_path / "run"
    server.answer = _refuses(*(f"another {k}" for k in range(6)))
    _run(recipe, run, *FIRST, *_stages_of("human"))
    whole = replace(evaluation(recipe), models={"human": "sft"})
    with pytest.raises(DataError, match="the image of a method could not be rendered; name another renderer"):
        evaluation_rows(whole, Run(run, recipe, _models()))
