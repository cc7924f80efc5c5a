"""An objective is one file: another package brings one, and nothing else is touched to train with it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from semdpo.data.records import Curve
from semdpo.engine import parquet
from tests import tiny_models

TOY = '''
"""The hinge loss of SLiC-HF (Zhao et al. 2023): max(0, 1 - delta)."""

from typing import ClassVar, Literal

from semdpo.objectives.base import Batch, Computed, Memory, Objective
from semdpo.recipe.objectives import ObjectiveSettings


class ToySettings(ObjectiveSettings):
    """A hinge in place of the logistic loss."""

    needs_whole_batch: ClassVar[bool] = True

    name: Literal["toy"]
    margin: float = 1.0


def compute(batch: Batch, settings: ToySettings, memory: Memory) -> Computed:
    chosen, rejected, reference_chosen, reference_rejected = batch.pairs
    rewards = memory.beta * (chosen - reference_chosen), memory.beta * (rejected - reference_rejected)
    losses = batch.weight * (settings.margin - rewards[0] + rewards[1]).clamp(min=0)
    return Computed(losses, rewards[0].detach(), rewards[1].detach(), {"toy_margin": settings.margin})


OBJECTIVE = Objective(compute)
'''


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """What ``pip install`` would leave of a package with one file and one entry point."""
    folder = tmp_path / "site"
    (folder / "toy_objective-1.0.dist-info").mkdir(parents=True)
    (folder / "toy_objective.py").write_text(TOY)
    (folder / "toy_objective-1.0.dist-info/METADATA").write_text(
        "Metadata-Version: 2.1\nName: toy-objective\nVersion: 1.0\n"
    )
    points = "[semdpo.objectives]\ntoy = toy_objective:ToySettings\n"
    (folder / "toy_objective-1.0.dist-info/entry_points.txt").write_text(points)
    return folder


def _run(package: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(package), *sys.path]), "OMP_NUM_THREADS": "1"}
    asked = [sys.executable, *arguments]
    return subprocess.run(asked, cwd=package.parent, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_it_trains_by_its_name_and_is_refused_what_it_does_not_allow(package: Path) -> None:
    folder = package.parent
    rows = [
        {"prompt": f"a {w}", "chosen": f"a {w}, oil", "rejected": f"{w} grey"} for w in ("cat", "dog", "house", "sea")
    ]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tiny_models.gpt2(folder / "start")
    train = ["-m", "semdpo", "train", "pairs.jsonl", "--model", "start", "--objective", "toy", "--batch-size", "4"]
    done = _run(package, *train, "-o", "out", "--epochs", "3", "--learning-rate", "1e-3", "--set", "margin=2")
    assert done.returncode == 0, done.stderr
    curves = parquet.read_file(folder / "out/curves.parquet", Curve)
    values = [curve.value for curve in curves if curve.name in ("loss", "toy_margin")]
    assert values[0] == pytest.approx(2.0, abs=1e-3), "before the first update the gap is 0"
    assert 2.0 in values
    refused = _run(package, *train, "-o", "other", "--micro-batch-size", "2")
    assert refused.returncode == 2
    assert "toy needs its whole batch at once" in refused.stderr
    wrong = _run(package, *train, "-o", "other", "--set", "odds_weight=2")
    assert "odds_weight belongs to orpo, not to toy" in wrong.stderr


@pytest.mark.slow
def test_whichever_is_imported_first(package: Path) -> None:
    for first in ("import toy_objective", "import semdpo.recipe.discovery"):
        done = _run(package, "-c", f"{first}; from semdpo.recipe.discovery import OBJECTIVES; print(list(OBJECTIVES))")
        assert done.stdout.strip().endswith("'toy']"), done.stderr


def test_one_that_cannot_be_loaded_is_named(package: Path) -> None:
    (package / "toy_objective.py").write_text("import no_such_module\n")
    done = _run(package, "-c", "import semdpo.recipe.discovery")
    assert "the objective 'toy' (toy_objective:ToySettings) cannot be loaded" in done.stderr
    assert "repair or uninstall its package" in done.stderr
