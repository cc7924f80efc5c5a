"""Does drift accumulate over rounds, and does the weight hold it? The figures of docs/howto/rounds.md.

    python benchmarks/rounds.py --out runs/rounds-study

Every seed is a whole run of three rounds with the demo's DPO, its Sem-DPO, and DPO with Sem-DPO's learning rate and β,
from which Sem-DPO differs by its weight alone. Rewriters of all rounds write prompts that took no part in training,
greedily and at temperature 1; their words are compared with the prompts', and for some of the prompts the greedy
rewrites are rendered and scored. Intervals generalise over prompts and training seeds (`statistics.crossed_interval`).
The same command resumes a stopped benchmark.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from semdpo.progress import quiet_libraries, say, share_the_cpu

share_the_cpu()  # before torch is imported

import numpy as np
import pandas as pd
from study import BEFORE_TRAINING, SETS, rows_of, run_stages
from study_arms import SAMPLED, SFT, recipe_of
from study_tables import crossed, grid, head, table, with_facts

from semdpo import pipeline
from semdpo.analysis.semantics import cosine_distance, effective_sample_size, semantic_weight
from semdpo.analysis.statistics import crossed_interval
from semdpo.data.prompts import read_prompts
from semdpo.data.records import Pair, content_id
from semdpo.disk import write_bytes
from semdpo.engine import store
from semdpo.recipe.load import load_recipe
from semdpo.recipe.rounds import LaterRound, name_in_round
from semdpo.recipe.schema import Recipe
from semdpo.stages.evaluate import evaluation

DPO, SAME, SUBJECT = "dpo", "dpo_same_settings", "sem_dpo"
ARMS = {DPO: "DPO", SAME: "DPO, Sem-DPO's settings", SUBJECT: "Sem-DPO"}
WORDS = ["wrong", "added", "popular", "distance", "tokens"]
SCORES = ["clip_b", "blip_itm", "hps", "pickscore"]


def recipe_for(seed: int, rounds: int, prompts: int, overrides: Sequence[str]) -> Recipe:
    """The demo's recipe with three arms, several rounds and the study's three sets."""
    methods = load_recipe("tiny").train.methods
    settings = {name: methods[name].model_dump(exclude_none=True) for name in (DPO, SUBJECT)}
    settings[SAME] = {"name": "dpo"}  # the recipe's own learning rate and beta, which Sem-DPO has too
    sets = {name: {"file": f"tiny:{name}.jsonl", "limit": prompts} for name in SETS}
    own = [
        "label.fidelity=null", "prompts.test_file=null", f"prompts.test_sets={json.dumps(sets)}",
        f"evaluate.image_seeds=[{seed}]", f"rounds.count={rounds}",
    ]  # fmt: skip
    return recipe_of(seed, settings, own, list(overrides))


def written(run: Path, recipe: Recipe, seed: int, prompts: int) -> pd.DataFrame:
    """What every rewriter writes for prompts of the three sets, greedily and sampled; nothing is rendered."""
    from semdpo.models.rewriter import load_rewriter  # here, since these import torch
    from semdpo.models.text_encoder import load_text_encoder

    texts = [(name, text) for name in SETS for text in read_prompts(f"tiny:{name}.jsonl")[:prompts]]
    encoder = load_text_encoder(recipe.drift.encoder)
    asked = encoder.encode([text for _, text in texts]).vectors
    sampling = recipe.evaluate.rewrite.model_copy(update={"temperature": 1.0, "top_p": recipe.candidates.top_p})
    frames = []
    for method, stage in evaluation(recipe).models.items():
        if method == "human":
            continue
        for end, decoding in (("", recipe.evaluate.rewrite), (SAMPLED, sampling)):
            how = decoding.model_dump(exclude={"precision", "seed"})
            rewriter = load_rewriter(run / stage, precision=decoding.precision, **how)
            rewrites = [row[0] for row in rewriter.rewrite([text for _, text in texts], 1, seed)]
            frames.append(
                pd.DataFrame(
                    {
                        "train_seed": seed, "method": method + end, "source": [name for name, _ in texts],
                        "prompt_id": [content_id(text) for _, text in texts], "prompt": [text for _, text in texts],
                        "rewrite": rewrites, "tokens": rewriter.tokens(rewrites),
                        "distance": cosine_distance(asked, encoder.encode(rewrites).vectors),
                    }
                )
            )  # fmt: skip
    return pd.concat(frames)


def one_seed(
    out: Path, seed: int, rounds: int, images: int, words: int, overrides: Sequence[str]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The words of one seed's rewrites, and the scores of the images of some of them."""
    run, recipe = out / f"seed-{seed}", recipe_for(seed, rounds, images, overrides)
    run_stages(recipe, run, (*BEFORE_TRAINING, "train", "rounds"))
    of_words = run / f"words-{_key(run, recipe, words)}.csv"
    if not of_words.exists():
        write_bytes(of_words, written(run, recipe, seed, words).to_csv(index=False).encode())
    pipeline.run(recipe, run, only="evaluate")
    scores = pd.DataFrame(
        {"train_seed": seed, "method": r.method, "source": r.source, "prompt_id": r.prompt_id} | r.metrics
        for r in rows_of(run, recipe)
    )
    return with_facts(pd.read_csv(of_words)), scores


def _key(run: Path, recipe: Recipe, words: int) -> str:
    """A name that changes with all that the words depend on: rewriters, encoder, decoding, number of prompts."""
    stages = ["drift", *dict.fromkeys(evaluation(recipe).models.values())]
    how = [words, recipe.evaluate.rewrite.model_dump(mode="json"), recipe.candidates.top_p]
    return store.digest(store.canonical([*how, *(store.manifest_hash(run / stage) for stage in stages)]))[:16]


def _names(rounds: int) -> Iterator[tuple[str, str, int]]:
    """The name under which each arm is evaluated in each round, the arm's title, and the round's number."""
    for arm, title in ARMS.items():
        for number in range(1, rounds + 1):
            yield name_in_round(arm, number), title, number


def by_round(frame: pd.DataFrame, columns: Sequence[str], rounds: int, end: str, title: str) -> None:
    """Prints the means of every arm in every round, then what the rounds change, paired."""
    first = [[each, "", *(crossed(grid(frame, name + end, c)) for c in columns)] for name, each in ((SFT, "SFT"),)]
    if "human" in set(frame.method) and not end:
        first.insert(0, ["User's prompt", "", *(crossed(grid(frame, "human", c)) for c in columns)])
    rows = [[t, n, *(crossed(grid(frame, name + end, c)) for c in columns)] for name, t, n in _names(rounds)]
    table([title, "round", *map(head, columns)], [*first, *rows])

    def gap(one: str, other: str, column: str) -> np.ndarray:
        return grid(frame, one + end, column) - grid(frame, other + end, column)

    last = {arm: name_in_round(arm, rounds) for arm in ARMS}
    changes = [
        *((f"{ARMS[arm]}: round {rounds} − 1", [gap(last[arm], arm, c) for c in columns]) for arm in ARMS),
        *(
            (f"Sem-DPO − {ARMS[arm]}, round {rounds}", [gap(last[SUBJECT], last[arm], c) for c in columns])
            for arm in (SAME, DPO)
        ),
        (
            f"Sem-DPO's change − {ARMS[SAME]}' change",
            [gap(last[SUBJECT], SUBJECT, c) - gap(last[SAME], SAME, c) for c in columns],
        ),
    ]
    rows = [[name, *(crossed(values, sign=True) for values in each)] for name, each in changes]
    table([f"{title}, difference", *map(head, columns)], rows)


def pairs_of(out: Path, seeds: Sequence[int], rounds: int) -> None:
    """Prints what each round was trained on: pairs, their drift, and what the weight leaves of them."""
    rows = []
    alpha = float(getattr(load_recipe("tiny").train.methods[SUBJECT], "alpha"))  # noqa: B009 - of Sem-DPO alone
    for arm, title in ARMS.items():
        for number in range(1, rounds + 1):
            place = "" if number == 1 else f"{LaterRound(arm, number).folder}/"
            found = [store.read_rows(out / f"seed-{seed}" / f"{place}drift", Pair) for seed in seeds]
            pairs = [pair for part in found for pair in part]
            w = semantic_weight([pair.distance or 0.0 for pair in pairs], alpha)
            kept = f"{effective_sample_size(w) / len(pairs):.0%}" if arm == SUBJECT else "100%"
            rows.append(
                [title, number, f"{len(pairs) / len(seeds):.0f}", f"{np.mean([p.distance for p in pairs]):.3f}",
                 f"{np.mean([p.rejected_distance for p in pairs]):.3f}",
                 f"{np.mean([p.chosen_score for p in pairs]):.2f}", f"{np.mean([p.rejected_score for p in pairs]):.2f}",
                 kept]
            )  # fmt: skip
    ends = ["score of the chosen", "of the rejected", "effective pairs"]
    table(["trained on", "round", "pairs a seed", "drift of the chosen", "of the rejected", *ends], rows)


def draw(words: pd.DataFrame, scores: pd.DataFrame, rounds: int, path: Path) -> None:
    """Draws what the rounds do to content, drift and fidelity; round 0 is the SFT rewriter that all start from."""
    from matplotlib.figure import Figure

    from semdpo.reporting.style import COLOURS, MARKERS, style

    panels = [
        ("adds content, greedy", words, "", "added"), ("adds content, sampled", words, SAMPLED, "added"),
        ("drift, sampled", words, SAMPLED, "distance"), ("CLIP-B, greedy", scores, "", "clip_b"),
    ]  # fmt: skip
    palette = dict(zip(ARMS, (COLOURS["dpo"], "#E69F00", COLOURS["sem_dpo"]), strict=True))
    with style():
        figure = Figure(figsize=(10, 3.1))
        for axes, (title, frame, end, column) in zip(figure.subplots(1, len(panels)), panels, strict=True):
            axes.set_title(title)
            axes.set_xlabel("round")
            axes.set_xticks(range(rounds + 1))
            for marker, (arm, name) in zip(MARKERS, ARMS.items(), strict=False):
                rewriters = [SFT, *(name_in_round(arm, number) for number in range(1, rounds + 1))]
                found = [crossed_interval(grid(frame, each + end, column)) for each in rewriters]
                spread = [[e.mean - e.low for e in found], [e.high - e.mean for e in found]]
                axes.errorbar(
                    range(rounds + 1), [e.mean for e in found], yerr=spread, marker=marker, color=palette[arm],
                    label=name, capsize=2.5, elinewidth=1.1,
                )  # fmt: skip
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=3)
        figure.savefig(path, dpi=110, metadata={"Software": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[31, 32, 33])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=20, help="prompts of each of the three sets that are rendered")
    parser.add_argument("--words", type=int, default=200, help="prompts of each of the three sets that are rewritten")
    parser.add_argument("--out", type=Path, default=Path("runs/rounds-study"))
    parser.add_argument("--set", dest="overrides", action="append", default=[], help="as for semdpo run")
    arguments = parser.parse_args()
    quiet_libraries()
    begun, out, seeds, rounds = time.monotonic(), arguments.out, arguments.seeds, arguments.rounds
    shared = rounds, arguments.images, arguments.words, arguments.overrides
    found = [one_seed(out, seed, *shared) for seed in seeds]
    words, scores = (pd.concat(frames) for frames in zip(*found, strict=True))
    words.to_csv(out / "words.csv", index=False)
    scores.to_csv(out / "scores.csv", index=False)
    pairs_of(out, seeds, rounds)
    by_round(words, WORDS, rounds, "", "greedy")
    by_round(words, WORDS, rounds, SAMPLED, "sampled")
    by_round(scores, SCORES, rounds, "", "images, greedy")
    draw(words, scores, rounds, out / "rounds.png")
    say(f"{(time.monotonic() - begun) / 60:.0f} minutes")


if __name__ == "__main__":
    main()
