"""Models are left out: what is tried is everything between a user's bytes and the first tensor."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from typer.main import get_command

from semdpo import pipeline
from semdpo.cli import app as cli
from semdpo.prompt_optimizer import PromptOptimizer
from tests.fuzz.harness import INPUTS, Models, no_training, optimizer


@pytest.fixture(scope="module", autouse=True)
def _no_models(request: pytest.FixtureRequest) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli, "app", get_command(cli.app))  # once, for it takes longer than most of the files
        if getattr(request.module, "REAL", False):
            yield
            return
        patch.setattr("semdpo.engine.providers.own_models", Models)
        patch.setattr(PromptOptimizer, "from_pretrained", optimizer)
        patch.setattr("semdpo.reporting.compare.compare", no_training)
        patch.setattr("semdpo.training.preference.train", no_training)
        patch.setattr("semdpo.reporting.report.write_report", lambda data, page: None)
        patch.setattr(pipeline, "run", lambda *_, **__: None)
        patch.setattr("semdpo.cli.run.run_closing", lambda *_: "")
        patch.setattr(pipeline, "sweep", lambda *_, **__: None)
        patch.setattr("semdpo.training.memory.keep_freed_memory", lambda: None)
        yield


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says how many different inputs each command was given."""
    if INPUTS:
        terminalreporter.section("different inputs of each command")
        for command, inputs in sorted(INPUTS.items()):
            terminalreporter.line(f"{len(inputs):6,}  {command}")
