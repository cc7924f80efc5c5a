"""Runs on object storage. As a script, it is the run that is killed."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import fsspec
import pytest

from semdpo import pipeline
from tests.stand_ins import models, recipe_of, run_without_report, stand_in_trainings

ROOT = Path(__file__).parents[3]
MEMORY = "memory://shelf/my-run"


def move_to(to: Path, patch: pytest.MonkeyPatch) -> None:
    """Continues on a machine that has nothing yet."""
    patch.setenv("SEMDPO_CACHE", str(to))


def in_memory() -> dict[str, bytes]:
    """What the memory holds of the run."""
    files = fsspec.filesystem("memory")
    return {name.removeprefix("/shelf/my-run/"): files.cat_file(name) for name in files.find("/shelf/my-run")}


def store_object(name: str, data: bytes) -> None:
    fsspec.filesystem("memory").pipe_file(f"/shelf/my-run/{name}", data)


def files_until(last: str, files: dict[str, bytes]) -> dict[str, bytes]:
    """The files of a run that ended after a stage."""
    stages = ["recipe.json", "prompts", "sft", "candidates", "label", "pairs", "drift", "train", "losses", "evaluate"]
    made = stages[: stages.index(last) + 1]
    return {
        name: data for name, data in files.items() if name.split("/")[0] in made and not name.endswith("guard.json")
    }


def run_at(folder: Path, address: str, last: str = "pairs", delay: float = 0.0) -> None:
    run_without_report(recipe_of(folder), address, models(delay), last=last)


def names_in(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def idle_models() -> pipeline.Models:
    def never(*_: object) -> None:
        raise AssertionError("a model was loaded")

    return replace(models(), renderer=never, scorer=never, rewriter=never)


def flipped(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


if __name__ == "__main__":
    with pytest.MonkeyPatch.context() as patching:
        stand_in_trainings(patching)
        run_at(Path(sys.argv[1]), sys.argv[2], delay=float(sys.argv[3]))
