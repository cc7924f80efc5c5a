"""The texts that a probe works on: a recipe's own prompts and rewrites, or typical ones where they are not here."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from semdpo.data.pairs import read_rewrites
from semdpo.data.records import Candidate, Pair, Prompt, content_id
from semdpo.errors import SemdpoError
from semdpo.preflight.downloads import HUB
from semdpo.preflight.resources import held_out
from semdpo.recipe.schema import Recipe
from semdpo.stages.flow import is_file
from semdpo.stages.prompts import collect, stage

# Texts of the usual length in DiffusionDB.
TYPICAL = [
    (
        f"a {thing} near the harbor at night",
        f"a {thing} near the harbor at night, {style}, highly detailed, soft light, 8k",
    )
    for thing in ("castle", "red boat")
    for style in ("oil painting, trending on artstation", "portrait in golden hour, sharp focus", "wide angle")
]


@dataclass(frozen=True, slots=True)
class Sample:
    """Prompts and rewrites to probe with.

    Attributes:
        prompts: the training prompts.
        held_out: the held-out prompts.
        rewrites: prompts with rewrites, to fine-tune on.
        seconds: how long the prompts took to read.
        typical: why typical prompts stand in for the recipe's own; empty where they do not.
        typical_rewrites: why typical rewrites do so; empty where they do not.
    """

    prompts: list[Prompt]
    held_out: list[Prompt]
    rewrites: list[tuple[str, str]]
    seconds: float
    typical: str
    typical_rewrites: str

    @property
    def stand_ins(self) -> list[str]:
        """Why typical texts stand in for the recipe's own; empty where none do."""
        return list(dict.fromkeys(filter(None, (self.typical, self.typical_rewrites))))

    def count(self, recipe: Recipe) -> int | None:
        """The number of training prompts; None where the recipe sets none and its file cannot be read."""
        return recipe.prompts.limit if self.typical else len(self.prompts)

    def count_held_out(self, recipe: Recipe) -> int | None:
        """The number of held-out prompts; None where the recipe sets none and its file cannot be read."""
        return held_out(recipe) if self.typical else len(self.held_out)

    def prompts_in_turn(self, *, of_held_out: bool = False) -> Callable[[int], list[Prompt]]:
        """A function that gives the next prompts, and begins again after the last."""
        rows, taken = self.held_out if of_held_out else self.prompts, [0]

        def take(count: int) -> list[Prompt]:
            start = taken[0]
            taken[0] += count
            return [rows[k % len(rows)] for k in range(start, taken[0])]

        return take

    def some_candidates(self, start: int, count: int, n: int) -> list[Candidate]:
        """Candidates, ``n`` of each prompt: the recipe's prompts with the rewrites of its examples.

        Args:
            start: the number of the first candidate.
            count: the number of candidates.
            n: the number of candidates per prompt.
        """
        made = []
        for k in range(start, start + count):
            prompt, (_, rewrite) = self.prompts[k // n % len(self.prompts)], self.rewrites[k % len(self.rewrites)]
            identity = content_id(prompt.prompt_id, rewrite, str(k))
            made.append(Candidate(identity, prompt.prompt_id, prompt.prompt, rewrite, k % n, 0, False))
        return made

    def some_pairs(self, start: int, count: int) -> list[Pair]:
        """Pairs of the examples' rewrites, with values in every column that an objective may ask for.

        Args:
            start: the number of the first pair.
            count: the number of pairs.
        """
        made = []
        for k in range(start, start + count):
            (prompt, chosen), (_, rejected) = (self.rewrites[at % len(self.rewrites)] for at in (k, k + 1))
            rejected = f"{rejected}, again" if rejected == chosen else rejected
            pair = Pair(content_id(str(k)), prompt, chosen, rejected, 1.0 + k % 7, 0.0, truncated=False)
            pair = replace(pair, distance=0.1 + k % 5 / 10, rejected_distance=0.2)
            made.append(replace(pair, chosen_fidelity=0.9, rejected_fidelity=0.1 + k % 3 / 10))
        return made


def sample_of(recipe: Recipe) -> Sample:
    """Reads a recipe's prompts and rewrites; what is on the hub is not downloaded for it.

    Args:
        recipe: the validated recipe.
    """
    begun = time.monotonic()
    rows, reason = _prompts(recipe)
    seconds = time.monotonic() - begun
    rewrites, without = _rewrites(recipe)
    train, test = ([row for row in rows if row.split == split] for split in ("train", "test"))
    return Sample(train, test, rewrites, seconds, reason, without)


def _prompts(recipe: Recipe) -> tuple[list[Prompt], str]:
    files = [name for key, name in stage(recipe).outside.items() if is_file(key)]
    if remote := [name for name in files if name.startswith(HUB)]:
        return _typical_prompts(), f"{remote[0]} would have to be downloaded"
    try:
        return collect(recipe.prompts)[0], ""
    except SemdpoError as error:
        return _typical_prompts(), str(error)


def _typical_prompts() -> list[Prompt]:
    return [Prompt.of(prompt, "typical", split) for split in ("train", "test") for prompt, _ in TYPICAL]


def _rewrites(recipe: Recipe) -> tuple[list[tuple[str, str]], str]:
    name = recipe.sft.file
    if name.startswith(HUB):
        return TYPICAL, f"{name} would have to be downloaded"
    try:
        rewrites = read_rewrites(name)
    except SemdpoError as error:
        return TYPICAL, str(error)
    return (rewrites, "") if len(rewrites) > 1 else (TYPICAL, f"{name} has a single rewrite")
