"""The study of docs/results.md: all objectives on the tiny world, tuned equally, over several training seeds.

    python benchmarks/study.py --out runs/study

Tuning: every objective gets eight trials (four learning rates by two values of its own strength), trained with seed 0
and scored on 200 tuning prompts by the two scorers that take part in training. `semdpo.analysis.selection` picks one
trial per objective.

Reporting: every seed is a whole run (its own SFT, candidates, images, pairs, trainings, image seed) with the picked
settings, on three sets of 200 prompts that were not used in tuning. Two controls are trained too, with the learning
rate and beta that were picked for Sem-DPO: DPO, and Sem-DPO with its weights shuffled among the pairs, so that they are
as small but do not depend on meaning.

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

from semdpo import pipeline
from semdpo.analysis.selection import choose
from semdpo.analysis.semantics import semantic_weight
from semdpo.analysis.statistics import prompt_means
from semdpo.data.records import EvaluationRow, Pair
from semdpo.engine import store
from semdpo.engine.providers import own_models
from semdpo.engine.stage import Run
from semdpo.recipe.load import load_recipe
from semdpo.recipe.objectives import DPOSettings
from semdpo.recipe.schema import Recipe
from semdpo.reporting.evaluated import evaluation_rows
from semdpo.stages.evaluate import evaluation

RATES = (5e-5, 1e-4, 2e-4, 4e-4)
# The setting that each objective is tuned over besides the learning rate, with its two values.
STRENGTHS: dict[str, tuple[str, tuple[float, float]]] = {
    "dpo": ("beta", (0.05, 0.2)),
    "kto": ("beta", (0.05, 0.2)),
    "orpo": ("odds_weight", (0.1, 1.0)),
    "beta_dpo": ("beta", (0.05, 0.2)),
    "additive": ("strength", (0.5, 2.0)),
    "sem_dpo": ("alpha", (4.0, 8.0)),
}
SETS = ("one-thing", "two-things", "unseen")
PROMPTS = 200  # of each set, and for tuning
SAME, SHUFFLED = "dpo_same_settings", "sem_dpo_shuffled"
TUNING_SEED, FLOOR, FIDELITY, PREFERENCE = 0, "sft", "clip", "image_reward"
BEFORE_TRAINING = ("prompts", "sft", "candidates", "label", "pairs", "drift")


def trials() -> dict[str, dict[str, Any]]:
    """The settings of each trial's objective, by the trial's name."""
    return {
        f"{name}.{rate:g}.{value:g}": {"name": name, "learning_rate": rate, key: value}
        for name, (key, values) in STRENGTHS.items()
        for rate in RATES
        for value in values
    }


def recipe_of(seed: int, settings: dict[str, dict[str, Any]], own: list[str], overrides: list[str]) -> Recipe:
    """The demo's recipe with one seed for all random numbers, and with the methods to train."""
    seeds = ("sft.seed", "candidates.seed", "label.seed", "train.seed", "evaluate.rewrite.seed")
    return load_recipe(
        "tiny",
        [
            *(f"{key}={seed}" for key in seeds), f"train.methods={json.dumps(settings)}",
            "label.fidelity=tiny:clip", "evaluate.keep_images=6", "evaluate.also={}", "sweep=null", *own, *overrides,
        ],
    )  # fmt: skip


def rows_of(folder: Path, recipe: Recipe) -> list[EvaluationRow]:
    """The evaluation's rows of a finished run."""
    return evaluation_rows(evaluation(recipe), Run(folder, recipe, own_models()))


def tune(folder: Path, overrides: list[str]) -> dict[str, dict[str, Any]]:
    """Runs all trials, and picks one for each objective."""
    done = folder / "tuned.json"
    scorers = {FIDELITY: "tiny:clip", PREFERENCE: "tiny:image-reward"}
    own = [
        "prompts.test_file=tiny:tuning.jsonl", f"prompts.test_limit={PROMPTS}", "evaluate.image_seeds=[100]",
        f"evaluate.metrics={json.dumps(scorers)}", f"report.fidelity=[{FIDELITY}]", f"report.preference=[{PREFERENCE}]",
        "report.subject=sft", "report.baseline=human",
    ]  # fmt: skip
    recipe = recipe_of(TUNING_SEED, trials(), own, overrides)
    saved = json.loads(done.read_text()) if done.is_file() else {}
    if saved.get("recipe") == recipe.model_dump(mode="json"):
        return saved["picked"]
    for stage in (*BEFORE_TRAINING, "train", "evaluate"):  # no report, which would compare all trials with each other
        pipeline.run(recipe, folder / "tuning", only=stage)
    frame = pd.DataFrame(
        {"method": r.method, "prompt_id": r.prompt_id, "image_seed": r.image_seed} | r.metrics
        for r in rows_of(folder / "tuning", recipe)
    )
    fidelity, preference = prompt_means(frame, FIDELITY), prompt_means(frame, PREFERENCE)
    picked: dict[str, dict[str, Any]] = {}
    table = []
    for objective in STRENGTHS:
        names = [name for name in trials() if name.startswith(f"{objective}.")]
        choice = choose(fidelity[names], preference[names], fidelity[FLOOR].to_numpy())
        picked[objective] = trials()[choice.setting]
        table += [
            {"trial": n, FIDELITY: fidelity[n].mean(), PREFERENCE: preference[n].mean(),
             "above_floor": choice.above_floor[n], "picked": n == choice.setting}
            for n in names
        ]  # fmt: skip
        say(f"{objective}: {choice.setting}, {choice.reason}")
    pd.DataFrame(table).to_csv(folder / "trials.csv", index=False)
    done.write_text(json.dumps({"recipe": recipe.model_dump(mode="json"), "picked": picked}, indent=1))
    return picked


def train_shuffled(run: Path, recipe: Recipe, sem_dpo: dict[str, Any], seed: int) -> Path:
    """Sem-DPO with its weights shuffled among the pairs; returns the rewriter's folder."""
    from semdpo.training.preference import train

    output = run / SHUFFLED
    key, record = [seed, sem_dpo, *(store.manifest_hash(run / s) for s in ("sft", "drift"))], run / f"{SHUFFLED}.json"
    if output.is_dir() and record.is_file() and json.loads(record.read_text()) == key:
        return output
    pairs = Run(run, recipe, own_models()).rows("drift", Pair)
    weights = semantic_weight([pair.distance or 0.0 for pair in pairs], sem_dpo["alpha"])
    shuffled = np.random.default_rng(seed).permutation(weights)
    pairs = [dataclasses.replace(pair, weight=float(w)) for pair, w in zip(pairs, shuffled, strict=True)]
    objective = DPOSettings(name="dpo", learning_rate=sem_dpo["learning_rate"])
    train(pairs, str(run / "sft"), objective, recipe.train, output, run / "reference", silent)
    record.write_text(json.dumps(key))
    return output


def report_on(seed: int, picked: dict[str, dict[str, Any]], folder: Path, overrides: list[str]) -> pd.DataFrame:
    """One whole run with the picked settings, on the three sets."""
    settings = picked | {SAME: {"name": "dpo", "learning_rate": picked["sem_dpo"]["learning_rate"]}}
    sets = {name: {"file": f"tiny:{name}.jsonl", "limit": PROMPTS} for name in SETS}
    own = ["prompts.test_file=null", f"prompts.test_sets={json.dumps(sets)}", f"evaluate.image_seeds=[{seed}]"]
    run = folder / f"seed-{seed}"
    recipe = recipe_of(seed, settings, own, overrides)
    for stage in BEFORE_TRAINING:
        pipeline.run(recipe, run, only=stage)
    shuffled = train_shuffled(run, recipe, picked["sem_dpo"], seed)
    decoding = recipe.evaluate.rewrite.model_dump() | {"model": str(shuffled), "template": recipe.train.template}
    own.append(f"evaluate.rewriters={json.dumps({SHUFFLED: decoding})}")
    recipe = recipe_of(seed, settings, own, overrides)
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
