"""The files of prompts and rewrites that the tiny world ships; no prompt is in two of them."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

from semdpo.tiny_world import requests, rewrites

# File → (seed, number). Tuning prompts are separate from those that results are reported on.
PROMPTS = {"prompts.jsonl": (71, 2000), "tuning.jsonl": (72, 400), "evaluation.jsonl": (73, 600)}
REWRITES = ("rewrites.jsonl", 74, 3000)
# The sets of a study, with different kinds of prompts: file → (seed, number, number of things, unseen combinations).
# The unseen combinations are `grammar.HELD_OUT`.
SETS = {
    "one-thing.jsonl": (75, 200, 1, False),
    "two-things.jsonl": (76, 200, 2, False),
    "unseen.jsonl": (77, 200, None, True),
}


def _lines(rows: list[dict[str, str]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def write(folder: Path) -> None:
    """Writes all files into ``folder``; no prompt is in two of them, not even with another capital or full stop.

    Args:
        folder: The folder to write into; it is created if it does not exist.
    """
    folder.mkdir(parents=True, exist_ok=True)
    seen: set[str] = set()
    for name, (seed, count) in PROMPTS.items():
        _write_prompts(folder / name, seed, count, seen, None, False)
    name, seed, count = REWRITES
    rng, examples = Random(seed), list[dict[str, str]]()
    while len(examples) < count:
        request = requests.ask(rng)
        if _is_new(request.prompt, seen):
            examples.append({"prompt": request.prompt, "rewrite": rewrites.rewrite(request, rng)})
    (folder / name).write_text(_lines(examples))
    for name, (seed, count, things, unseen) in SETS.items():
        _write_prompts(folder / name, seed, count, seen, things, unseen)


def _is_new(prompt: str, seen: set[str]) -> bool:
    """Whether a prompt is not in ``seen``, whatever its capitals and full stop; it is added there."""
    key = prompt.lower().rstrip(".")
    if key in seen:
        return False
    seen.add(key)
    return True


def _write_prompts(path: Path, seed: int, count: int, seen: set[str], things: int | None, unseen: bool) -> None:
    rng = Random(seed)
    rows: list[dict[str, str]] = []
    while len(rows) < count:
        prompt = requests.ask(rng, held_out=unseen, count=things).prompt
        if _is_new(prompt, seen):
            rows.append({"prompt": prompt})
    path.write_text(_lines(rows))
