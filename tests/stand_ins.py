"""Stand-ins for a run's models and trainings, which make whole runs in a second."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from semdpo import pipeline
from semdpo.data.records import Curve, Pair, PairLoss, content_seed
from semdpo.engine.providers import Models
from semdpo.progress import Progress
from semdpo.protocols import Embeddings, ScoreBatch
from semdpo.recipe.load import load_recipe
from semdpo.recipe.models import DecodingConfig, RendererConfig
from semdpo.recipe.objectives import ObjectiveSettings
from semdpo.recipe.schema import Recipe, SFTConfig, TrainConfig


class Rewriter:
    def __init__(self, folder: Path) -> None:
        self.weights = (folder / "weights.txt").read_text()

    def rewrite(self, prompts: Sequence[str], n: int, seed: int) -> list[list[str]]:
        def one(prompt: str, index: int) -> str:
            return f"{prompt}, style {content_seed(prompt, str(index), str(seed), self.weights) % 7}"

        return [[one(prompt, index) for index in range(n)] for prompt in prompts]

    def tokens(self, texts: Sequence[str]) -> list[int]:
        return [len(text.split()) for text in texts]


class Renderer:
    def __init__(self, delay: float) -> None:
        self.delay, self.calls = delay, 0

    def render(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[Image.Image]:
        self.calls += 1
        time.sleep(self.delay)
        seeds = [content_seed(prompt, str(seed)) for prompt, seed in zip(prompts, seeds, strict=True)]
        return [Image.fromarray(np.random.default_rng(s).integers(0, 255, (8, 8, 3), np.uint8)) for s in seeds]


class Scorer:
    """Its values lie in [-1, 1], for one of the scorers it stands in for gives cosines."""

    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> ScoreBatch:
        values = [np.asarray(i).mean() / 255 + len(text) / 1000 for i, text in zip(images, prompts, strict=True)]
        return ScoreBatch(np.array(values, np.float32), np.zeros(len(prompts), bool))


class Encoder:
    def encode(self, texts: Sequence[str]) -> Embeddings:
        rows = [np.random.default_rng(content_seed(text)).normal(size=8) for text in texts]
        vectors = np.array([row / np.linalg.norm(row) for row in rows], np.float32)
        return Embeddings(vectors, np.zeros(len(texts), bool))


def fine_tune(pairs: Sequence[tuple[str, str]], config: SFTConfig, output: Path, progress: Progress) -> list[Curve]:
    (output / "weights.txt").write_text(f"sft {len(pairs)} {config.seed}")
    return [Curve("sft", step, "loss", 1 / (step + 1)) for step in range(3)]


def _train(
    pairs: Sequence[Pair],
    model: str,
    objective: ObjectiveSettings,
    config: TrainConfig,
    output: Path,
    cache: Path,
    progress: Progress,
) -> list[Curve]:
    started = (Path(model) / "weights.txt").read_text()
    (output / "weights.txt").write_text(f"{started} {objective.model_dump()} {len(pairs)}")
    return [Curve(objective.name, step, "loss", 0.7 / (step + 1)) for step in range(3)]


def _losses(
    parts: Iterable[Sequence[Pair]], policy: str, reference: str, beta: float, config: TrainConfig, cache: Path
) -> Callable[[Sequence[Pair], Progress], list[PairLoss]]:
    def losses(part: Sequence[Pair], progress: Progress) -> list[PairLoss]:
        return [PairLoss(each.pair_id, float(each.distance or 0), beta * i) for i, each in enumerate(part)]

    return losses


def _rewriter(model: str, template: str | None, decoding: DecodingConfig) -> Rewriter:
    return Rewriter(Path(model))


def _the(renderer: Renderer, config: RendererConfig) -> Renderer:
    return renderer


def _scorer(name: str, scoring: object) -> Scorer:
    return Scorer()


def _encoder(name: str) -> Encoder:
    return Encoder()


def _name(model: str) -> str:
    return Path(model).name  # the same wherever a run is


def models(delay: float = 0.0) -> Models:
    """A run's models: stand-ins, whose renderer is as slow as asked; other processes can have them too."""
    return Models(_rewriter, partial(_the, Renderer(delay)), _scorer, _encoder, _name)


def stand_in_trainings(patch: pytest.MonkeyPatch) -> None:
    """Trainings write a text in place of weights."""
    patch.setattr("semdpo.training.fine_tune.fine_tune", fine_tune)
    patch.setattr("semdpo.training.preference.train", _train)
    patch.setattr("semdpo.training.losses.losses_of", _losses)


def settings_of(folder: Path) -> list[str]:
    """The settings of a small run, whose files are written into a folder."""
    files = {"ask": [f"a thing {i}" for i in range(20)], "held": [f"another {i}" for i in range(6)]}
    for name, lines in files.items():
        if not (folder / f"{name}.txt").exists():
            (folder / f"{name}.txt").write_text("\n".join(lines))
    (folder / "rewrites.jsonl").write_text('{"prompt": "a", "rewrite": "b"}\n')
    return [
        f"prompts.file={folder}/ask.txt",
        f"prompts.test_file={folder}/held.txt",
        f"sft.file={folder}/rewrites.jsonl",
        "candidates.shard_size=4",
        "label.shard_size=4",
        "label.batch_size=4",
        "evaluate.shard_size=4",
        "evaluate.keep_images=5",
        "train.methods={dpo: {name: dpo}, sem_dpo: {name: sem_dpo, alpha: 4.0}}",
        "report.study=null",
        "atoms=null",  # these prompts have no facts of the tiny world
    ]


def recipe_of(folder: Path, *overrides: str) -> Recipe:
    return load_recipe("tiny", [*settings_of(folder), *overrides])


def files_of(run: Path) -> dict[str, bytes]:
    """All files that must not depend on how often a run was interrupted."""
    ignored = {"timing.json", ".lock"}
    return {
        path.relative_to(run).as_posix(): path.read_bytes()
        for path in sorted(run.rglob("*"))
        if path.is_file() and path.name not in ignored and "report" not in path.parts
    }


def run_without_report(recipe: Recipe, run: Path, own: Models, last: str = "evaluate") -> None:
    """Drawing the report's plots takes longer than all the rest."""
    for stage in ("prompts", "sft", "candidates", "label", "pairs", "drift", "train", "losses", "evaluate"):
        pipeline.run(recipe, run, only=stage, models=own)
        if stage == last:
            return
