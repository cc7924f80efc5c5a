"""What holds for all tests."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

from semdpo import pipeline
from tests import stand_ins
from tests.second_device.build import NO_COMPILER


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test reads or writes the cache folder of whoever runs it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEMDPO_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module", autouse=True)
def _libraries_are_not_garbage() -> None:
    """Python looks for garbage among what tests make only.

    torch, transformers and diffusers leave more than a million objects that stay. Looking through them takes half a
    second, and every training and every table of p-values asks for it.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module")
def stand_in_trainings() -> Iterator[None]:
    """Trainings write a text in place of weights, in the whole file of tests that asks for it."""
    with pytest.MonkeyPatch.context() as patch:
        stand_ins.stand_in_trainings(patch)
        yield


@pytest.fixture(scope="module")
def finished(stand_in_trainings: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an undisturbed run of stand-ins in ``run``; not to be changed."""
    folder = tmp_path_factory.mktemp("finished")
    pipeline.run(stand_ins.recipe_of(folder), folder / "run", models=stand_ins.models())
    return folder


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says in red what a machine without a compiler leaves untested."""
    if any(NO_COMPILER in str(each.longrepr) for each in terminalreporter.stats.get("skipped", [])):
        terminalreporter.write_line(f"NOT TESTED: {NO_COMPILER}", red=True, bold=True)
