"""Models are left out: what is tried is everything between a user's bytes and the first tensor."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from typer.main import get_command

from semdpo import pipeline
from semdpo.cli import app as cli
from tests.fuzz.harness import Models, no_training


@pytest.fixture(scope="module", autouse=True)
def _no_models() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli, "app", get_command(cli.app))  # once, for it takes longer than most of the files
        patch.setattr("semdpo.engine.providers.own_models", Models)
        patch.setattr("semdpo.training.preference.train", no_training)
        patch.setattr("semdpo.reporting.report.write_report", lambda data, page: None)
        patch.setattr(pipeline, "run", lambda *_, **__: None)
        patch.setattr("semdpo.cli.run.run_closing", lambda *_: "")
        patch.setattr(pipeline, "sweep", lambda *_, **__: None)
        patch.setattr("semdpo.training.memory.keep_freed_memory", lambda: None)
        yield
