"""Ctrl-C and SIGTERM in every stage: the process ends soon, says how to resume, and the same command does."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests import processes
from tests.faults.runs import Job, Runs, files_of, same
from tests.loopback import Asked, Loopback, Reply, echo

pytestmark = pytest.mark.slow  # processes
SECONDS = 10.0  # in which a process must end; it takes less than one on a quiet machine
RESUMES = "stopped; the same command resumes from here"
# Two places of each stage at least, in the order of a run.
PLACES = [
    "load encoder",  # of the stage prompts
    r"rename prompts/part-00000",
    "step sft",
    r"open \.sft\.partial-\w+/config\.json",
    "load rewriter",
    r"rename candidates/made/part-00001",
    "load renderer",
    r"rename label/part-00002",
    r"rename pairs/part-00001",
    r"rename pairs/manifest",
    "load encoder",
    r"rename drift/part-00001",
    "step dpo",
    r"open train/dpo\.partial\.checkpoints/checkpoint-2/trainer_state\.json",
    r"rename train/\.dpo\.partial-\w+|rename train/dpo\.partial$",
    r"rename train/sem_dpo$",
    r"open losses/sem_dpo/\.part-00000",
    r"rename losses/sem_dpo/part-00000",
    r"rename evaluate/human/images/part-00001",
    "load rewriter",
    "load scorer tiny:hps",
    r"remove evaluate/dpo/hps/made",
    r"rename report/\.files\.json",
    r"rename report/tables/results\.csv",
]
SIGNALS = (signal.SIGINT, signal.SIGTERM)


def _stopped(job: Job, number: signal.Signals, *, group: bool = False, twice: bool = False) -> str:
    """Sends a signal to a process, or as a terminal does to all of its group; returns its last line."""
    begun = time.monotonic()
    for _ in range(1 + twice):
        with suppress(ProcessLookupError):
            (os.killpg if group else os.kill)(job.pid, number)
        time.sleep(0.02 * twice)
    code, said = job.ended()
    assert time.monotonic() - begun < SECONDS
    assert code == 128 + number, said
    assert said.count("stopped") == 1, said
    assert "Traceback" not in said, said
    assert _is_gone(job.pid)
    return said.splitlines()[-1]


def _is_gone(group: int) -> bool:
    """Whether no process of a group is left, a moment after its first process has ended."""
    for _ in range(100):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize(("options", "first"), [((), 0), (("--shard", "1/1"), 1)], ids=["alone", "shared"])
def test_a_run_is_stopped_in_every_stage(
    options: tuple[str, ...], first: int, runs: Runs, whole: dict[str, bytes], tmp_path: Path
) -> None:
    """One run, stopped at all places in turn, by the two signals in turn."""
    for number, place in enumerate(PLACES):
        job = runs.start(tmp_path / "run", *options, match=place, act="wait")
        job.arrived()
        twice = number % 3 == 0
        assert _stopped(job, SIGNALS[(number + first) % 2], twice=twice) == RESUMES, place
    runs.finish(tmp_path / "run", *options)
    found = files_of(tmp_path / "run")
    same({name: data for name, data in found.items() if not name.startswith(".claims/")}, whole)
    assert not [name for name, data in found.items() if name.startswith(".claims/") and not name.endswith("/")]


def test_a_run_that_is_stopped_while_it_removes_resumes_without_fresh(
    runs: Runs, whole: dict[str, bytes], tmp_path: Path
) -> None:
    run, changed = tmp_path / "run", ("--set", "train.methods.sem_dpo.alpha=2")
    shutil.copytree(runs.inputs / "whole", run)
    job = runs.start(run, "--fresh", *changed, match=r"remove evaluate/sem_dpo/clip/part", act="wait")
    job.arrived()
    assert _stopped(job, signal.SIGINT) == "stopped; the same command without --fresh resumes from here"
    assert not (run / "train/sem_dpo").exists()
    assert (run / "train/dpo/manifest.json").is_file()
    runs.finish(run, *changed)
    assert files_of(run).keys() == whole.keys()


def _with_candidates(runs: Runs, run: Path) -> None:
    """A run whose next stage is ``label``."""
    shutil.copytree(runs.inputs / "whole", run)
    for name in ("label", "pairs", "drift", "train", "losses", "evaluate", "reference", "report"):
        shutil.rmtree(run / name)


def _workers_of(job: Job) -> list[psutil.Process]:
    return processes.having("spawn_main", psutil.Process(job.pid).children())


def test_the_processes_of_a_stopped_run_end_too(runs: Runs, whole: dict[str, bytes], tmp_path: Path) -> None:
    """Ctrl-C in a terminal reaches them while they start; SIGTERM reaches the first one only, while they render."""
    run = tmp_path / "run"
    _with_candidates(runs, run)
    job = runs.start(run, "--workers", "2", delay=60)
    begun = None
    while begun is None or time.monotonic() - begun < 1:  # they import
        for each in _workers_of(job):
            each.send_signal(signal.SIGINT)
            begun = begun or time.monotonic()
        time.sleep(0.02)
    assert _stopped(job, signal.SIGINT, group=True) == RESUMES
    job = runs.start(run, "--workers", "2", delay=60)
    job.arrived()  # one of them renders
    assert _stopped(job, signal.SIGTERM) == RESUMES
    runs.finish(run)
    same(files_of(run), whole)


def test_nobody_waits_for_a_server_that_does_not_answer(runs: Runs, tmp_path: Path) -> None:
    free = threading.Event()

    def late(asked: Asked) -> Reply:
        free.wait(60)
        return echo(asked)

    with Loopback(late) as server:
        rewriter = f"candidates.rewriter={{model: '{server.url}', endpoint: {{model_name: m}}}}"
        job = runs.start(tmp_path / "run", "--set", rewriter)
        try:
            while not server.asked:
                time.sleep(0.05)
            assert _stopped(job, signal.SIGINT) == RESUMES
        finally:
            free.set()


INTERRUPTED = """
import signal
from semdpo.cli.ending import finish

def work(**_):
    try:
        signal.raise_signal(signal.SIGTERM)
    except KeyboardInterrupt as error:
        raise ImportError("initialization failed") from error

finish(work)
"""


def test_a_library_that_was_interrupted_raises_its_own_error() -> None:
    done = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (143, "stopped\n")
