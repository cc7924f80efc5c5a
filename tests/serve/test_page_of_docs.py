"""What docs/howto/serve.md shows runs against a server."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import typer.main

from semdpo.cli.app import app
from tests.serve.servers import Running

PAGE = (Path(__file__).parents[2] / "docs/howto/serve.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```text\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


def _run(server: Running, *command: str) -> str:
    asked = [each.replace("http://127.0.0.1:7331", server.url) for each in command]
    environment = {**os.environ, "NO_PROXY": "*"}
    done = subprocess.run(asked, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_curl(server: Running) -> None:
    commands = [block for block in BLOCKS if block.startswith("curl")]
    assert commands
    for command in commands:
        assert len(json.loads(_run(server, "sh", "-c", command))["results"]) == 2


def test_python(server: Running) -> None:
    scripts = [block for block in BLOCKS if "import" in block]
    assert scripts
    for script in scripts:
        assert _run(server, sys.executable, "-W", "error", "-c", script).count("0.25") == 2


def test_options_and_addresses_are_those_that_there_are(server: Running) -> None:
    known = {name for each in typer.main.get_command(app).commands["serve"].params for name in each.opts}  # type: ignore[attr-defined]
    assert set(re.findall(r"--[a-z][a-z-]+", PAGE)) <= known
    shown = set(re.findall(r"^\| `(?:GET|POST) (/\S*)` \|", PAGE, re.MULTILINE))
    assert shown == {*server.ask("GET", "/openapi.json").json()["paths"], "/openapi.json", "/"}


def test_fields_are_those_that_there_are(server: Running) -> None:
    table = PAGE.partition("| field |")[2].partition("\n\n")[0]
    schema = server.ask("GET", "/openapi.json").json()["components"]["schemas"]["OptimizeBody"]
    assert set(re.findall(r"^\| `(\w+)`", table, re.MULTILINE)) == set(schema["properties"])
