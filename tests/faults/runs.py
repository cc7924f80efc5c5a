"""Runs in processes of their own, and the files that they end with."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from tests import stand_ins, tiny_models


@dataclass
class Job:
    """A process that makes a run."""

    server: subprocess.Popen[str]
    output: Path
    here: Path
    pid: int
    code: int | None = None

    def arrived(self) -> None:
        """Waits until the process is at the place where its fault happens."""
        assert self.server.stdout is not None
        until = time.monotonic() + 120
        while not self.here.exists():
            ended, _, _ = select.select([self.server.stdout], [], [], 0.005)
            assert not ended, self.output.read_text()
            assert time.monotonic() < until, self.output.read_text()

    def ended(self) -> tuple[int, str]:
        """Its exit code, and what it said."""
        if self.code is None:
            assert self.server.stdout is not None
            self.code = int(self.server.stdout.readline())
        return self.code, self.output.read_text()


class Runs:
    """Starts processes that make a run of the same inputs, one at a time."""

    def __init__(self, server: subprocess.Popen[str], inputs: Path) -> None:
        self._server, self._number = server, 0
        self._last: Job | None = None
        self.inputs, self.outputs = inputs, inputs / "outputs"
        self.outputs.mkdir()
        model = tiny_models.gpt2(inputs / "gpt2")
        training = ["train.epochs=2", "train.batch_size=8", "train.checkpoint_steps=2", "train.max_length=128"]
        settings = [*stand_ins.settings_of(inputs), f"sft.model={model}", "sft.steps=3", *training]
        metrics = "evaluate.metrics={clip: 'tiny:clip', hps: 'tiny:hps'}"
        shown = ["report.fidelity=[clip]", "report.preference=[hps]", "sweep=null", "evaluate.also={}"]
        self._settings = [*settings, metrics, *shown]

    def start(self, run: Path, *options: str, match: str = "", nth: int = 1, act: str = "", delay: float = 0.0) -> Job:
        """Starts ``semdpo run`` in a process that has a fault, unless ``act`` is empty."""
        self.end()
        self._number += 1
        output, said = (self.outputs / f"{self._number}{name}" for name in (".txt", ".said"))
        fault = {"match": match, "nth": nth, "act": act, "said": str(said)} if act else None
        paths = {"run": str(run), "output": str(output), "said": str(said)}
        settings = [part for each in self._settings for part in ("--set", each)]
        arguments = ["run", "tiny", "--out", str(run), *settings, *options]
        job = {"arguments": arguments, "fault": fault, "delay": delay, **paths}
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(f"{json.dumps(job)}\n")
        self._server.stdin.flush()
        self._last = Job(self._server, output, said, int(self._server.stdout.readline()))
        return self._last

    def end(self) -> None:
        """Ends the process that a failed test has left."""
        if self._last is not None and self._last.code is None:
            os.kill(self._last.pid, signal.SIGKILL)
            self._last.ended()

    def finish(self, run: Path, *options: str) -> None:
        """Lets a run end undisturbed."""
        code, said = self.start(run, *options).ended()
        assert code == 0, said


def files_of(run: Path) -> dict[str, bytes]:
    """All that a run's folder holds, hidden files and empty folders too, but for how long it took."""
    found = {}
    for path in sorted(run.rglob("*")):
        name = path.relative_to(run).as_posix()
        if path.is_dir():
            found[f"{name}/"] = b""
        elif path.name not in ("timing.json", ".lock"):
            found[name] = path.read_bytes()
    return found


def same(found: dict[str, bytes], expected: dict[str, bytes]) -> None:
    """Two runs' files, compared by name."""
    assert found.keys() == expected.keys()
    assert [name for name in found if found[name] != expected[name]] == []
