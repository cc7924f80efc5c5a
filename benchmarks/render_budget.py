"""What a render budget saves on the tiny world, and what it costs: the figures of docs/howto/render-budget.md.

    python benchmarks/render_budget.py --out runs/render-budget

Every seed is a whole run with the demo's Sem-DPO (its own SFT, candidates, images, pairs, training, image seed),
trained three times: on all pairs; on those that the budget keeps, with as many epochs, so with fewer updates; and on
the same with as many updates as on all pairs. All are compared on three sets of prompts that took no part in training,
written greedily and at temperature 1. Intervals generalise over prompts and training seeds
(`statistics.crossed_interval`). The budget's images are those of the whole run, so that their scores are taken from
there; `--render-again` renders them a second time. The same command resumes a stopped benchmark.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from semdpo.progress import quiet_libraries, say, share_the_cpu

share_the_cpu()  # before torch is imported

import numpy as np
import pandas as pd
from PIL import Image
from study import BEFORE_TRAINING, SETS, rows_of, run_stages
from study_arms import SAMPLED, SFT, recipe_of, rewriters
from study_tables import crossed, grid, head, table, with_facts

from semdpo import pipeline
from semdpo.analysis.semantics import effective_sample_size, semantic_weight
from semdpo.data.records import Candidate, Pair, RenderDraw, Score
from semdpo.engine import store
from semdpo.engine.providers import Models, own_models
from semdpo.progress import silent
from semdpo.protocols import ScoreBatch
from semdpo.recipe.load import load_recipe
from semdpo.recipe.schema import Recipe

ALL, FEWER, SAME = "sem_dpo", "budget", "budget_same_updates"
NAMES = {ALL: "all", FEWER: "budget, same epochs", SAME: "budget, same updates", SFT: "SFT"}
COLUMNS = ["clip_b", "blip_itm", "hps", "pickscore", "wrong", "added", "distance"]
ALPHAS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
SHARED = ("prompts", "sft", "candidates")


def recipe_for(seed: int, prompts: int, overrides: Sequence[str], *own: str) -> Recipe:
    """The demo's recipe with its Sem-DPO alone, on the study's three sets."""
    settings = {ALL: load_recipe("tiny").train.methods[ALL].model_dump(exclude_none=True)}
    sets = {name: {"file": f"tiny:{name}.jsonl", "limit": prompts} for name in SETS}
    shown = [
        "label.fidelity=null", "report.baseline=sft", "prompts.test_file=null", f"prompts.test_sets={json.dumps(sets)}",
        f"evaluate.image_seeds=[{seed}]",
    ]  # fmt: skip
    return recipe_of(seed, settings, [*shown, *own], list(overrides))


class Remembered:
    """Stands for renderer and scorer, and gives the scores of a run that rendered the same candidates.

    Args:
        run: the run's folder.
    """

    def __init__(self, run: Path) -> None:
        rows = {row.candidate_id: row for row in store.read_rows(run / "candidates", Candidate)}
        scores = store.read_rows(run / "label", Score)
        self.scores = {(rows[s.candidate_id].prompt, rows[s.candidate_id].rewrite): s.score for s in scores}

    def render(self, prompts: Sequence[str], _seeds: Sequence[int]) -> list[Image.Image]:
        images = [Image.new("RGB", (1, 1)) for _ in prompts]
        for image, rewrite in zip(images, prompts, strict=True):
            image.info["rewrite"] = rewrite
        return images

    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> ScoreBatch:
        keys = zip(prompts, (image.info["rewrite"] for image in images), strict=True)
        return ScoreBatch(np.array([self.scores[key] for key in keys]), np.zeros(len(prompts), bool))


def models_for(whole: Path, *, again: bool) -> Models:
    """A budget's models: semdpo's own, or with the scores of the whole run."""
    if again:
        return own_models()
    remembered = Remembered(whole)
    return replace(own_models(), renderer=lambda _: remembered, scorer=lambda *_: remembered)


def trained(
    folder: Path, seed: int, alpha: float, prompts: int, overrides: Sequence[str], *, again: bool
) -> dict[str, Path]:
    """The folders of the three rewriters of one seed."""
    from semdpo.training.preference import train

    whole, part = folder / "all", folder / "budget"
    recipe = recipe_for(seed, prompts, overrides)
    run_stages(recipe, whole, (*BEFORE_TRAINING, "train"))
    for name in SHARED:
        if not (part / name).exists():
            shutil.copytree(whole / name, part / name)
    budgeted = recipe_for(seed, prompts, overrides, f"render_budget={{alpha: {alpha}, seed: {seed}}}")
    run_stages(budgeted, part, ("render_budget",))
    pipeline.run(budgeted, part, only="label", models=models_for(whole, again=again))
    run_stages(budgeted, part, ("pairs", "drift", "train"))
    pairs, same = store.read_rows(part / "drift", Pair), part / SAME
    if not same.is_dir():
        everything = len(store.read_rows(whole / "drift", Pair))
        config = recipe.train.model_copy(update={"epochs": round(recipe.train.epochs * everything / len(pairs))})
        say(f"{SAME}: {len(pairs)} of {everything} pairs, {config.epochs} epochs")
        objective = recipe.train.methods[ALL]
        train(pairs, str(part / SFT), objective, config, same, part / "reference", silent)
    return {ALL: whole / "train" / ALL, FEWER: part / "train" / ALL, SAME: same}


def evaluated(
    out: Path, seed: int, alpha: float, prompts: int, overrides: Sequence[str], *, again: bool
) -> pd.DataFrame:
    """The rows of one seed's evaluation."""
    folder = out / f"seed-{seed}"
    folders = trained(folder, seed, alpha, prompts, overrides, again=again)
    recipe = recipe_for(seed, prompts, overrides)
    others = {name: path for name, path in folders.items() if name != ALL}
    sampled = {SFT: folder / "all" / SFT, **folders}
    recipe = recipe_for(seed, prompts, overrides, rewriters(recipe, others, sampled))
    pipeline.run(recipe, folder / "all", only="evaluate")
    return pd.DataFrame(
        {
            "train_seed": seed, "method": r.method, "source": r.source, "prompt_id": r.prompt_id, "prompt": r.prompt,
            "rewrite": r.rewrite, "distance": r.distance,
        } | r.metrics
        for r in rows_of(folder / "all", recipe)
    )  # fmt: skip


def savings(out: Path, seeds: Sequence[int], alpha: float) -> None:
    """Prints the share of images saved: as drawn, and as expected at other values of alpha."""
    rows = []
    for seed in seeds:
        part = out / f"seed-{seed}" / "budget"
        counts, pairs = store.counts(part / "render_budget"), store.read_rows(part / "drift", Pair)
        images = counts["images"] + counts["images_left_out"]
        everything = store.read_rows(out / f"seed-{seed}" / "all" / "drift", Pair)
        w = semantic_weight([p.distance or 0.0 for p in pairs], alpha) * [p.own_weight for p in pairs]
        before = semantic_weight([p.distance or 0.0 for p in everything], alpha)
        rows.append(
            [seed, f"{counts['images_left_out']:,} of {images:,} ({counts['images_left_out'] / images:.0%})",
             f"{len(pairs)} of {len(everything)}", f"{before.mean():.2f}", f"{w.mean():.2f}", f"{w.max():.3f}",
             f"{effective_sample_size(before):.0f}", f"{effective_sample_size(w):.0f}"]
        )  # fmt: skip
    ends = ["mean W", "mean W/p", "largest W/p", "effective pairs, all", "effective pairs, budget"]
    table(["seed", f"images saved at alpha {alpha:g}", "pairs", *ends], rows)
    shares = [[f"{_expected_share(out, seed, a):.0%}" for a in ALPHAS] for seed in seeds]
    mean = [f"{np.mean([_expected_share(out, seed, a) for seed in seeds]):.0%}" for a in ALPHAS]
    named = [[str(seed), *row] for seed, row in zip(seeds, shares, strict=True)]
    table(["expected share saved, alpha", *(f"{a:g}" for a in ALPHAS)], [*named, ["mean", *mean]])


def _expected_share(out: Path, seed: int, alpha: float) -> float:
    draws = store.read_rows(out / f"seed-{seed}" / "budget" / "render_budget", RenderDraw)
    p, images = semantic_weight([row.distance for row in draws], alpha), np.array([row.candidates for row in draws])
    return float(((1 - p) * images).sum() / images.sum())


def compare(frame: pd.DataFrame) -> None:
    """Prints all methods, and their paired differences with intervals."""
    for end, title in (("", "greedy"), (SAMPLED, "sampled")):
        means = [[name, *(crossed(grid(frame, method + end, c)) for c in COLUMNS)] for method, name in NAMES.items()]
        table([title, *map(head, COLUMNS)], means)
        pairs = ((FEWER, ALL), (SAME, ALL), (ALL, SFT))
        gaps = [
            [f"{NAMES[a]} − {NAMES[b]}"]
            + [crossed(grid(frame, a + end, c) - grid(frame, b + end, c), sign=True) for c in COLUMNS]
            for a, b in pairs
        ]
        table([f"{title}, difference", *map(head, COLUMNS)], gaps)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[21, 22, 23, 24, 25])
    parser.add_argument("--alpha", type=float, default=16.0, help="of the budget; the demo's Sem-DPO has 16")
    parser.add_argument("--prompts", type=int, default=30, help="of each of the three sets")
    parser.add_argument("--out", type=Path, default=Path("runs/render-budget"))
    parser.add_argument("--render-again", action="store_true", help="render the budget's images a second time")
    parser.add_argument("--set", dest="overrides", action="append", default=[], help="as for semdpo run")
    arguments = parser.parse_args()
    quiet_libraries()
    begun, seeds, again = time.monotonic(), arguments.seeds, arguments.render_again
    shared = arguments.alpha, arguments.prompts, arguments.overrides
    frames = [evaluated(arguments.out, seed, *shared, again=again) for seed in seeds]
    frame = with_facts(pd.concat(frames))
    frame.to_csv(arguments.out / "evaluation.csv", index=False)
    savings(arguments.out, seeds, arguments.alpha)
    compare(frame)
    say(f"{(time.monotonic() - begun) / 60:.0f} minutes")


if __name__ == "__main__":
    main()
