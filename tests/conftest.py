"""What holds for all tests."""

from __future__ import annotations

import gc
import logging
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from semdpo import pipeline
from tests import stand_ins
from tests.fork_server import fork_server
from tests.second_device.build import NO_COMPILER


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test reads or writes the cache folder of whoever runs it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEMDPO_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", autouse=True)
def _no_waiting_for_the_disk() -> Iterator[None]:
    """Files of tests need not outlive a power cut: waiting until they are on the disk takes half of many runs' time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        yield


@pytest.fixture(scope="module", autouse=True)
def _libraries_are_not_garbage() -> None:
    """Python looks for garbage among what tests make only.

    torch, transformers and diffusers leave more than a million objects that stay. Looking through them takes half a
    second, and every training and every table of p-values asks for it.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module", autouse=True)
def _reports_without_drawings(request: pytest.FixtureRequest) -> Iterator[None]:
    """Reports of this process have empty drawings, which take half of a small run's time.

    tests/reporting and tests/study look at drawings; so do whole runs in other processes, such as those of the docs.
    """
    if {"reporting", "study"} & set(request.path.parts):
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("semdpo.reporting.style.to_svg_and_png", lambda _figure, _name: ("<svg></svg>", b"png"))
        patch.setattr("semdpo.reporting.strip.strip", lambda _data, _tables, _rows=4: b"png")
        yield


@pytest.fixture(scope="module")
def stand_in_trainings() -> Iterator[None]:
    """Trainings write a text in place of weights, in the whole file of tests that asks for it."""
    with pytest.MonkeyPatch.context() as patch:
        stand_ins.stand_in_trainings(patch)
        yield


@pytest.fixture(autouse=True)
def _own_log() -> Iterator[None]:
    """`semdpo serve` sets up the log of its process, which here is that of all tests."""
    log = logging.getLogger("semdpo")
    before, off = (log.level, log.propagate, log.disabled, [*log.handlers]), log.manager.disable
    yield
    log.setLevel(before[0])  # which also forgets what was found to be switched off
    _, log.propagate, log.disabled, log.handlers[:] = before
    logging.disable(off)


@pytest.fixture(scope="module")
def finished(stand_in_trainings: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an undisturbed run of stand-ins in ``run``; not to be changed."""
    folder = tmp_path_factory.mktemp("finished")
    pipeline.run(stand_ins.recipe_of(folder), folder / "run", models=stand_ins.models())
    return folder


@pytest.fixture(scope="session")
def python() -> Iterator[Path]:
    """What starts Python without importing torch and the like again."""
    with fork_server(os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}) as client:
        yield client


@pytest.fixture(scope="session")
def real_server() -> Iterator[str]:
    """The address of ``semdpo serve`` with a tiny rewriter and a tiny renderer."""
    command = ["serve", "--model", "tiny=tiny:gpt2", "--encoder", "tiny:clip", "--renderer", "tiny:sd", "--port", "0"]
    with subprocess.Popen([sys.executable, "-m", "semdpo", *command], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        lines = []
        while not lines or "serving" not in lines[-1]:
            lines.append(process.stderr.readline())
            assert lines[-1], "".join(lines)
        (address,) = re.findall(r"http://[\d.:]+", lines[-1])
        yield address
        process.send_signal(signal.SIGTERM)
        rest = process.stderr.read()
        assert process.wait() == 0
        assert "Traceback" not in rest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says in red what a machine without a compiler leaves untested."""
    if any(NO_COMPILER in str(each.longrepr) for each in terminalreporter.stats.get("skipped", [])):
        terminalreporter.write_line(f"NOT TESTED: {NO_COMPILER}", red=True, bold=True)
