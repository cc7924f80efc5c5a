"""Fifty raters at a time, and a server that is killed under them: every acknowledged vote is there, exactly once."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from semdpo.study.blinding import rater_id, study_id, trial_id
from semdpo.study.votes import read_votes
from tests.study import rater_process
from tests.study.studies import PATIENCE, make

pytestmark = pytest.mark.slow  # processes

RATERS, TRIALS, KILLS = 50, 20, 5


def _serve(folder: Path, port: int) -> subprocess.Popen[bytes]:
    """A server as a user starts it, once it listens."""
    process = subprocess.Popen(
        [sys.executable, "-m", "semdpo", "study", "serve", folder, "--port", str(port)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdout is not None
    with process.stdout as said:
        assert said.readline().startswith(f"http://127.0.0.1:{port}/o/".encode())
    return process


def _acknowledged(files: list[Path]) -> list[dict[str, Any]]:
    """What raters printed; the last line of a rater may be half written."""
    lines = [line for file in files for line in file.read_text().splitlines(keepends=True) if line.endswith("\n")]
    return [json.loads(line) for line in lines]


def test_a_server_is_killed_five_times_under_fifty_raters(tmp_path: Path) -> None:
    study = make(tmp_path / "study", raters=RATERS, prompts=TRIALS)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    files = [tmp_path / f"rater-{rater}" for rater in range(RATERS)]
    server, raters = _serve(study.folder, port), []
    try:
        for rater, file in enumerate(files):
            command = [rater_process.__file__, f"127.0.0.1:{port}", f"/r/{rater_id(study, rater)}", str(rater)]
            with file.open("wb") as out:
                raters.append(subprocess.Popen([sys.executable, "-S", *command], stdout=out, stderr=subprocess.PIPE))
        for kill in range(1, KILLS + 1):
            end = time.monotonic() + PATIENCE
            while len(_acknowledged(files)) < kill * RATERS * TRIALS / (KILLS + 1):
                assert time.monotonic() < end, "too few votes came"
                time.sleep(0.01)
            server.send_signal(signal.SIGKILL)
            server.wait()
            running = sum(process.poll() is None for process in raters)
            assert running > RATERS / 2, "it was killed under load"
            server = _serve(study.folder, port)
        for process in raters:
            _, said = process.communicate(timeout=PATIENCE)
            assert process.returncode == 0, said
    finally:
        for process in (server, *raters):
            process.kill()
            process.wait()
            if process.stderr is not None:
                process.stderr.close()
    names = {trial_id(study, trial): trial for trial in study.plan.trials}
    acknowledged = _acknowledged(files)
    stored = read_votes(study.folder, study_id(study))
    assert len(acknowledged) == len(stored) == RATERS * TRIALS
    assert {(vote.trial, vote.choice, vote.left, vote.right) for vote in stored} == {
        (names[sent["trial"]].name, sent["choice"], names[sent["trial"]].left, names[sent["trial"]].right)
        for sent in acknowledged
    }
