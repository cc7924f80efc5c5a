"""The arms of the study: what is trained, with which settings, and how those outside the pipeline are trained."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
from study_distances import factual, farther, styleless

from semdpo.data.records import Pair
from semdpo.engine import store
from semdpo.engine.providers import own_models
from semdpo.engine.stage import Run
from semdpo.progress import silent
from semdpo.recipe.load import load_recipe
from semdpo.recipe.objectives import SemDPOSettings
from semdpo.recipe.schema import Recipe

Settings = dict[str, dict[str, Any]]

RATES = (1e-5, 3e-5, 1e-4, 3e-4)
# The setting that each arm is tuned over besides the learning rate, with its two values.
STRENGTHS: dict[str, tuple[str, tuple[float, float]]] = {
    "dpo": ("beta", (0.05, 0.2)),
    "kto": ("beta", (0.05, 0.2)),
    "orpo": ("odds_weight", (0.1, 1.0)),
    "beta_dpo": ("beta", (0.05, 0.2)),
    "additive": ("strength", (0.5, 2.0)),
    "sem_dpo": ("alpha", (4.0, 16.0)),
    "dpo_nll": ("nll_coef", (0.1, 1.0)),
    "sem_dpo_nll": ("nll_coef", (0.1, 1.0)),
    "sem_dpo_farther": ("alpha", (4.0, 16.0)),
    "sem_dpo_facts": ("alpha", (4.0, 16.0)),
    "sem_dpo_styleless": ("alpha", (4.0, 16.0)),
}
# The arms that are trained outside the pipeline, because their distances are not the pipeline's.
DISTANCES = {"sem_dpo_farther": farther, "sem_dpo_facts": factual, "sem_dpo_styleless": styleless}
# The arms that are an objective of another name.
OBJECTIVES = {"dpo_nll": "dpo", "sem_dpo_nll": "sem_dpo"} | dict.fromkeys(DISTANCES, "sem_dpo")
SAME, SHUFFLED, SAMPLED = "dpo_same_settings", "sem_dpo_shuffled", "_sampled"
SFT = "sft"


def trials(arm: str) -> Settings:
    """The settings of each trial of an arm, by the trial's name."""
    key, values = STRENGTHS[arm]
    return {
        f"{arm}.{rate:g}.{value:g}": {"name": OBJECTIVES.get(arm, arm), "learning_rate": rate, key: value}
        for rate in RATES
        for value in values
    }


def is_outside(name: str) -> bool:
    """Whether an arm or a trial is trained outside the pipeline."""
    return name.split(".")[0] in DISTANCES or name == SHUFFLED


def recipe_of(seed: int, settings: Settings, own: list[str], overrides: list[str]) -> Recipe:
    """The demo's recipe with one seed for all random numbers, and with the methods that the pipeline trains."""
    seeds = ("sft.seed", "candidates.seed", "label.seed", "train.seed", "evaluate.rewrite.seed")
    inside = {name: each for name, each in settings.items() if not is_outside(name)}
    return load_recipe(
        "tiny",
        [
            *(f"{key}={seed}" for key in seeds), f"train.methods={json.dumps(inside or {'dpo': {'name': 'dpo'}})}",
            "label.fidelity=tiny:clip", "evaluate.keep_images=6", "evaluate.also={}", "sweep=null", "atoms=null",
            *own, *overrides,
        ],
    )  # fmt: skip


def rewriters(recipe: Recipe, greedy: dict[str, Path], sampled: dict[str, Path]) -> str:
    """The override that evaluates rewriters by their folders, written greedily or at temperature 1.

    The recipe's ``evaluate.also`` would sample every method of the pipeline, and none from outside it.
    """
    decoding = recipe.evaluate.rewrite.model_dump() | {"template": recipe.train.template}
    sampling = decoding | {"temperature": 1.0, "top_p": recipe.candidates.top_p}
    every = [(name, folder, decoding) for name, folder in greedy.items()]
    every += [(name + SAMPLED, folder, sampling) for name, folder in sampled.items()]
    return f"evaluate.rewriters={json.dumps({name: how | {'model': str(folder)} for name, folder, how in every})}"


def train_outside(run: Path, recipe: Recipe, name: str, settings: dict[str, Any]) -> Path:
    """Sem-DPO with other distances, or with its own ones shuffled among the pairs; returns the rewriter's folder."""
    from semdpo.training.preference import train

    output, record = run / name, run / f"{name}.json"
    key = [recipe.train.seed, settings, *(store.manifest_hash(run / stage) for stage in (SFT, "drift"))]
    if output.is_dir() and record.is_file() and json.loads(record.read_text()) == key:
        return output
    pairs = Run(run, recipe, own_models()).rows("drift", Pair)
    if name == SHUFFLED:
        shuffled = np.random.default_rng(recipe.train.seed).permutation([pair.distance or 0.0 for pair in pairs])
        distances = [float(d) for d in shuffled]
    else:
        distances = DISTANCES[name.split(".")[0]](pairs)
    pairs = [dataclasses.replace(pair, distance=d) for pair, d in zip(pairs, distances, strict=True)]
    train(pairs, str(run / SFT), SemDPOSettings(**settings), recipe.train, output, run / "reference", silent)
    record.write_text(json.dumps(key))
    return output
