"""tiny:judge, a convolutional classifier trained on the painter's images only, which checks the renderer.

It is not a part of the pipeline, and the only model that is trained on the held-out combinations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

from semdpo.models.tiny_judge import Judge, split_facts
from semdpo.progress import Progress
from semdpo.tiny_world.grammar import Scene
from semdpo.tiny_world_training import pool
from semdpo.tiny_world_training.fit import Plan, autocast, fit

PLAN = Plan(steps=0, rate=3e-3, decay=0.01, warmup=50, hold=0.3, seed=31)
BATCH = 64


@torch.no_grad()
def facts_shown(judge: Judge, pixels: Tensor, subjects: Sequence[Scene]) -> dict[str, Tensor]:
    """Whether each image shows each fact of its scene, bool [n] by fact; a fact that is not stated counts as shown."""
    logits = torch.cat([judge(part) for part in torch.split(pixels, 128)])
    labels = pool.fact_labels(subjects)
    return {
        name: (part.argmax(1) == labels[name]) | (labels[name] == pool.UNSAID)
        for name, part in split_facts(logits).items()
    }


def all_right(shown: dict[str, Tensor]) -> Tensor:
    """Whether number, things, colours and place are all right, bool [n]; size and time are not checked."""
    names = ("count", "thing0", "color0", "thing1", "color1", "place")
    return torch.stack([shown[name] for name in names]).all(0)


def _with_held_out(folder: Path, pool_size: int) -> tuple[list[Scene], NDArray[np.uint8]]:
    """The shared pool, and a fifth as many images of held-out combinations.

    The judge measures composition, so it must recognise combinations that the measured models were never trained on.
    """
    subjects, images = pool.training_pool(folder, pool_size)
    more = pool.scenes(pool_size // 5, pool.TRAIN_SEED, held_out=True)
    return subjects + more, np.concatenate([images, pool.paint_all(more, pool.TRAIN_SEED + 1000)])


def build(folder: Path, out: Path, pool_size: int, steps: int, progress: Progress) -> dict[str, float]:
    """Trains the judge on painted images and saves it as ``out``; arguments as in `vae.build`.

    Returns:
        Accuracy on held-out painted images, and on held-out combinations.
    """
    from semdpo.tiny_world_training.clip import roughen  # transformers' CLIP takes seconds to import

    subjects, images = _with_held_out(folder, pool_size)
    torch.manual_seed(PLAN.seed)
    judge = Judge()

    def loss(step: int) -> Tensor:
        rng = np.random.default_rng([PLAN.seed, step])
        index = np.sort(rng.integers(0, len(images), BATCH))
        pixels = roughen(pool.to_pixels(images[index]))
        pixels = torch.roll(pixels, tuple(int(k) for k in rng.integers(-2, 3, 2)), (2, 3))
        with autocast():
            logits = judge(pixels).float()
        return pool.fact_loss(logits, pool.fact_labels([subjects[i] for i in index]))

    fit(judge, loss, replace(PLAN, steps=steps), folder / "judge.fit.pt", progress)
    out.mkdir(parents=True, exist_ok=True)
    save_file(judge.state_dict(), out / "model.safetensors")
    figures = {}
    for name, held_out in (("painted", False), ("painted_held_out_combinations", True)):
        tests = pool.scenes(pool.held_out_count(512, pool_size), pool.HELD_OUT_SEED, held_out=held_out)
        pixels = pool.to_pixels(pool.paint_all(tests, pool.HELD_OUT_SEED))
        figures[name] = all_right(facts_shown(judge, pixels, tests)).float().mean().item()
    return figures
