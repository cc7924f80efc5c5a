"""The cost of a sweep over six alphas on the embedded tiny world: one embedding, one reference, six trainings.

    python benchmarks/alpha_sweep.py

One process measures DPO alone, with everything that it needs, and Sem-DPO at six alphas, which share embedding and
reference. The last line is one JSON object; ``ratio`` is the sweep's time divided by six times DPO's training time.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

from semdpo.analysis.drift import weigh
from semdpo.data.pairs import read_rewrites
from semdpo.data.records import Pair, content_id
from semdpo.models.text_encoder import load_text_encoder
from semdpo.progress import quiet_libraries, silent
from semdpo.recipe.load import load_recipe
from semdpo.recipe.objectives import DPOSettings, ObjectiveSettings, SemDPOSettings
from semdpo.training import preference as training

ALPHAS = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0)


def make_pairs(count: int) -> list[Pair]:
    """Pairs whose chosen text is the prompt's own rewrite, and whose rejected text is the next prompt's rewrite."""
    rows = read_rewrites("tiny:rewrites.jsonl")[: count + 1]
    return [
        Pair(content_id(prompt, chosen, rejected), prompt, chosen, rejected, 1.0, 0.0)
        for (prompt, chosen), (_, rejected) in pairwise(rows)
        if chosen != rejected
    ]


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    begun = time.monotonic()
    result = work()
    return time.monotonic() - begun, result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=400)
    options = parser.parse_args()
    quiet_libraries()
    recipe = load_recipe("tiny", [])
    encoder = load_text_encoder(recipe.drift.encoder)
    embed, pairs = timed(lambda: weigh(make_pairs(options.pairs), encoder, 64, recipe.drift.encoder))
    counts: list[int] = []
    count_reference_groups(counts)
    with tempfile.TemporaryDirectory() as folder:

        def one(objective: ObjectiveSettings, name: str, cache: str) -> float:
            where = Path(folder)
            work = lambda: training.train(  # noqa: E731
                pairs, "tiny:gpt2", objective, recipe.train, where / name, where / "cache" / cache, silent
            )
            return timed(work)[0]

        one(DPOSettings(name="dpo"), "warm", "warm")  # loads everything that is loaded only once
        counts.clear()
        alone = one(DPOSettings(name="dpo"), "dpo", "alone")
        again = one(DPOSettings(name="dpo"), "again", "alone")
        of_dpo = sum(counts)
        counts.clear()
        sweep = [one(SemDPOSettings(name="sem_dpo", alpha=a), f"alpha{a}", "sweep") for a in ALPHAS]
    print(f"{len(pairs)} pairs: embedding them {embed:.2f} s, once")
    print(
        f"DPO: {alone:.2f} s with its reference pass, {again:.2f} s without; {of_dpo} pairs computed by the reference"
    )
    print("Sem-DPO: " + ", ".join(f"alpha {a:g} {s:.2f} s" for a, s in zip(ALPHAS, sweep, strict=True)))
    print(
        json.dumps(
            {
                "ratio": round(sum(sweep) / (len(ALPHAS) * again), 3),
                "ratio_sem_dpo": round(sum(sweep[1:]) / len(sweep[1:]) / again, 3),
                "reference_passes": sum(counts) / len(pairs),
            }
        )
    )


def count_reference_groups(counts: list[int]) -> None:
    """Adds to ``counts`` the number of groups in each pass of the reference, from now on."""
    from semdpo.training import reference

    plain = reference.group_logps

    def counting(model: Any, groups: Any, can_pack: bool) -> Any:
        counts.append(len(groups))
        return plain(model, groups, can_pack)

    reference.group_logps = counting


if __name__ == "__main__":
    main()
