"""What the tests of faults share: what starts processes, and an undisturbed run."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.runs import Runs, files_of

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def runs(python: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    """What starts the processes."""
    command: list[Any] = [python, "-m", "tests.faults.child"]
    inputs = tmp_path_factory.mktemp("inputs")
    with subprocess.Popen(command, cwd=REPOSITORY, text=True, stdin=-1, stdout=-1) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        made = Runs(server, inputs)
        yield made
        made.end()


@pytest.fixture(scope="module")
def places(runs: Runs) -> list[str]:
    """The places of an undisturbed run, in order; the run is in ``whole``."""
    job = runs.start(runs.inputs / "whole", act="list", nth=10**9)
    code, said = job.ended()
    assert code == 0, said
    return job.here.read_text().splitlines()


@pytest.fixture(scope="module")
def whole(runs: Runs, places: list[str]) -> dict[str, bytes]:
    """The files of an undisturbed run."""
    return files_of(runs.inputs / "whole")
