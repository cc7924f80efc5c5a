"""The same contract for every program: ComfyUI's node, the script of AUTOMATIC1111 and Forge, InvokeAI's node.

``base_url`` is the address of a stub and then of `semdpo serve` itself, with real models.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.integrations import stub_server
from tests.integrations.host_programs import ROOT, Processing, a1111_script, comfy_nodes, invokeai_node
from tests.integrations.stub_server import ADDED, DRIFT, REASON, StubServer, another_server, chat

PROMPT = "a red ball in the desert"
DEFAULTS = {"keep": "", "length": "auto", "seed": 0, "max_drift": -1.0, "model": ""}
NOWHERE = "http://127.0.0.1:1"


class Outcome(NamedTuple):
    rewrite: str
    original: str | None
    drift: float | None
    reason: str


def comfyui(prompt: str, url: str, folder: Path, **options: object) -> Outcome:
    node = comfy_nodes(shutil.copytree(ROOT / "comfyui", folder / "comfyui.node"))["SemdpoRewrite"]
    out = asyncio.run(node.execute(prompt=prompt, url=url, **DEFAULTS | options))
    return Outcome(*out.args)


def a1111(prompt: str, url: str, folder: Path, **options: object) -> Outcome:
    script = a1111_script(Path(shutil.copy(ROOT / "a1111/semdpo_rewrite.py", folder)))
    p = Processing(prompt)
    values = DEFAULTS | {"url": url, "token_env": "SEMDPO_TOKEN"} | options
    names = ("url", "keep", "length", "max_drift", "seed", "model", "token_env")
    script.before_process(p, True, *[values[name] for name in names])
    assert p.negative_prompt == "blurry"
    written = p.infotext(0)
    drift = written.get("semdpo drift", 0.0 if p.comments else -1)
    reason = next((text.removeprefix("semdpo: ") for text in p.comments), "")
    return Outcome(p.prompt, written.get("semdpo original", prompt if reason else None), float(drift), reason)


def invokeai(prompt: str, url: str, folder: Path, **options: object) -> Outcome:
    node = invokeai_node(shutil.copytree(ROOT / "invokeai/semdpo_rewrite", folder / "semdpo_rewrite"))
    out = node(prompt=prompt, url=url, **DEFAULTS | options).invoke(None)
    return Outcome(out.rewrite, out.original, out.drift, out.reason)


PROGRAMS: list[Callable[..., Outcome]] = [comfyui, a1111, invokeai]


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_prompt_is_rewritten(program: Callable[..., Outcome], base_url: str, tmp_path: Path) -> None:
    found = program(PROMPT, base_url, tmp_path, keep="red ball, desert", seed=3)
    assert found.original == PROMPT
    assert found.drift is not None
    assert 0 <= found.drift <= 2
    if found.reason:
        assert (found.rewrite, found.drift) == (PROMPT, 0.0)
    else:
        assert "red ball" in found.rewrite
        assert "desert" in found.rewrite


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_limit_of_the_drift_holds(program: Callable[..., Outcome], base_url: str, tmp_path: Path) -> None:
    found = program(PROMPT, base_url, tmp_path, max_drift=0.0)
    assert found.drift == 0.0
    assert found.rewrite == PROMPT or not found.reason


@pytest.mark.parametrize("program", PROGRAMS)
def test_what_is_asked(program: Callable[..., Outcome], server: StubServer, tmp_path: Path) -> None:
    found = program(PROMPT, server.url, tmp_path, keep="red ball, desert", length="short", seed=3, model=" mine ")
    assert found == Outcome(PROMPT + ADDED, PROMPT, DRIFT, "")
    wish = {"keep": ["red ball", "desert"], "length": "short", "max_drift": None, "seed": 3, "model": "mine"}
    assert [asked.body for asked in server.asked] == [wish | {"prompt": PROMPT}]
    (tmp_path / "again").mkdir()
    program(PROMPT, server.url, tmp_path / "again", max_drift=0.5)
    assert server.asked[1].body["max_drift"] == 0.5


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_guards_reason_is_shown(program: Callable[..., Outcome], server: StubServer, tmp_path: Path) -> None:
    assert program(PROMPT, server.url, tmp_path, max_drift=0.1) == Outcome(PROMPT, PROMPT, 0.0, REASON)


@pytest.mark.parametrize("program", PROGRAMS)
def test_another_servers_drift_is_unknown(program: Callable[..., Outcome], server: StubServer, tmp_path: Path) -> None:
    server.answer = another_server(f"<think>a ball</think>Rewritten prompt: {PROMPT}, dawn")
    assert program(PROMPT, server.url, tmp_path) == Outcome(f"{PROMPT}, dawn", PROMPT, -1.0, "")


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize(
    "answer",
    [
        chat("I'm sorry, I can't help with that."),
        stub_server.failure(401, "wrong key"),
        stub_server.Answer(b"<html></html>"),
        stub_server.Answer(b"", 302, {"Location": "http://127.0.0.1:1/"}),
    ],
    ids=["refusal", "key", "page", "redirect"],
)
def test_after_a_fault_the_image_is_made_from_the_prompt(
    program: Callable[..., Outcome],
    answer: stub_server.Answer,
    server: StubServer,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    server.answers(answer)
    found = program(PROMPT, server.url, tmp_path)
    assert found == Outcome(PROMPT, PROMPT, 0.0, found.reason)
    assert found.reason.startswith("the prompt is kept: ")
    assert [record.getMessage() for record in caplog.records] == [f"semdpo: {found.reason}"]


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("url", [NOWHERE, "file:///etc/passwd", "", "no url"])
def test_a_server_that_is_not_there(program: Callable[..., Outcome], url: str, tmp_path: Path) -> None:
    found = program(PROMPT, url, tmp_path)
    assert found == Outcome(PROMPT, PROMPT, 0.0, found.reason)
    assert found.reason.startswith("the prompt is kept: ")


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_workflow_cannot_read_other_secrets(
    program: Callable[..., Outcome], server: StubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    monkeypatch.setenv("SEMDPO_TOKEN", "key")
    assert "begins with SEMDPO_" in program(PROMPT, server.url, tmp_path, token_env="OPENAI_API_KEY").reason
    assert server.asked == []
    (tmp_path / "again").mkdir()
    assert program(PROMPT, server.url, tmp_path / "again", token_env="SEMDPO_TOKEN").reason == ""
    assert server.asked[0].headers["Authorization"] == "Bearer key"
