"""ComfyUI's node: its form, its cache, the example workflow and the registry's file."""

from __future__ import annotations

import asyncio
import json
import re
import threading
import tomllib
from typing import Any

import pytest

from semdpo import __version__, client
from tests.integrations import stub_server
from tests.integrations.host_programs import ROOT, comfy_nodes
from tests.integrations.stub_server import ADDED, Answer, StubServer, another_server, failure

FOLDER = ROOT / "comfyui"
PROMPT = "a red ball"
OPTIONS = {"keep": "", "length": "auto", "seed": 0, "max_drift": -1.0, "model": ""}
WORKFLOWS = sorted((FOLDER / "example_workflows").glob("*.json"))


@pytest.fixture
def node() -> Any:
    return comfy_nodes(FOLDER)["SemdpoRewrite"]


def test_inputs_and_outputs(node: Any) -> None:
    schema = node.GET_SCHEMA()
    assert [(each.id, each.io_type) for each in schema.inputs] == [
        ("prompt", "STRING"),
        ("keep", "STRING"),
        ("length", "COMBO"),
        ("seed", "INT"),
        ("max_drift", "FLOAT"),
        ("url", "STRING"),
        ("model", "STRING"),
        ("token_env", "STRING"),
        ("instruction", "STRING"),
        ("timeout", "INT"),
    ]
    assert [(each.id, each.display_name, each.io_type) for each in schema.outputs] == [
        ("rewrite", "rewrite", "STRING"),
        ("original", "original", "STRING"),
        ("drift", "drift", "FLOAT"),
        ("reason", "reason", "STRING"),
    ]
    assert all(each.tooltip for each in [*schema.inputs, *schema.outputs])
    assert all(each.as_dict()["default"] is not None for each in schema.inputs)


def test_fields_that_few_need_are_hidden_and_may_be_left_out(node: Any, server: StubServer) -> None:
    fields = {each.id: each.as_dict() for each in node.GET_SCHEMA().inputs}
    advanced = {name for name, field in fields.items() if field.get("advanced")}
    assert advanced == {"token_env", "instruction", "timeout"}
    assert advanced == {name for name, field in fields.items() if field["optional"]}
    assert asyncio.run(node.execute(prompt=PROMPT, url=server.url, **OPTIONS)).args[0] == PROMPT + ADDED


def test_no_field_takes_the_key_itself(node: Any) -> None:
    """Workflows are shared, and lie inside images."""
    names = {each.id for each in node.GET_SCHEMA().inputs}
    assert not {name for name in names if re.search("token|key|secret|password", name)} - {"token_env"}


def test_the_text_on_the_node(node: Any, server: StubServer) -> None:
    def shown(**options: object) -> str:
        out = asyncio.run(node.execute(prompt=PROMPT, url=server.url, **OPTIONS | options))
        return str(out.ui.as_dict()["text"][0])

    assert shown() == f"{PROMPT}{ADDED}\n\ndrift: 0.125"
    assert shown(max_drift=0.0) == f"{PROMPT}\n\n{stub_server.REASON}"
    server.answer = another_server("a red ball, dawn")
    assert shown() == "a red ball, dawn\n\ndrift: not measured"


def test_fields_for_other_servers_reach_them(node: Any, server: StubServer) -> None:
    server.answer = another_server("a red ball, dawn")
    asyncio.run(node.execute(prompt=PROMPT, url=server.url, instruction="Paint.", **OPTIONS))
    assert server.asked[1].body["messages"][0] == {"role": "system", "content": "Paint."}


def test_comfyui_works_on_while_the_server_thinks(node: Any, server: StubServer) -> None:
    """The server answers only after something else has run in the event loop."""
    something_ran = threading.Event()

    def answer(asked: stub_server.Asked) -> Answer:
        assert something_ran.wait(30)
        return stub_server.semdpo(asked)

    async def something_else() -> None:
        while not server.asked:
            await asyncio.sleep(0.01)
        something_ran.set()

    async def both() -> Any:
        out, _ = await asyncio.gather(node.execute(prompt=PROMPT, url=server.url, **OPTIONS), something_else())
        return out

    server.answer = answer
    assert asyncio.run(both()).args[3] == ""


def test_the_cache_may_be_used_except_after_a_fault(node: Any, server: StubServer) -> None:
    """ComfyUI asks for the fingerprint before it runs a node; what comes from other nodes is None then."""

    def run() -> None:
        asyncio.run(node.execute(prompt=PROMPT, url=server.url, **OPTIONS))

    def fingerprint() -> object:
        return node.fingerprint_inputs(prompt=None, url=server.url, seed=0)

    first = fingerprint()
    run()
    assert fingerprint() == first
    server.answers(failure(401, "wrong key"))
    run()
    after_fault = fingerprint()
    assert after_fault != first
    server.answer = stub_server.semdpo
    run()
    assert fingerprint() == after_fault
    assert len({json.dumps(each) for each in (first, after_fault)}) == 2


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_the_example_workflow_fits_the_node(path: Any, node: Any) -> None:
    workflow = json.loads(path.read_text())
    schema = node.GET_SCHEMA()
    ours = [each for each in workflow["nodes"] if each["type"] == schema.node_id]
    assert ours
    for each in ours:
        values = iter(each["widgets_values"])
        for field in schema.inputs:
            settings, value = field.as_dict(), next(values)
            assert isinstance(value, {"INT": int, "FLOAT": int | float}.get(field.io_type, str)), field.id
            if "options" in settings:
                assert value in settings["options"]
            if "min" in settings:
                assert settings["min"] <= value <= settings["max"]
            if "control_after_generate" in settings:
                assert next(values) in ("fixed", "increment", "decrement", "randomize")
        assert list(values) == []
        assert [(slot["name"], slot["type"]) for slot in each["outputs"]] == [
            (field.display_name, field.io_type) for field in schema.outputs
        ]
        assert each["inputs"] == []
        assert each["widgets_values"][6] == client.DEFAULT_URL


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_the_example_workflow_is_whole(path: Any) -> None:
    workflow = json.loads(path.read_text())
    nodes = {each["id"]: each for each in workflow["nodes"]}
    assert len(nodes) == len(workflow["nodes"])
    for link, source, output, target, slot, kind in workflow["links"]:
        assert link in nodes[source]["outputs"][output]["links"]
        assert nodes[target]["inputs"][slot]["link"] == link
        assert kind in ("*", nodes[source]["outputs"][output]["type"])
    linked = {link for each in nodes.values() for out in each["outputs"] for link in out["links"]}
    assert linked == {link for link, *_ in workflow["links"]}


def test_there_is_an_example() -> None:
    assert WORKFLOWS


def test_the_registrys_file(node: Any) -> None:
    read = tomllib.loads((FOLDER / "pyproject.toml").read_text())
    project, comfy = read["project"], read["tool"]["comfy"]
    assert project["dependencies"] == []
    assert project["version"] == __version__
    assert re.fullmatch(r"[a-z](?:[-_.]?[a-z0-9])*", project["name"])
    assert "comfyui" not in project["name"]
    assert project["license"] == {"text": "Apache-2.0"}
    assert comfy["PublisherId"]
    assert comfy["DisplayName"]
    assert project["requires-python"] == ">=3.10"
    assert not list(FOLDER.glob("requirements*")), "nothing is installed"
    assert not list(FOLDER.glob("install*")), "nothing is installed"


def test_the_script_in_the_browser_shows_text_and_loads_nothing() -> None:
    text = (FOLDER / "web/semdpo.js").read_text()
    assert "innerHTML" not in text
    assert re.findall(r'from "(.+)"', text) == ["../../scripts/app.js", "../../scripts/widgets.js"]
    assert "http" not in text
    assert '"SemdpoRewrite"' in text
