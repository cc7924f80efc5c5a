"""All objectives on the tiny world, tuned alike, over several training seeds: the study of docs/results.md.

    python benchmarks/study.py --out runs/study

Tuning: every objective gets six trials (three learning rates by two values of its own strength), trained with seed 0
and judged on 200 tuning prompts by the two judges that took part in training. `semdpo.selection` picks one trial each.

Reporting: every seed is a whole run (its own SFT, candidates, pictures, pairs, trainings, image seed) with the picked
settings, on three sets of 200 prompts that no tuning has seen. Stopped, the same command goes on from there.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from semdpo.progress import quiet_libraries, say, share_the_processor

share_the_processor()  # before torch is imported

import pandas as pd

from semdpo import pipeline
from semdpo.flow import evaluation
from semdpo.parts import real_parts
from semdpo.recipe import load_recipe
from semdpo.records import EvaluationRow
from semdpo.selection import choose
from semdpo.stage import Run
from semdpo.statistics import prompt_means

RATES = (5e-5, 1e-4, 2e-4)
# What each objective is tuned over beside the learning rate: setting and its two values.
STRENGTHS: dict[str, tuple[str, tuple[float, float]]] = {
    "dpo": ("beta", (0.05, 0.2)),
    "kto": ("beta", (0.05, 0.2)),
    "orpo": ("odds_weight", (0.1, 1.0)),
    "beta_dpo": ("beta", (0.05, 0.2)),
    "additive": ("strength", (0.5, 2.0)),
    "sem_dpo": ("alpha", (4.0, 8.0)),
}
SETS = ("one-thing", "two-things", "unseen")
TUNING_SEED, FLOOR, FIDELITY, PREFERENCE = 0, "sft", "clip", "image_reward"
SHARED = ["label.fidelity=tiny:clip", "evaluate.keep_images=6"]
STAGES = ("prompts", "sft", "candidates", "label", "pairs", "weigh", "train", "evaluate")


def trials() -> dict[str, dict[str, Any]]:
    """Name of each trial to its objective's settings."""
    return {
        f"{name}.{rate:g}.{value:g}": {"name": name, "learning_rate": rate, key: value}
        for name, (key, values) in STRENGTHS.items()
        for rate in RATES
        for value in values
    }


def seeded(seed: int) -> list[str]:
    return [
        f"{key}={seed}" for key in ("sft.seed", "candidates.seed", "label.seed", "train.seed", "evaluate.rewrite.seed")
    ]


def methods(settings: dict[str, dict[str, Any]]) -> str:
    return f"train.methods={json.dumps(settings)}"


def rows_of(folder: Path) -> list[EvaluationRow]:
    """The evaluation of a finished run."""
    recipe = pipeline.recipe_of(folder)
    return evaluation(recipe).rows(Run(folder, recipe, real_parts()))


def tune(folder: Path) -> dict[str, dict[str, Any]]:
    """Runs all trials and picks one for each objective."""
    done = folder / "tuned.json"
    if done.is_file():
        return json.loads(done.read_text())
    judges = {FIDELITY: "tiny:clip", PREFERENCE: "tiny:image-reward"}
    recipe = load_recipe(
        "tiny",
        [
            *SHARED, *seeded(TUNING_SEED), methods(trials()),
            "prompts.test_file=tiny:tuning.jsonl", "prompts.test_limit=200", "evaluate.image_seeds=[100]",
            f"evaluate.metrics={json.dumps(judges)}", f"report.fidelity=[{FIDELITY}]",
            f"report.preference=[{PREFERENCE}]", "sweep=null",
        ],
    )  # fmt: skip
    for stage in STAGES:  # no report, which would compare 36 methods with each other
        pipeline.run(recipe, folder / "tuning", only=stage)
    frame = pd.DataFrame(
        {"method": r.method, "prompt_id": r.prompt_id, "image_seed": r.image_seed} | r.metrics
        for r in rows_of(folder / "tuning")
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
    done.write_text(json.dumps(picked, indent=1))
    return picked


def report_on(seed: int, picked: dict[str, dict[str, Any]], folder: Path) -> pd.DataFrame:
    """One whole run with the picked settings, on the three sets."""
    sets = {name: {"file": f"tiny:{name}.jsonl", "limit": 200} for name in SETS}
    recipe = load_recipe(
        "tiny",
        [
            *SHARED, *seeded(seed), methods(picked), "prompts.test_file=null", f"prompts.test_sets={json.dumps(sets)}",
            f"evaluate.image_seeds=[{seed}]", "sweep=null",
        ],
    )  # fmt: skip
    pipeline.run(recipe, folder / f"seed-{seed}")
    return pd.DataFrame(
        {
            "train_seed": seed, "method": r.method, "source": r.source, "prompt_id": r.prompt_id, "prompt": r.prompt,
            "image_seed": r.image_seed, "rewrite": r.rewrite, "tokens": r.tokens, "drift": r.distance,
        } | r.metrics
        for r in rows_of(folder / f"seed-{seed}")
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[21, 22, 23, 24, 25])
    parser.add_argument("--out", type=Path, default=Path("runs/study"))
    arguments = parser.parse_args()
    quiet_libraries()
    begun = time.monotonic()
    arguments.out.mkdir(parents=True, exist_ok=True)
    picked = tune(arguments.out)
    frames = [report_on(seed, picked, arguments.out) for seed in arguments.seeds]
    pd.concat(frames).to_csv(arguments.out / "evaluation.csv", index=False)
    say(f"{(time.monotonic() - begun) / 60:.0f} minutes in this process; wrote {arguments.out}/evaluation.csv")


if __name__ == "__main__":
    main()
