"""Stage 2: a language model learns from examples what a rewrite looks like."""

from __future__ import annotations

from pathlib import Path

from semdpo.data.pairs import read_rewrites
from semdpo.data.records import Curve
from semdpo.engine.stage import ModelStage, Run
from semdpo.models.registry import lasting
from semdpo.progress import Progress
from semdpo.recipe.schema import Recipe

NAME = "sft"


def stage(recipe: Recipe) -> ModelStage:
    """The stage that fine-tunes the rewriter on examples."""
    config = recipe.sft
    outside = {"sft.model": config.model, "sft.file": config.file}
    return ModelStage(NAME, "fine-tuning", config.model_dump(mode="json"), (), outside, _work)


def _work(run: Run, output: Path, progress: Progress) -> list[Curve]:
    from semdpo.models.rewriter_settings import name_encoder  # here, since these import torch
    from semdpo.training.fine_tune import fine_tune

    config = run.recipe.sft
    curves = fine_tune(read_rewrites(config.file), config, output, progress)
    name_encoder(output, lasting(run.recipe.drift.encoder))
    return curves
