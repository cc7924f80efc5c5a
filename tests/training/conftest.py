"""What the tests of training share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import tiny_models


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small GPT-2 with random weights."""
    return tiny_models.gpt2(tmp_path_factory.mktemp("base") / "model")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of the test's own, so that it asks the reference itself."""
    monkeypatch.setenv("SEMDPO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"
