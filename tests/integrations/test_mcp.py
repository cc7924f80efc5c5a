"""`semdpo mcp`, asked by the official client over stdin and stdout."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client

from tests.integrations.stub_server import ADDED, DRIFT, REASON, StubServer, failure

pytestmark = pytest.mark.slow  # each test starts Python
PROMPT = "a red ball in the desert"


def ask(*calls: Mapping[str, Any], options: Sequence[str] = ()) -> tuple[list[Any], list[Any]]:
    """The tools of `semdpo mcp`, and the results of calls."""
    command = [*("-m", "semdpo", "mcp"), *options]
    parameters = StdioServerParameters(command=sys.executable, args=command, env=dict(os.environ))

    async def session() -> tuple[list[Any], list[Any]]:
        async with stdio_client(parameters) as streams, ClientSession(*streams) as client:
            await client.initialize()
            tools = (await client.list_tools()).tools
            return tools, [await client.call_tool("optimize_prompt", dict(call)) for call in calls]

    return asyncio.run(session())


def test_the_tool_rewrites_prompts(base_url: str) -> None:
    tools, (result,) = ask({"prompt": PROMPT, "keep": ["red ball"]}, options=["--url", base_url])
    assert [tool.name for tool in tools] == ["optimize_prompt"]
    fields = tools[0].input_schema["properties"]
    assert fields.keys() == {"prompt", "keep", "length", "max_drift", "seed"}
    assert all(field["description"] for field in fields.values())
    assert tools[0].input_schema["required"] == ["prompt"]
    assert not result.is_error
    answer = result.structured_content
    assert json.loads(result.content[0].text) == answer
    assert answer["original"] == PROMPT
    assert "red ball" in answer["rewrite"]
    assert 0 <= answer["drift"] <= 2


def test_what_is_asked_and_what_comes_back(server: StubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "secret")
    wish = {"prompt": PROMPT, "keep": ["red"], "length": 30, "max_drift": 0.5, "seed": 4}
    options = ["--url", server.url, "--model", "mine", "--token-env", "MY_KEY"]
    _, (rewritten, kept, wrong) = ask(
        wish, {"prompt": PROMPT, "max_drift": 0}, {"prompt": PROMPT, "max_drift": 3}, options=options
    )
    assert server.asked[0].body == wish | {"model": "mine"}
    assert server.asked[0].headers["Authorization"] == "Bearer secret"
    expected = {"rewrite": PROMPT + ADDED, "original": PROMPT, "drift": DRIFT, "reason": ""}
    assert rewritten.structured_content == expected
    assert kept.structured_content == {"rewrite": PROMPT, "original": PROMPT, "drift": 0.0, "reason": REASON}
    assert wrong.is_error
    assert len(server.asked) == 2


def test_a_wrong_url_is_refused_at_once() -> None:
    command = [sys.executable, *("-m", "semdpo", "mcp"), "--url", "file:///etc/passwd"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, input="")
    assert done.returncode == 2
    assert done.stderr.startswith("semdpo: --url: the URL of 'file:///etc/passwd' is not one of a server")
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""


def test_a_fault_is_told_in_one_sentence(server: StubServer) -> None:
    server.answers(failure(401, "wrong key"))
    _, (result,) = ask({"prompt": PROMPT}, options=["--url", server.url])
    assert result.is_error
    assert "answers 401: put the right key" in result.content[0].text
    assert len(result.content[0].text.splitlines()) == 1
