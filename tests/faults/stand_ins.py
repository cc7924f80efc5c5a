"""The run of these tests: real trainings of a tiny model; stand-ins render and score. All say what they begin."""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

from semdpo import pipeline
from semdpo.engine import fingerprint, timing
from semdpo.engine.providers import Models
from tests import stand_ins
from tests.faults.child import ANNOUNCED

SAID = "SEMDPO_TESTS_SAID"


class Rewriter(stand_ins.Rewriter):
    """Its rewrites depend on all weights of the model in its folder."""

    def __init__(self, folder: Path) -> None:
        self.weights = fingerprint.model(folder)


def _rewriter(model: str, *_: object) -> Rewriter:
    sys.audit(ANNOUNCED, "load rewriter")
    return Rewriter(Path(model))


def _renderer(delay: float, *_: object) -> stand_ins.Renderer:
    sys.audit(ANNOUNCED, "load renderer")
    if delay:
        Path(os.environ[SAID]).touch()
    return stand_ins.Renderer(delay)


def _scorer(name: str, *_: object) -> stand_ins.Scorer:
    sys.audit(ANNOUNCED, f"load scorer {name}")
    return stand_ins.Scorer()


def _encoder(*_: object) -> stand_ins.Encoder:
    sys.audit(ANNOUNCED, "load encoder")
    return stand_ins.Encoder()


def take_part(said: str, delay: float) -> None:
    """Lets every run of this process have these models, plots that cost nothing, and stages that take no time.

    Args:
        said: the file that appears when a renderer that takes its time begins; also one of another process.
        delay: the seconds that rendering takes.
    """
    from semdpo.reporting import style
    from semdpo.training.trainer import ExampleTrainer

    os.environ[SAID] = said
    models = Models(_rewriter, partial(_renderer, delay), _scorer, _encoder, stand_ins.models().fingerprint)
    pipeline.run = partial(pipeline.run, models=models)
    step = ExampleTrainer.training_step

    def announced(trainer: Any, *given: Any, **named: Any) -> Any:
        sys.audit(ANNOUNCED, f"step {trainer.method}")
        return step(trainer, *given, **named)

    ExampleTrainer.training_step = announced
    style.to_svg_and_png = lambda figure, name: ("<svg></svg>", b"a plot")
    timing.seconds = lambda folder: 0.0
