"""The prompts and rewrites that the tiny world ships; no prompt stands in two of the files."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

from semdpo.tiny_world import grammar

# File → (seed, number). Prompts for tuning are kept apart from those that results are reported on.
PROMPTS = {"prompts.jsonl": (71, 2000), "tuning.jsonl": (72, 400), "evaluation.jsonl": (73, 600)}
REWRITES = ("rewrites.jsonl", 74, 3000)
# Sets of a study, which differ in what they ask: file → (seed, number, number of things, unseen combinations).
SETS = {
    "one-thing.jsonl": (75, 200, 1, False),
    "two-things.jsonl": (76, 200, 2, False),
    "unseen.jsonl": (77, 200, None, True),  # things in colours that no model has met together: out of domain
}


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
        _write_prompts(folder / name, seed, count, seen, None, False)
    name, seed, count = REWRITES
    rng, rewrites = Random(seed), list[dict[str, str]]()
    while len(rewrites) < count:
        asked = grammar.request(rng)
        prompt = grammar.wording(asked, rng)
        if prompt not in seen:
            seen.add(prompt)
            rewrites.append({"prompt": prompt, "rewrite": grammar.rewrite(asked, prompt, rng)})
    (folder / name).write_text(_lines(rewrites))
    for name, (seed, count, things, unseen) in SETS.items():
        _write_prompts(folder / name, seed, count, seen, things, unseen)


def _write_prompts(path: Path, seed: int, count: int, seen: set[str], things: int | None, unseen: bool) -> None:
    rng = Random(seed)
    rows: list[dict[str, str]] = []
    while len(rows) < count:
        prompt = grammar.wording(grammar.request(rng, held_out=unseen, count=things), rng)
        if prompt not in seen:
            seen.add(prompt)
            rows.append({"prompt": prompt})
    path.write_text(_lines(rows))
