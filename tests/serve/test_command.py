"""``semdpo serve`` as a process: its start, its end, its log, and what it says when it cannot start."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from semdpo import cli
from semdpo.cli.serve import named, token_of
from semdpo.errors import ConfigError, StoreError
from tests import tiny_models
from tests.serve.servers import PATIENCE

ROOT = Path(__file__).parents[2]
# The command, with a stand-in (the first argument) for PromptOptimizer.
COMMAND = """
import importlib, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
import semdpo.prompt_optimizer
module, _, name = sys.argv[1].partition(":")
semdpo.prompt_optimizer.PromptOptimizer = getattr(importlib.import_module(module), name)
from semdpo import cli
sys.argv = ["semdpo", "serve", *sys.argv[2:]]
cli.main()
"""
QUICK, REAL = "tests.serve.test_command:Quick", "semdpo.prompt_optimizer:PromptOptimizer"


class Quick:
    """Loads at once."""

    @classmethod
    def from_pretrained(cls, path: str, encoder: str | None = None, *, max_drift: float | None = None):  # type: ignore[no-untyped-def]
        from semdpo.errors import ModelError
        from tests.serve.servers import Optimizer1

        if path == "missing":
            raise ModelError(f"model '{path}' is neither a folder nor a known name")
        return Optimizer1(path)


@contextmanager
def _started(*arguments: str, cwd: Path, optimizer: str = QUICK, **environment: str) -> Iterator[subprocess.Popen[str]]:
    path = f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, optimizer, *arguments],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1", **environment},
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def _url(process: subprocess.Popen[str]) -> str:
    assert process.stderr is not None
    said = ""
    for line in process.stderr:
        said += line
        if found := re.search(r" on (http://\S+) ", line):
            return found[1]
    raise AssertionError(said)


def _ask(url: str, prompt: str, **headers: str) -> httpx.Response:
    return httpx.post(
        f"{url}/v1/optimize", json={"prompt": prompt}, headers=headers, timeout=PATIENCE, verify=False, trust_env=False
    )


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_without_an_error(number: int, tmp_path: Path) -> None:
    with _started("--model", "m", "--port", "0", cwd=tmp_path) as process:
        url = _url(process)
        assert _ask(url, "a cat").json()["model"] == "m"
        with httpx.Client(base_url=url) as client:  # a connection that stays open
            client.get("/healthz")
            process.send_signal(number)
            _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, said
    assert said.endswith("stopped\n")
    assert "Traceback" not in said


@pytest.mark.slow
def test_the_log_has_no_prompts_unless_asked(tmp_path: Path) -> None:
    secret = "a secret cat"
    for option in ("", "--log-prompts"):
        with _started("--model", "m", "--port", "0", *filter(None, [option]), cwd=tmp_path) as process:
            url = _url(process)
            for prompt in (secret, f"{secret} defect", f"{secret} refuse", f"{secret} broken", secret * 1000):
                _ask(url, prompt)
            httpx.get(f"{url}/v1/optimize?prompt={secret}")
            httpx.get(f"{url}/{secret}")
            httpx.post(f"{url}/v1/optimize", json={"prompt": [secret], secret: 1})
            process.terminate()
            out, said = process.communicate(timeout=PATIENCE)
        assert ("secret" in out + said) == bool(option), said
        assert "POST /v1/optimize 200" in said
        assert "POST /v1/optimize 500" in said
        assert "RuntimeError" in said
        assert "optimize_all" in said, "where the defect is"


@pytest.mark.slow
def test_it_serves_a_real_rewriter(tmp_path: Path) -> None:
    rewriter, encoder = tiny_models.gpt2(tmp_path / "mine"), tiny_models.clip(tmp_path / "clip")
    arguments = ("--model", f"cat={rewriter}", "--encoder", str(encoder), "--port", "0", "--max-drift", "2")
    token = "a-long-random-text"
    with _started(*arguments, cwd=tmp_path, optimizer=REAL, SEMDPO_TOKEN=token) as process:
        url = _url(process)
        assert _ask(url, "a cat").status_code == 401
        answer = _ask(url, "a (red:1.2) ball", Authorization=f"Bearer {token}")
        assert answer.status_code == 200, answer.text
        found = answer.json()["results"][0]
        assert (found["prompt"], found["spans"], found["model"]) == ("a (red:1.2) ball", ["(red:1.2)"], "cat")
        assert found["drift"] == pytest.approx(float(answer.headers["x-semdpo-drift"]), abs=1e-6)


@pytest.mark.slow
def test_it_renders(tmp_path: Path) -> None:
    with _started("--model", "m", "--port", "0", "--renderer", "tiny:sd", cwd=tmp_path) as process:
        url = _url(process)
        body = {"prompt": "a red ball in the desert", "seed": 1}
        images = [httpx.post(f"{url}/v1/render", json=body, timeout=PATIENCE) for _ in range(2)]
        assert [each.headers["content-type"] for each in images] == ["image/png"] * 2
        assert images[0].content == images[1].content
        assert httpx.get(f"{url}/healthz").json() == {"status": "ok", "renderer": "tiny:sd"}


def test_what_keeps_it_from_starting_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("semdpo.prompt_optimizer.PromptOptimizer", Quick)
    monkeypatch.delenv("SEMDPO_TOKEN", raising=False)

    def refused(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["semdpo", "serve", "--model", "m", "--port", "0", *arguments])
        with pytest.raises(SystemExit) as ending:
            cli.main()
        assert ending.value.code == 2
        lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("loading ")]
        assert len(lines) == 1, lines
        return lines[0]

    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert "the port is in use" in refused("--port", str(taken.getsockname()[1]))
    assert "neither a folder" in refused("--model", "missing")
    assert "set a token" in refused("--host", "0.0.0.0")
    assert "MINE, which is not set" in refused("--token-env", "MINE")
    monkeypatch.setenv("SEMDPO_TOKEN", "x" * 20)
    assert "there is no host" in refused("--host", "no.such.host.invalid")
    assert "does not have the address" in refused("--host", "203.0.113.7")


def test_models_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert named(["runs/mine", "b=runs/other/"]) == {"mine": "runs/mine", "b": "runs/other/"}
    assert named(["tiny:gpt2", "url=http://localhost:8000/v1?a=b"]) == {
        "tiny:gpt2": "tiny:gpt2", "url": "http://localhost:8000/v1?a=b",
    }  # fmt: skip
    (tmp_path / "lr=4").mkdir()
    assert named(["lr=4"]) == {"lr=4": "lr=4"}, "a folder whose name has the sign"
    with pytest.raises(ConfigError, match="two models the name 'mine'"):
        named(["a/mine", "b/mine"])
    with pytest.raises(StoreError, match="semdpo demo"):
        named([])
    for name in ("sem_dpo", "dpo"):
        (tmp_path / "runs/tiny/train" / name).mkdir(parents=True)
        assert list(named([])) == ["sem_dpo", "dpo"][: 1 + (name == "dpo")]


def test_a_token_comes_from_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SEMDPO_TOKEN", raising=False)
    assert token_of(None) is None
    with pytest.raises(ConfigError, match="MINE, which is not set"):
        token_of("MINE")
    monkeypatch.setenv("MINE", "abc\n")
    assert token_of("MINE") == "abc"
    for wrong in ("a b", "é"):
        monkeypatch.setenv("SEMDPO_TOKEN", wrong)
        with pytest.raises(ConfigError, match="the token in SEMDPO_TOKEN"):
            token_of(None)
