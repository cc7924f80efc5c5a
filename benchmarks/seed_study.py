"""Sem-DPO against DPO on the tiny world over several seeds: the tables of docs/results.md.

    python benchmarks/seed_study.py --seeds 0 1 2 --out runs/seeds

Every seed is a whole run of the recipe ``tiny`` (SFT, candidates, pictures, pairs, both trainings), evaluated on
the same held-out prompts and picture seeds. Differences are paired by prompt: a prompt's value is its mean over
training and picture seeds, so that one prompt counts once.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

from semdpo import pipeline, statistics, store
from semdpo.recipe import load_recipe
from semdpo.records import EvaluationRow

METHODS = ("human", "sft", "dpo", "sem_dpo")
SEEDED = ("sft.seed", "candidates.seed", "label.seed", "train.seed")


def one_run(seed: int, folder: Path, overrides: list[str]) -> pd.DataFrame:
    """Run the recipe with a seed and return its evaluation, one row a picture."""
    recipe = load_recipe("tiny", [*(f"{key}={seed}" for key in SEEDED), *overrides])
    pipeline.run(recipe, folder / f"seed-{seed}")
    rows = [
        {"seed": seed, "method": row.method, "prompt_id": row.prompt_id, "drift": row.distance, "tokens": row.tokens}
        | row.metrics
        for method in METHODS
        for row in store.read_rows(folder / f"seed-{seed}" / "evaluate" / method, EvaluationRow)
    ]
    return pd.DataFrame(rows)


def difference_line(rows: pd.DataFrame, column: str) -> str:
    """Sem-DPO − DPO of one column, paired by prompt."""
    values = rows.groupby(["method", "prompt_id"])[column].mean().unstack("method")
    found = statistics.paired_difference(values["sem_dpo"].to_numpy(), values["dpo"].to_numpy())
    return f"{found.mean:+.4f} [{found.low:+.4f}, {found.high:+.4f}] | {found.p_t:.2g}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("runs/seeds"))
    parser.add_argument("--set", dest="overrides", action="append", default=[], help="as of semdpo run")
    arguments = parser.parse_args()
    rows = pd.concat([one_run(seed, arguments.out, arguments.overrides) for seed in arguments.seeds])
    columns = [name for name in rows.columns if name not in ("seed", "method", "prompt_id")]

    print("| method | " + " | ".join(columns) + " |\n|---|" + "---|" * len(columns))
    for method in METHODS:
        means = rows[rows.method == method][columns].mean()
        print(f"| {method} | " + " | ".join(f"{means[name]:.4f}" for name in columns) + " |")
    print("\n| Sem-DPO − DPO | seed | difference [95% interval] | p |\n|---|---|---|---|")
    for column in columns:
        for seed in arguments.seeds:
            print(f"| {column} | {seed} | {difference_line(rows[rows.seed == seed], column)} |")
        print(f"| **{column}** | **all** | {difference_line(rows, column)} |")


if __name__ == "__main__":
    main()
