"""The study of docs/results.md: all objectives on the tiny world, tuned equally, over several training seeds.

    python benchmarks/study.py --out runs/study

Tuning: every arm of `study_arms` gets eight trials (four learning rates by two values of its own strength), trained
with seed 0 and scored on 200 tuning prompts by the two scorers that take part in training. The rule of
`semdpo.analysis.selection` picks one trial per arm. The arms are six objectives, two of them also with the chosen
rewrites' likelihood as a second term, and Sem-DPO with three other distances (`study_distances`).

Reporting: every seed is a whole run (its own SFT, candidates, images, pairs, trainings, image seed) with the picked
settings, on three sets of 200 prompts that were not used in tuning, written greedily, and the objectives and weights
also at temperature 1. Controls are trained too: DPO at all learning rates, DPO with what was picked for Sem-DPO, and
Sem-DPO with its weights shuffled among the pairs, so that they are as small but do not depend on meaning.

Tuning runs arm by arm and reporting seed by seed, in `--jobs` processes of one thread each. The same command resumes a
stopped study. benchmarks/study_tables.py makes the tables of the results.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from semdpo.progress import quiet_libraries, say, share_the_cpu

share_the_cpu()  # before torch is imported

import pandas as pd
from study_arms import (
    DISTANCES,
    OBJECTIVES,
    RATES,
    SAME,
    SFT,
    SHUFFLED,
    STRENGTHS,
    Settings,
    is_outside,
    recipe_of,
    rewriters,
    train_outside,
    trials,
)

from semdpo import pipeline
from semdpo.analysis.selection import choose
from semdpo.analysis.statistics import prompt_means
from semdpo.data.records import EvaluationRow
from semdpo.engine.providers import own_models
from semdpo.engine.stage import Run
from semdpo.recipe.schema import Recipe
from semdpo.reporting.evaluated import evaluation_rows
from semdpo.stages.evaluate import evaluation

SETS = ("one-thing", "two-things", "unseen")
PROMPTS = 200  # of each set, and for tuning
TUNING_SEED, FIDELITY, PREFERENCE = 0, "clip", "image_reward"
SHARED = "shared"
BEFORE_TRAINING = ("prompts", "sft", "candidates", "label", "pairs", "drift")


def run_stages(recipe: Recipe, run: Path, stages: Sequence[str]) -> None:
    """Runs some stages of a recipe."""
    for stage in stages:
        pipeline.run(recipe, run, only=stage)


def rows_of(folder: Path, recipe: Recipe) -> list[EvaluationRow]:
    """The evaluation's rows of a finished run."""
    return evaluation_rows(evaluation(recipe), Run(folder, recipe, own_models()))


def tuning_overrides() -> list[str]:
    """What tuning changes of the demo's recipe: the prompts, and the scorers, which are those of training."""
    scorers = {FIDELITY: "tiny:clip", PREFERENCE: "tiny:image-reward"}
    return [
        "prompts.test_file=tiny:tuning.jsonl", f"prompts.test_limit={PROMPTS}", "evaluate.image_seeds=[100]",
        f"evaluate.metrics={json.dumps(scorers)}", f"report.fidelity=[{FIDELITY}]", f"report.preference=[{PREFERENCE}]",
        f"report.subject={SFT}", "report.baseline=human",
    ]  # fmt: skip


def prepare(folder: Path, overrides: list[str]) -> None:
    """Runs the stages that all trials share, once."""
    run = folder / "tuning" / SHARED
    run_stages(recipe_of(TUNING_SEED, {}, tuning_overrides(), overrides), run, BEFORE_TRAINING)


def tune(arm: str, folder: Path, overrides: list[str]) -> Path:
    """Runs the trials of one arm; returns the file with the settings that the rule picked and a row per trial."""
    own = tuning_overrides()
    recipe, run = recipe_of(TUNING_SEED, trials(arm), own, overrides), folder / "tuning" / arm
    if not run.exists():
        shutil.copytree(folder / "tuning" / SHARED, run)
    done, key = run / "picked.json", recipe.model_dump(mode="json") | {"trials": trials(arm)}
    if done.is_file() and json.loads(done.read_text())["key"] == key:
        return done
    run_stages(recipe, run, (*BEFORE_TRAINING, "train"))
    outside = {name: each for name, each in trials(arm).items() if is_outside(name)}
    folders = {name: train_outside(run, recipe, name, each) for name, each in outside.items()}
    evaluated = recipe_of(TUNING_SEED, trials(arm), [*own, rewriters(recipe, folders, {})], overrides)
    pipeline.run(evaluated, run, only="evaluate")  # no report, which would compare the trials with each other
    frame = pd.DataFrame(
        {"method": r.method, "prompt_id": r.prompt_id, "image_seed": r.image_seed} | r.metrics
        for r in rows_of(run, evaluated)
    )
    done.write_text(json.dumps(picked_from(frame, arm) | {"key": key}, indent=1))
    return done


def picked_from(frame: pd.DataFrame, arm: str) -> dict[str, Any]:
    """The trial of an arm that the rule picks, why, and what all of them scored."""
    fidelity, preference = prompt_means(frame, FIDELITY), prompt_means(frame, PREFERENCE)
    names = list(trials(arm))
    choice = choose(fidelity[names], preference[names], fidelity[SFT].to_numpy())
    say(f"{arm}: {choice.setting}, {choice.reason}")
    rows = [
        {"trial": name, FIDELITY: fidelity[name].mean(), PREFERENCE: preference[name].mean(),
         "above_floor": bool(choice.above_floor[name]), "picked": name == choice.setting}
        for name in names
    ]  # fmt: skip
    return {"settings": trials(arm)[choice.setting], "rows": rows}


def report_on(seed: int, picked: Settings, folder: Path, overrides: list[str]) -> Path:
    """One whole run with the picked settings, on the three sets; returns the file of its rows."""
    settings = picked | {SAME: {"name": "dpo", "learning_rate": picked["sem_dpo"]["learning_rate"]}}
    other_rates = {f"dpo_rate_{k}": picked["dpo"] | {"learning_rate": rate} for k, rate in enumerate(RATES, 1)}
    settings |= {name: each for name, each in other_rates.items() if each != picked["dpo"]}
    sets = {name: {"file": f"tiny:{name}.jsonl", "limit": PROMPTS} for name in SETS}
    own = ["prompts.test_file=null", f"prompts.test_sets={json.dumps(sets)}", f"evaluate.image_seeds=[{seed}]"]
    run = folder / f"seed-{seed}"
    recipe = recipe_of(seed, settings, own, overrides)
    run_stages(recipe, run, (*BEFORE_TRAINING, "train"))
    outside = {name: each for name, each in picked.items() if is_outside(name)} | {SHUFFLED: picked["sem_dpo"]}
    greedy = {name: train_outside(run, recipe, name, each) for name, each in outside.items()}
    inside = [name for name in (*picked, SAME) if name not in OBJECTIVES]
    sampled = {
        SFT: run / SFT,
        **{name: run / "train" / name for name in inside},
        **{name: greedy[name] for name in (*DISTANCES, SHUFFLED)},
    }
    recipe = recipe_of(seed, settings, [*own, rewriters(recipe, greedy, sampled)], overrides)
    pipeline.run(recipe, run)
    frame = pd.DataFrame(
        {
            "train_seed": seed, "method": r.method, "source": r.source, "prompt_id": r.prompt_id, "prompt": r.prompt,
            "image_seed": r.image_seed, "rewrite": r.rewrite, "tokens": r.tokens, "distance": r.distance,
        } | r.metrics
        for r in rows_of(run, recipe)
    )  # fmt: skip
    frame.to_csv(run / "evaluation.csv", index=False)
    return run / "evaluation.csv"


def in_processes(jobs: int, work: Callable[..., Path], each: Sequence[Any], *shared: Any) -> list[Path]:
    """Calls ``work(one, *shared)`` for all of ``each``, in ``jobs`` processes, or here if that is 1."""
    if jobs == 1:
        return [work(one, *shared) for one in each]
    os.environ["OMP_NUM_THREADS"] = "1"
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), quiet_libraries) as pool:
        return [future.result() for future in [pool.submit(work, one, *shared) for one in each]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[21, 22, 23, 24, 25])
    parser.add_argument("--out", type=Path, default=Path("runs/study"))
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time")
    parser.add_argument("--set", dest="overrides", action="append", default=[], help="as for semdpo run")
    arguments = parser.parse_args()
    quiet_libraries()
    begun, out, overrides = time.monotonic(), arguments.out, arguments.overrides
    prepare(out, overrides)
    tuned = [json.loads(p.read_text()) for p in in_processes(arguments.jobs, tune, list(STRENGTHS), out, overrides)]
    picked = {arm: each["settings"] for arm, each in zip(STRENGTHS, tuned, strict=True)}
    (out / "tuned.json").write_text(json.dumps(picked, indent=1))
    pd.DataFrame(row for each in tuned for row in each["rows"]).to_csv(out / "trials.csv", index=False)
    files = in_processes(arguments.jobs, report_on, arguments.seeds, picked, out, overrides)
    pd.concat(map(pd.read_csv, files)).to_csv(out / "evaluation.csv", index=False)
    say(f"{(time.monotonic() - begun) / 60:.0f} minutes in this process; wrote {out}/evaluation.csv")


if __name__ == "__main__":
    main()
