"""Ctrl-C and SIGTERM: the exit code, and "resumes from here" only where that is true. Real processes, real signals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

# Stops in the middle of a command, where a signal would find it. A shell's background job ignores SIGINT.
PROBE = """
import importlib, signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)
from semdpo import cli
module, name = sys.argv[1].rsplit(".", 1)
def slow(*_, **__):
    print("working", flush=True)
    time.sleep(60)
setattr(importlib.import_module(module), name, slow)
sys.argv = ["semdpo", *sys.argv[2:]]
cli.main()
"""


def _start(*command: str, cwd: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=cwd)


def _stopped(victim: subprocess.Popen[str], number: int) -> tuple[int, str]:
    try:
        assert victim.stdout is not None
        assert victim.stdout.readline() == "working\n", victim.stderr and victim.stderr.read()
        os.kill(victim.pid, number)
        _, said = victim.communicate(timeout=60)
    finally:
        victim.kill()
    assert "Traceback" not in said
    return victim.returncode, said


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    row = {"prompt": "a red ball", "chosen": "a red ball at night", "rejected": "a ball"}
    (tmp_path / "pairs.jsonl").write_text(json.dumps(row) + "\n")
    return tmp_path / "pairs.jsonl"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("place", "arguments", "said"),
    [
        ("semdpo.recipe.load.load_recipe", ["run", "tiny"], "stopped; the same command resumes from here\n"),
        ("semdpo.recipe.load.load_recipe", ["sweep", "tiny"], "stopped; the same command resumes from here\n"),
        (
            "semdpo.recipe.load.load_recipe",
            ["run", "tiny", "--fresh"],
            "stopped; the same command without --fresh resumes",
        ),
        ("semdpo.recipe.load.load_recipe", ["run", "tiny", "--only", "report"], "stopped\n"),
        ("semdpo.cli.train.train_file", ["train", "p", "--model", "m", "-o", "o"], "no checkpoint was reached"),
        ("semdpo.cli.weigh.weigh_file", ["weigh", "p", "-o", "o.csv"], "stopped\n"),
        ("semdpo.cli.audit.audit_file", ["audit", "p"], "stopped\n"),
        ("semdpo.cli.doctor.diagnose", ["doctor"], "stopped\n"),
        ("semdpo.cli.optimize.run", ["optimize", "a cat", "--model", "m"], "stopped\n"),
    ],
)
def test_only_what_resumes_says_so(place: str, arguments: list[str], said: str, tmp_path: Path) -> None:
    # One signal each; that both do the same is the next test's business.
    number = signal.SIGTERM if len(arguments) % 2 else signal.SIGINT
    code, told = _stopped(_start(sys.executable, "-c", PROBE, place, *arguments, cwd=tmp_path), number)
    assert code == (143 if number == signal.SIGTERM else 130)
    assert said in told
    assert ("resumes" in told) == ("resumes" in said)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_both_signals_stop_a_run(number: int, tmp_path: Path) -> None:
    victim = _start(sys.executable, "-c", PROBE, "semdpo.recipe.load.load_recipe", "demo", cwd=tmp_path)
    assert _stopped(victim, number)[0] == 128 + number


IMPORTING = """
import os, runpy, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
def hook(event, given):
    if event == "import" and given[0] == "typer":
        os.kill(os.getpid(), signal.SIGINT)
sys.addaudithook(hook)
runpy.run_module("semdpo", run_name="__main__", alter_sys=True)
"""


def test_a_command_is_stopped_while_it_is_imported() -> None:
    done = subprocess.run([sys.executable, "-c", IMPORTING], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "stopped\n")


@pytest.mark.slow
def test_a_training_that_is_terminated_goes_on(tmp_path: Path, pairs: Path) -> None:
    """Slurm's and Kubernetes' signal in the middle of training: nothing half-written, and the next call finishes."""
    train = [sys.executable, "-m", "semdpo", "train", str(pairs), "--model", "tiny:gpt2", "--objective", "dpo"]
    train += ["-o", "out", "--epochs", "150", "--batch-size", "1", "--checkpoint-steps", "5", "--cache", "cache"]
    victim = _start(*train, cwd=tmp_path)
    work = tmp_path / "out.partial.checkpoints"
    try:
        until = time.monotonic() + 120
        while not list(work.glob("checkpoint-*/sha256.json")) and victim.poll() is None and time.monotonic() < until:
            time.sleep(0.05)
        victim.send_signal(signal.SIGTERM)
        _, said = victim.communicate(timeout=60)
    finally:
        victim.kill()
    assert victim.returncode == 143, said
    assert said.endswith("stopped; the same command resumes from here (its last checkpoint)\n")
    assert "Traceback" not in said
    left = {each.name for each in tmp_path.iterdir()}
    assert left == {"pairs.jsonl", "cache", "out.partial.checkpoints"}, "no half-written model"
    again = subprocess.run(train, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "resuming from checkpoint-" in again.stderr
    assert (tmp_path / "out" / "model.safetensors").is_file()
