"""A rewriter behind a URL in a run: its rewrites are candidates and a method; what is stored of it, and what is not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from semdpo import pipeline
from semdpo.data.records import Candidate, RenderedImage
from semdpo.engine import store
from semdpo.errors import ModelError, StoreError
from semdpo.recipe.schema import Recipe
from tests import stand_ins
from tests.loopback import Asked, Loopback, Reply, chat, echo, error

KEY = "sk-secret-1234567890"
pytestmark = pytest.mark.usefixtures("stand_in_trainings")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Loopback]:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with Loopback() as loopback:
        yield loopback


def _recipe(folder: Path, url: str, *overrides: str) -> Recipe:
    named = f"model: '{url}', endpoint: {{model_name: m, retries: 0}}"
    settings = [
        f"candidates.rewriter={{{named}}}",
        "candidates.top_p=0.9",
        f"evaluate.rewriters={{llm: {{{named}, temperature: 0, max_new_tokens: 60}}}}",
    ]
    return stand_ins.recipe_of(folder, *settings, *overrides)


def _run(recipe: Recipe, run: Path, *stages: str) -> None:
    for stage in stages:
        pipeline.run(recipe, run, only=stage, models=stand_ins.models())


def test_its_rewrites_are_candidates_and_a_method(tmp_path: Path, server: Loopback) -> None:
    recipe = _recipe(tmp_path, server.url)
    _run(recipe, tmp_path / "run", "prompts", "sft", "candidates", "evaluate/llm/images")
    candidates = store.read_rows(tmp_path / "run/candidates", Candidate)
    assert len(candidates) == 20 * recipe.candidates.n
    assert all(row.rewrite.startswith(f"{row.prompt}, seed") for row in candidates)
    counts = store.counts(tmp_path / "run/candidates")
    assert counts["tokens"] == sum(len(row.rewrite.split()) for row in candidates), "counted by the SFT model"
    images = store.read_rows(tmp_path / "run/evaluate/llm/images", RenderedImage)
    assert {(row.method, row.rewrite.startswith(f"{row.prompt}, seed"), row.tokens) for row in images} == {
        ("llm", True, 4)
    }
    sampled, greedy = server.asked[0].body, server.asked[-1].body
    assert (sampled["temperature"], sampled["top_p"], greedy["temperature"]) == (1, 0.9, 0)
    assert greedy["max_tokens"] == 60


def test_the_key_is_stored_nowhere_and_the_rest_is(tmp_path: Path, server: Loopback) -> None:
    _run(_recipe(tmp_path, server.url), tmp_path / "run", "prompts", "sft", "candidates", "evaluate/llm/images")
    assert {asked.headers["authorization"] for asked in server.asked} == {f"Bearer {KEY}"}
    files = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert len(files) > 10
    assert not [path for path in files if KEY.encode() in path.read_bytes()]
    made = json.loads((tmp_path / "run/candidates/manifest.json").read_text())["config"]["rewriter"]
    assert (made["model"], made["endpoint"]) == (server.url, {"model_name": "m", "body": {}})
    assert "text-to-image" in made["system"]


def test_how_the_server_is_reached_may_change_and_what_it_is_asked_may_not(tmp_path: Path, server: Loopback) -> None:
    run = tmp_path / "run"
    _run(_recipe(tmp_path, server.url), run, "prompts", "sft", "candidates")
    count = len(server.asked)
    more = "candidates.rewriter.endpoint={model_name: m, timeout: 9, retries: 9, concurrency: 2, key_env: MY_KEY}"
    _run(_recipe(tmp_path, server.url, more), run, "candidates")
    assert len(server.asked) == count, "nothing is asked again"
    for change, named in (
        ("candidates.rewriter.system=Be brief.", "rewriter.system"),
        ("candidates.rewriter.endpoint.model_name=other", "rewriter.endpoint.model_name"),
        ("candidates.rewriter.endpoint.body={top_k: 3}", "rewriter.endpoint.body"),
        ("candidates.rewriter=null", "rewriter"),
    ):
        with pytest.raises(StoreError, match=f"candidates was made with {named}"):
            _run(_recipe(tmp_path, server.url, change), run, "candidates")


def test_a_run_whose_server_ended_resumes_with_the_same_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Loopback() as server:
        _run(_recipe(tmp_path, server.url), tmp_path / "whole", "prompts", "sft", "candidates")

    def ends_soon(asked: Asked) -> Reply:
        return Reply(dropped=True) if len(first.asked) > 60 else echo(asked)

    with Loopback(ends_soon, port=server.port) as first, pytest.raises(ModelError, match="cannot be reached"):
        _run(_recipe(tmp_path, server.url), tmp_path / "run", "prompts", "sft", "candidates")
    done = sorted(path.name for path in (tmp_path / "run/candidates").glob("*.parquet"))
    assert 0 < len(done) < 5
    with Loopback(port=server.port) as again:
        _run(_recipe(tmp_path, server.url), tmp_path / "run", "candidates")
        assert len(again.asked) == (5 - len(done)) * 4 * 4
    assert stand_ins.files_of(tmp_path / "run") == stand_ins.files_of(tmp_path / "whole")


def test_answers_that_are_no_rewrites_are_counted_as_empty(tmp_path: Path) -> None:
    bad = {
        0: chat("I'm sorry, but I can't help with that."),
        1: chat('{"a": 1}'),
        2: chat(None),
        3: chat("a\n\nb\n\nc"),
    }

    def sometimes(asked: Asked) -> Reply:
        number = int(asked.prompt.rpartition(" ")[2])
        return bad[number] if number in bad else echo(asked)

    with Loopback(sometimes) as server:
        _run(_recipe(tmp_path, server.url), tmp_path / "run", "prompts", "sft", "candidates", "evaluate/llm/images")
    counts = store.counts(tmp_path / "run/candidates")
    assert (counts["empty"], counts["prompts_without"], counts["kept"]) == (16, 4, 64)
    counts = store.counts(tmp_path / "run/evaluate/llm/images")
    assert counts["empty"] == 4
    images = store.read_rows(tmp_path / "run/evaluate/llm/images", RenderedImage)
    assert {row.prompt for row in images if not row.rewrite} == {f"another {k}" for k in bad}


def test_a_refused_key_ends_the_stage_in_words(tmp_path: Path) -> None:
    with Loopback(lambda asked: error(401, "who?")) as server, pytest.raises(ModelError, match="wants a key"):
        _run(_recipe(tmp_path, server.url), tmp_path / "run", "prompts", "sft", "candidates")
    assert list((tmp_path / "run/candidates").glob("*.parquet")) == []


def test_another_folder_may_write_the_candidates(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "weights.txt").write_text("of another")
    run = tmp_path / "run"
    recipe = stand_ins.recipe_of(tmp_path)
    _run(recipe, run, "prompts", "sft", "candidates")
    own = {row.rewrite for row in store.read_rows(run / "candidates", Candidate)}
    changed = stand_ins.recipe_of(tmp_path, f"candidates.rewriter={{model: '{other}'}}")
    with pytest.raises(StoreError, match=r"candidates was made with rewriter\.model"):
        _run(changed, run, "candidates")
    _run(changed, tmp_path / "second", "prompts", "sft", "candidates")
    assert {row.rewrite for row in store.read_rows(tmp_path / "second/candidates", Candidate)} != own
    made = json.loads((tmp_path / "second/candidates/manifest.json").read_text())
    assert made["inputs"]["candidates.rewriter.model"] == other.name, "the stand-ins' fingerprint"
