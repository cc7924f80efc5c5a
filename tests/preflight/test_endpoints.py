"""What is said before a run about models behind a URL: whether the server answers; nothing is downloaded."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from semdpo.preflight import downloads, endpoints, libraries, probe
from semdpo.preflight.resources import Finding, resources
from semdpo.recipe.base import Template
from semdpo.recipe.load import load_recipe
from semdpo.recipe.schema import Recipe
from semdpo.stages.flow import flow
from tests.loopback import Loopback, error


@pytest.fixture(autouse=True)
def _no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def _recipe(url: str = "http://localhost:1/v1", *overrides: str) -> Recipe:
    named = f"model: '{url}', endpoint: {{model_name: m}}"
    return load_recipe("tiny", [f"evaluate.rewriters={{llm: {{{named}}}, bold: {{model: 'tiny:gpt2'}}}}", *overrides])


def test_the_doctor_says_whether_the_server_answers() -> None:
    with Loopback() as server:
        both = f"candidates.rewriter={{model: '{server.url}', endpoint: {{model_name: m}}}}"
        assert endpoints.servers(_recipe(server.url, both)) == [
            Finding("ok", server.url, f"{key}: answers, and offers 'm'")
            for key in ("candidates.rewriter", "evaluate.rewriters.llm")
        ]
    with Loopback(models=("a", "b")) as server:
        assert endpoints.servers(_recipe(server.url)) == [
            Finding(
                "warning",
                server.url,
                "evaluate.rewriters.llm: answers, and lists no 'm'; it offers a, b",
                "set evaluate.rewriters.llm.endpoint.model_name, unless the server knows that name",
            )
        ]
    with Loopback(models=error(401, "who?")) as server:
        (found,) = endpoints.servers(_recipe(server.url))
        assert (found.level, found.found) == (
            "error",
            f"evaluate.rewriters.llm: {server.url} wants a key (who?); put it into the environment variable "
            "OPENAI_API_KEY",
        )
    (found,) = endpoints.servers(_recipe(server.url))  # which has ended
    assert found.level == "error"
    assert "cannot be reached" in found.found
    assert endpoints.servers(load_recipe("tiny")) == []


def test_a_url_is_not_downloaded_measured_or_loaded(tmp_path: Path) -> None:
    recipe = _recipe(
        "http://localhost:1/v1", "candidates.rewriter={model: 'http://localhost:1/v1', endpoint: {model_name: m}}"
    )
    assert downloads.missing_models(recipe) == {}
    assert [finding.level for finding in resources(recipe, tmp_path)] == ["ok", "ok"]
    jobs = [job.what for job in probe.rewritings(recipe)]
    assert jobs == ["rewrite/evaluation", "rewrite/also sampled", "rewrite/other bold"]


def test_another_folder_that_writes_the_candidates_is_counted() -> None:
    other = "candidates.rewriter={model: 'tiny:gpt2', template: '{prompt} ->'}"
    first = next(probe.rewritings(load_recipe("tiny", [other])))
    assert (first.what, first.model, first.template) == ("rewrite/candidates", "tiny:gpt2", Template("{prompt} ->"))
    assert not first.trained, "its rewrites need not be as long as the examples"
    keys = {key for stage in flow(load_recipe("tiny", [other])) for key in stage.outside}
    assert "candidates.rewriter.model" in keys


def test_only_the_stages_that_ask_a_server_need_its_library(tmp_path: Path) -> None:
    stages = {stage.name: stage for stage in flow(_recipe())}

    def needed(recipe: Recipe, *names: str) -> dict[str, str]:
        return libraries.wanted(recipe, tmp_path, [stages[name] for name in names], report=False)

    assert needed(_recipe(), "evaluate/llm/images")["endpoint"] == "a rewriter behind a URL"
    assert "endpoint" not in needed(_recipe(), "candidates", "evaluate/bold/images", "evaluate/llm/clip")
    server = "candidates.rewriter={model: 'http://localhost:1/v1', endpoint: {model_name: m}}"
    assert needed(_recipe("http://localhost:1/v1", server), "candidates") == {"endpoint": "a rewriter behind a URL"}

    more = _recipe("http://localhost:1/v1", server, "rounds.count=2", "benchmarks.drawbench.file=DrawBench.csv")
    stages |= {stage.name: stage for stage in flow(more)}
    assert needed(more, "rounds/2/dpo/candidates") == {}, "its own rewriter writes there"
    assert "endpoint" in needed(more, "benchmarks/drawbench/evaluate/llm/images")
    assert "endpoint" not in needed(more, "benchmarks/drawbench/evaluate/dpo/images")


def test_without_the_library_no_server_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    assert endpoints.servers(_recipe()) == []


def _drawing(url: str, *overrides: str) -> Recipe:
    asked = f"{{model: '{url}', endpoint: {{model_name: m}}}}"
    return load_recipe(
        "tiny",
        [
            f"label.renderer={asked}",
            f"evaluate.renderer={asked}",
            f"label.scorer={url}",
            f"evaluate.metrics={{clip: 'tiny:clip', v.l.m: '{url}'}}",
            "report.fidelity=[clip, v.l.m]",
            "report.preference=[]",
            "atoms=null",
            "report.study=null",
            "sweep=null",
            f"scoring.endpoints={{'{url}': {{model_name: vlm}}}}",
            *overrides,
        ],
    )


def test_servers_of_images_and_scores_are_asked_too() -> None:
    with Loopback(models=("m", "vlm")) as server:
        assert [(found.level, found.found) for found in endpoints.servers(_drawing(server.url))] == [
            ("ok", "label.renderer: answers, and offers 'm'"),
            ("ok", "evaluate.renderer: answers, and offers 'm'"),
            ("ok", "label.scorer: answers, and offers 'vlm'"),
            ("ok", "evaluate.metrics.v.l.m: answers, and offers 'vlm'"),
        ]
    with Loopback(models=("m", "n")) as server:
        scorer = endpoints.servers(_drawing(server.url))[2]
        assert scorer.cure == f"set scoring.endpoints.{server.url}.model_name, unless the server knows that name"
    with Loopback(models=error(404)) as server:
        levels = [found.level for found in endpoints.servers(_drawing(server.url))]
        assert levels == ["warning", "warning", "error", "error"], "servers of images need not list their models"
    down = endpoints.servers(_drawing(server.url))
    assert {found.level for found in down} == {"error"}
    assert "cannot be reached" in down[0].found


def test_their_urls_are_no_missing_models(tmp_path: Path) -> None:
    recipe = _drawing("http://localhost:1/v1")
    assert downloads.missing_models(recipe) == {}
    assert [finding.level for finding in resources(recipe, tmp_path)] == ["ok", "ok"]
    stages = {stage.name: stage for stage in flow(recipe)}
    assert not [name for stage in stages.values() for name in stage.outside.values() if name.startswith("http")]

    def needed(name: str) -> dict[str, str]:
        return libraries.wanted(recipe, tmp_path, [stages[name]], report=False)

    assert needed("label") == {
        "render": "rendering and scoring images",
        "endpoint": "label.renderer, which is behind a URL,",
    }
    assert needed("evaluate/sft/images")["endpoint"] == "evaluate.renderer, which is behind a URL,"
    assert needed("evaluate/sft/v.l.m")["endpoint"] == "evaluate.metrics.v.l.m, which is behind a URL,"
    assert "endpoint" not in needed("evaluate/sft/clip")
    assert "endpoint" not in needed("candidates")


def test_a_server_that_answers_atoms_is_asked_and_not_measured(tmp_path: Path) -> None:
    with Loopback(models=("m", "vlm")) as server:
        atoms = f"atoms={{maker: rules, model: '{server.url}'}}"
        recipe = _drawing(server.url, atoms, "label.fidelity=atoms")
        assert ("ok", "atoms.model: answers, and offers 'vlm'") in [
            (found.level, found.found) for found in endpoints.servers(recipe)
        ]
    assert downloads.missing_models(recipe) == {}
    assert [finding.level for finding in resources(recipe, tmp_path)] == ["ok", "ok"]
    stages = {stage.name: stage for stage in flow(recipe)}

    def needed(name: str) -> dict[str, str]:
        return libraries.wanted(recipe, tmp_path, [stages[name]], report=False)

    assert needed("evaluate/sft/atoms")["endpoint"] == "atoms.model, which is behind a URL,"
    assert "endpoint" not in needed("atoms")
    named = f"scoring.endpoints={{'{server.url}': {{model_name: v}}}}"
    plain = load_recipe("tiny", [atoms, "label.fidelity=atoms", named])
    for name, asks in (("label", True), ("pairs", False)):
        some = [stage for stage in flow(plain) if stage.name == name]
        assert ("endpoint" in libraries.wanted(plain, tmp_path, some, report=False)) is asks
