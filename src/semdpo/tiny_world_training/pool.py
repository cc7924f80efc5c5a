"""The images that the world's models are trained on, painted once and shared by all, and their labels."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from random import Random

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from semdpo.models.tiny_judge import FACTS, split_facts
from semdpo.tiny_world.grammar import STYLES, Scene, scene
from semdpo.tiny_world.painter import SIZE, paint

TRAIN_SEED = 1
HELD_OUT_SEED = 2
UNSAID = -100  # the label that cross-entropy ignores


def scenes(count: int, seed: int, *, held_out: bool = False, items: int | None = None) -> list[Scene]:
    """``count`` complete scenes, the same ones for the same seed."""
    rng = Random(seed)
    return [scene(rng, held_out=held_out, count=items) for _ in range(count)]


def held_out_count(usual: int, pool_size: int) -> int:
    """How many held-out examples a model is measured on: ``usual``, and fewer where the world is built in miniature."""
    return min(usual, pool_size // 30)


def paint_all(subjects: Sequence[Scene], seed: int, first: int = 0) -> NDArray[np.uint8]:
    """Images of scenes, uint8 [n, 64, 64, 3]; each has its own seed, so their order does not matter.

    Args:
        subjects: The scenes, n.
        seed: The seed of all.
        first: The place of the first of these scenes among all.
    """
    images = np.empty((len(subjects), SIZE, SIZE, 3), np.uint8)
    for k, subject in enumerate(subjects):
        images[k] = paint(subject, np.random.default_rng([seed, first + k]))
    return images


def training_pool(folder: Path, count: int, jobs: int = 1) -> tuple[list[Scene], NDArray[np.uint8]]:
    """The shared training scenes and their images, which are painted by the first call and memory-mapped later.

    Args:
        folder: The build folder.
        count: The number of images.
        jobs: The number of processes that paint; the images are the same with any.
    """
    path = folder / f"pool-{count}.npy"
    subjects = scenes(count, TRAIN_SEED)
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(path.stem + ".partial.npy")
        np.save(unfinished, _painted(subjects, jobs))
        unfinished.replace(path)
    return subjects, np.load(path, mmap_mode="r")


def _painted(subjects: Sequence[Scene], jobs: int) -> NDArray[np.uint8]:
    if jobs == 1:
        return paint_all(subjects, TRAIN_SEED)
    share = -(-len(subjects) // jobs)
    starts = range(0, len(subjects), share)
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as painters:  # torch's threads do not fork
        parts = painters.map(
            paint_all, [subjects[k : k + share] for k in starts], [TRAIN_SEED] * len(starts), starts, chunksize=1
        )
        return np.concatenate(list(parts))


def to_pixels(images: NDArray[np.uint8]) -> Tensor:
    """[n, 64, 64, 3] uint8 to [n, 3, 64, 64] float32 in [-1, 1], which is the tiny models' normalisation."""
    return torch.from_numpy(np.array(images)).permute(0, 3, 1, 2).float() / 127.5 - 1


def fact_labels(said: Sequence[Scene]) -> dict[str, Tensor]:
    """The class index of each fact in each scene, int64 [n] by fact; `UNSAID` if the fact is not stated."""
    rows: dict[str, list[int]] = {name: [] for name in FACTS}

    def add(name: str, value: str | None) -> None:
        rows[name].append(UNSAID if value is None else FACTS[name].index(value))

    for one in said:
        add("count", str(len(one.items)))
        add("layout", one.layout if len(one.items) == 2 else None)
        add("place", one.place)
        add("time", one.time)
        for k in (0, 1):
            item = one.items[k] if k < len(one.items) else None
            add(f"thing{k}", item.thing if item else None)
            add(f"color{k}", item.color if item else None)
            add(f"size{k}", item.size if item else None)
    return {name: torch.tensor(values) for name, values in rows.items()}


def style_labels(said: Sequence[Scene]) -> Tensor:
    """Which styles each scene has, [n, 6] float32 of zeros and ones."""
    return torch.tensor([[float(style in one.styles) for style in STYLES] for one in said])


def fact_loss(logits: Tensor, labels: dict[str, Tensor]) -> Tensor:
    """The sum over facts of the cross-entropy of their slices of ``logits``, [n, sum of values]."""
    total = logits.new_zeros(())
    for name, part in split_facts(logits).items():
        if (labels[name] != UNSAID).any():
            total = total + torch.nn.functional.cross_entropy(part, labels[name], ignore_index=UNSAID)
    return total


def hard_groups(subjects: Sequence[Scene], size: int) -> list[list[list[int]]]:
    """Groups of scenes that look alike, in two ways, each a list of groups with at least ``size`` members.

    Images that share place and time teach the things; images that share the first thing and the number
    teach colour, size and place. Without such batches a contrastive model learns backgrounds only.
    """
    by_background: dict[object, list[int]] = {}
    by_thing: dict[object, list[int]] = {}
    for k, one in enumerate(subjects):
        by_background.setdefault((one.place, one.time, len(one.items)), []).append(k)
        by_thing.setdefault((one.items[0].thing, one.layout, len(one.items)), []).append(k)
    return [[group for group in way.values() if len(group) >= size] for way in (by_background, by_thing)]


def draw_hard_batch(groups: list[list[list[int]]], batch: int, size: int, rng: Random) -> list[int]:
    """The indices of a batch of ``batch`` scenes, in groups of ``size`` that look alike."""
    chosen: list[int] = []
    for _ in range(batch // size):
        chosen += rng.sample(rng.choice(rng.choice(groups)), size)
    return chosen
