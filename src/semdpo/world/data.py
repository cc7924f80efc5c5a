"""The prompts and rewrites that the tiny world ships; no prompt stands in two of the files."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

from semdpo.world import grammar

# File → (seed, number). Prompts for tuning are kept apart from those that results are reported on.
PROMPTS = {"prompts.jsonl": (71, 2000), "tuning.jsonl": (72, 400), "evaluation.jsonl": (73, 600)}
REWRITES = ("rewrites.jsonl", 74, 3000)


def _lines(rows: list[dict[str, str]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def write(folder: Path) -> None:
    """Write all files into ``folder``; no prompt stands in two of them.

    Args:
        folder: made when absent.
    """
    folder.mkdir(parents=True, exist_ok=True)
    seen: set[str] = set()
    for name, (seed, count) in PROMPTS.items():
        rng = Random(seed)
        rows: list[dict[str, str]] = []
        while len(rows) < count:
            prompt = grammar.wording(grammar.request(rng), rng)
            if prompt not in seen:
                seen.add(prompt)
                rows.append({"prompt": prompt})
        (folder / name).write_text(_lines(rows))
    name, seed, count = REWRITES
    rng, rewrites = Random(seed), list[dict[str, str]]()
    while len(rewrites) < count:
        asked = grammar.request(rng)
        prompt = grammar.wording(asked, rng)
        if prompt not in seen:
            seen.add(prompt)
            rewrites.append({"prompt": prompt, "rewrite": grammar.rewrite(asked, prompt, rng)})
    (folder / name).write_text(_lines(rewrites))
