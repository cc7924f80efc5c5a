"""What a run's models leave in memory, above all on a GPU."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from semdpo import pipeline
from semdpo.data.records import Curve
from semdpo.engine import providers
from semdpo.models.device import collect_garbage
from semdpo.models.renderer import load_renderer
from semdpo.recipe.models import ScoringConfig
from tests import stand_ins, tiny_models


class _Network:
    """One that refers to itself, as networks with hooks do."""

    def __init__(self) -> None:
        self.hooked = self


@pytest.fixture
def only_when_asked() -> Iterator[None]:
    """Python collects no garbage by itself, as it may not for minutes."""
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU that exists in what it says only, and scorers that refer to themselves."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(providers, "_scorer", lambda *_: _Network())


@pytest.mark.usefixtures("gpu", "only_when_asked")
def test_a_model_has_left_the_memory_before_the_next_one_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    models, config = providers.own_models(), ScoringConfig()
    first = weakref.ref(models.scorer("tiny:clip", config))
    assert first() is not None
    seen: list[Any] = []
    monkeypatch.setattr(providers, "_scorer", lambda *_: seen.append(first()))
    models.scorer("tiny:hps", config)
    assert seen == [None]


@pytest.mark.usefixtures("gpu", "only_when_asked")
def test_what_is_released_has_left_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(providers, "_encoder", lambda *_: _Network())
    models = providers.own_models()
    kept = [weakref.ref(models.scorer("tiny:clip", ScoringConfig())), weakref.ref(models.encoder("tiny:clip"))]
    assert None not in [each() for each in kept]
    models.release()
    assert [each() for each in kept] == [None, None]


@pytest.mark.usefixtures("only_when_asked")
def test_a_pipeline_needs_that_collection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    renderer = load_renderer(str(tiny_models.stable_diffusion(tmp_path / "sd")))
    encoder = weakref.ref(renderer._pipeline.text_encoder)
    del renderer
    assert encoder() is not None, "or this file tests nothing that happens"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    collect_garbage()
    assert encoder() is None


def test_a_training_has_the_memory_for_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    happened: list[str] = []

    def fine_tune(*given: Any) -> list[Curve]:
        happened.append("trained")
        return stand_ins.fine_tune(*given)

    monkeypatch.setattr("semdpo.training.fine_tune.fine_tune", fine_tune)
    usual = stand_ins.models()
    models = providers.Models(
        usual.rewriter, usual.renderer, usual.scorer, usual.encoder, usual.fingerprint,
        release=lambda: happened.append("released"),
    )  # fmt: skip
    pipeline.run(stand_ins.recipe_of(tmp_path), tmp_path / "run", only="sft", models=models)
    assert happened == ["released", "trained", "released"]
