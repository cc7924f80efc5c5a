"""The study of docs/results.md: all objectives on the tiny world, tuned equally, over several training seeds.

    python benchmarks/study.py --out runs/study

Tuning: every arm gets six trials (three learning rates by two values of its own strength), trained with seed 0 and
scored on 200 tuning prompts by the two scorers that take part in training. `semdpo.analysis.selection` picks one trial
per arm. The arms are six objectives, and Sem-DPO with two other distances (`study_distances`).

Reporting: every seed is a whole run (its own SFT, candidates, images, pairs, trainings, image seed) with the picked
settings, on three sets of 200 prompts that were not used in tuning, written greedily and at temperature 1. Controls
are trained too: DPO at all learning rates, DPO with what was picked for Sem-DPO, and Sem-DPO with its weights shuffled
among the pairs, so that they are as small but do not depend on meaning.

The same command resumes a stopped study. benchmarks/study_tables.py makes the tables of the results.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from pathlib import Path
from typing import Any

from semdpo.progress import quiet_libraries, say, share_the_cpu, silent

share_the_cpu()  # before torch is imported

import numpy as np
import pandas as pd
from study_distances import factual, styleless

from semdpo import pipeline
from semdpo.analysis.selection import choose
from semdpo.analysis.statistics import prompt_means
from semdpo.data.records import EvaluationRow, Pair
from semdpo.engine import store
from semdpo.engine.providers import own_models
from semdpo.engine.stage import Run
from semdpo.recipe.load import load_recipe
from semdpo.recipe.objectives import SemDPOSettings
from semdpo.recipe.schema import Recipe
from semdpo.reporting.evaluated import evaluation_rows
from semdpo.stages.evaluate import evaluation

RATES = (1e-5, 3e-5, 1e-4)
# The setting that each arm is tuned over besides the learning rate, with its two values.
STRENGTHS: dict[str, tuple[str, tuple[float, float]]] = {
    "dpo": ("beta", (0.05, 0.2)),
    "kto": ("beta", (0.05, 0.2)),
    "orpo": ("odds_weight", (0.1, 1.0)),
    "beta_dpo": ("beta", (0.05, 0.2)),
    "additive": ("strength", (0.5, 2.0)),
    "sem_dpo": ("alpha", (4.0, 16.0)),
    "sem_dpo_facts": ("alpha", (4.0, 16.0)),
    "sem_dpo_styleless": ("alpha", (4.0, 16.0)),
}
# The arms that are trained outside the pipeline, because their distances are not the pipeline's.
DISTANCES = {"sem_dpo_facts": factual, "sem_dpo_styleless": styleless}
SETS = ("one-thing", "two-things", "unseen")
PROMPTS = 200  # of each set, and for tuning
SAME, SHUFFLED = "dpo_same_settings", "sem_dpo_shuffled"
TUNING_SEED, FLOOR, FIDELITY, PREFERENCE = 0, "sft", "clip", "image_reward"
BEFORE_TRAINING = ("prompts", "sft", "candidates", "label", "pairs", "drift")


def objective_of(arm: str) -> str:
    """The objective that an arm trains with."""
    return "sem_dpo" if arm in DISTANCES else arm


def trials() -> dict[str, dict[str, Any]]:
    """The settings of each trial's objective, by the trial's name."""
    return {
        f"{arm}.{rate:g}.{value:g}": {"name": objective_of(arm), "learning_rate": rate, key: value}
        for arm, (key, values) in STRENGTHS.items()
        for rate in RATES
        for value in values
    }


def arm_of(trial: str) -> str:
    """The arm that a trial belongs to."""
    return trial.split(".")[0]


def recipe_of(seed: int, settings: dict[str, dict[str, Any]], own: list[str], overrides: list[str]) -> Recipe:
    """The demo's recipe with one seed for all random numbers, and with the methods to train."""
    seeds = ("sft.seed", "candidates.seed", "label.seed", "train.seed", "evaluate.rewrite.seed")
    inside = {name: each for name, each in settings.items() if arm_of(name) not in DISTANCES}
    return load_recipe(
        "tiny",
        [
            *(f"{key}={seed}" for key in seeds), f"train.methods={json.dumps(inside)}",
            "label.fidelity=tiny:clip", "evaluate.keep_images=6", "sweep=null", *own, *overrides,
        ],
    )  # fmt: skip


def others(recipe: Recipe, folders: dict[str, Path], decodings: dict[str, dict[str, Any]]) -> str:
    """The override that evaluates rewriters from outside the pipeline, each with every decoding."""
    rewriters = {
        name + suffix: decoding | {"model": str(folder), "template": recipe.train.template}
        for name, folder in folders.items()
        for suffix, decoding in decodings.items()
    }
    return f"evaluate.rewriters={json.dumps(rewriters)}"


def rows_of(folder: Path, recipe: Recipe) -> list[EvaluationRow]:
    """The evaluation's rows of a finished run."""
    return evaluation_rows(evaluation(recipe), Run(folder, recipe, own_models()))


def tune(folder: Path, overrides: list[str]) -> dict[str, dict[str, Any]]:
    """Runs all trials, and picks one for each arm."""
    done = folder / "tuned.json"
    scorers = {FIDELITY: "tiny:clip", PREFERENCE: "tiny:image-reward"}
    own = [
        "prompts.test_file=tiny:tuning.jsonl", f"prompts.test_limit={PROMPTS}", "evaluate.image_seeds=[100]",
        f"evaluate.metrics={json.dumps(scorers)}", f"report.fidelity=[{FIDELITY}]", f"report.preference=[{PREFERENCE}]",
        "report.subject=sft", "report.baseline=human", "evaluate.also={}",
    ]  # fmt: skip
    recipe = recipe_of(TUNING_SEED, trials(), own, overrides)
    saved = json.loads(done.read_text()) if done.is_file() else {}
    if saved.get("recipe") == recipe.model_dump(mode="json") and saved["picked"].keys() == STRENGTHS.keys():
        return saved["picked"]
    run = folder / "tuning"
    for stage in (*BEFORE_TRAINING, "train"):
        pipeline.run(recipe, run, only=stage)
    outside = {name: each for name, each in trials().items() if arm_of(name) in DISTANCES}
    folders = {name.replace(".", "_"): train_outside(run, recipe, name, each) for name, each in outside.items()}
    decodings = {"": recipe.evaluate.rewrite.model_dump()}
    evaluated = recipe_of(TUNING_SEED, trials(), [*own, others(recipe, folders, decodings)], overrides)
    pipeline.run(evaluated, run, only="evaluate")  # no report, which would compare all trials with each other
    frame = pd.DataFrame(
        {"method": r.method, "prompt_id": r.prompt_id, "image_seed": r.image_seed} | r.metrics
        for r in rows_of(run, evaluated)
    )
    frame["method"] = frame["method"].replace({name.replace(".", "_"): name for name in outside})
    picked = pick(frame, folder)
    done.write_text(json.dumps({"recipe": recipe.model_dump(mode="json"), "picked": picked}, indent=1))
    return picked


def pick(frame: pd.DataFrame, folder: Path) -> dict[str, dict[str, Any]]:
    """One trial for each arm, by the rule; writes all of them to ``trials.csv``."""
    fidelity, preference = prompt_means(frame, FIDELITY), prompt_means(frame, PREFERENCE)
    picked: dict[str, dict[str, Any]] = {}
    table = []
    for arm in STRENGTHS:
        names = [name for name in trials() if arm_of(name) == arm]
        choice = choose(fidelity[names], preference[names], fidelity[FLOOR].to_numpy())
        picked[arm] = trials()[choice.setting]
        table += [
            {"trial": n, FIDELITY: fidelity[n].mean(), PREFERENCE: preference[n].mean(),
             "above_floor": choice.above_floor[n], "picked": n == choice.setting}
            for n in names
        ]  # fmt: skip
        say(f"{arm}: {choice.setting}, {choice.reason}")
    pd.DataFrame(table).to_csv(folder / "trials.csv", index=False)
    return picked


def train_outside(run: Path, recipe: Recipe, name: str, settings: dict[str, Any]) -> Path:
    """Sem-DPO with other distances, or with its own ones shuffled among the pairs; returns the rewriter's folder."""
    from semdpo.training.preference import train

    output, record = run / name.replace(".", "_"), run / f"{name}.json"
    key = [recipe.train.seed, settings, *(store.manifest_hash(run / stage) for stage in ("sft", "drift"))]
    if output.is_dir() and record.is_file() and json.loads(record.read_text()) == key:
        return output
    pairs = Run(run, recipe, own_models()).rows("drift", Pair)
    if name == SHUFFLED:
        distances = list(np.random.default_rng(recipe.train.seed).permutation([pair.distance for pair in pairs]))
    else:
        distances = DISTANCES[arm_of(name)](pairs)
    pairs = [dataclasses.replace(pair, distance=float(d)) for pair, d in zip(pairs, distances, strict=True)]
    train(pairs, str(run / "sft"), SemDPOSettings(**settings), recipe.train, output, run / "reference", silent)
    record.write_text(json.dumps(key))
    return output


def report_on(seed: int, picked: dict[str, dict[str, Any]], folder: Path, overrides: list[str]) -> pd.DataFrame:
    """One whole run with the picked settings, on the three sets."""
    controls = {SAME: {"name": "dpo", "learning_rate": picked["sem_dpo"]["learning_rate"]}}
    controls |= {f"dpo_rate_{k}": picked["dpo"] | {"learning_rate": rate} for k, rate in enumerate(RATES, 1)}
    sets = {name: {"file": f"tiny:{name}.jsonl", "limit": PROMPTS} for name in SETS}
    own = ["prompts.test_file=null", f"prompts.test_sets={json.dumps(sets)}", f"evaluate.image_seeds=[{seed}]"]
    run = folder / f"seed-{seed}"
    recipe = recipe_of(seed, picked | controls, own, overrides)
    for stage in BEFORE_TRAINING:
        pipeline.run(recipe, run, only=stage)
    outside = {arm: picked[arm] for arm in DISTANCES} | {SHUFFLED: picked["sem_dpo"]}
    folders = {name: train_outside(run, recipe, name, settings) for name, settings in outside.items()}
    decodings = {"": recipe.evaluate.rewrite.model_dump()}
    decodings |= {f"_{name}": each.model_dump() for name, each in recipe.evaluate.also.items()}
    recipe = recipe_of(seed, picked | controls, [*own, others(recipe, folders, decodings)], overrides)
    pipeline.run(recipe, run)
    return pd.DataFrame(
        {
            "train_seed": seed, "method": r.method, "source": r.source, "prompt_id": r.prompt_id, "prompt": r.prompt,
            "image_seed": r.image_seed, "rewrite": r.rewrite, "tokens": r.tokens, "distance": r.distance,
        } | r.metrics
        for r in rows_of(run, recipe)
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[21, 22, 23, 24, 25])
    parser.add_argument("--out", type=Path, default=Path("runs/study"))
    parser.add_argument("--set", dest="overrides", action="append", default=[], help="as for semdpo run")
    arguments = parser.parse_args()
    quiet_libraries()
    begun = time.monotonic()
    arguments.out.mkdir(parents=True, exist_ok=True)
    picked = tune(arguments.out, arguments.overrides)
    frames = [report_on(seed, picked, arguments.out, arguments.overrides) for seed in arguments.seeds]
    pd.concat(frames).to_csv(arguments.out / "evaluation.csv", index=False)
    say(f"{(time.monotonic() - begun) / 60:.0f} minutes in this process; wrote {arguments.out}/evaluation.csv")


if __name__ == "__main__":
    main()
