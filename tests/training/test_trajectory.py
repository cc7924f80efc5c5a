"""Losses that were once recorded: a change that claims to change no number must keep them.

Record them anew, after a change of numbers that was meant and is explained in dev/LOG.md, with
``SEMDPO_RECORD=1 pytest tests/training/test_trajectory.py``.
"""

from __future__ import annotations

import json
import os
from itertools import pairwise
from pathlib import Path

import pytest

from semdpo.data.pairs import read_rewrites
from semdpo.data.records import Pair, content_id
from semdpo.progress import silent
from semdpo.recipe.schema import TrainConfig
from semdpo.training.preference import train

RECORDED = Path(__file__).parents[1] / "golden" / "trajectory.json"
OBJECTIVES = {
    "dpo": {"name": "dpo"},
    "sem_dpo": {"name": "sem_dpo", "alpha": 4.0},
    "beta_dpo": {"name": "beta_dpo", "share": 0.5},
    "kto": {"name": "kto"},
    "orpo": {"name": "orpo"},
    "ipo": {"name": "ipo"},
    "simpo": {"name": "simpo"},
    "sft": {"name": "sft"},
}


def _pairs() -> list[Pair]:
    """Somebody's rewrite is chosen, the next prompt's is rejected."""
    rows = read_rewrites("tiny:rewrites.jsonl")[:49]
    return [
        Pair(content_id(prompt, chosen, rejected), prompt, chosen, rejected, None, None, distance=k % 10 / 10)
        for k, ((prompt, chosen), (_, rejected)) in enumerate(pairwise(rows))
    ]


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_recorded_losses_are_kept(name: str, tmp_path: Path) -> None:
    settings = {"learning_rate": 1e-3, "batch_size": 4, "precision": "float32", "methods": {"m": OBJECTIVES[name]}}
    config = TrainConfig.model_validate(settings)
    curves = train(_pairs(), "tiny:gpt2", config.methods["m"], config, tmp_path / "m", tmp_path / "cache", silent)
    losses = [curve.value for curve in curves if curve.name == "loss"]
    recorded = json.loads(RECORDED.read_text()) if RECORDED.exists() else {}
    if os.environ.get("SEMDPO_RECORD"):
        RECORDED.write_text(json.dumps(recorded | {name: losses}, indent=1) + "\n")
        return
    assert losses == pytest.approx(recorded[name], rel=1e-4)
