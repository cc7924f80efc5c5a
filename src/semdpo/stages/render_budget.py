"""Between candidates and label, if the recipe has a render budget: which prompts' candidates are rendered."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, partial
from itertools import groupby

import numpy as np

from semdpo.analysis.drift import Drift, measure, refuse_unknown_words, unknown_beforehand
from semdpo.analysis.render_budget import draw, probability
from semdpo.data.records import Candidate, Pair, RenderDraw
from semdpo.engine.shards import by_prompt
from semdpo.engine.stage import Made, Run, Shard, TableStage
from semdpo.progress import Progress
from semdpo.protocols import KnowsWords, TextEncoder
from semdpo.recipe.render_budget import RenderBudgetConfig
from semdpo.recipe.schema import Recipe

NAME = "render_budget"


def stages(recipe: Recipe, number: int = 1) -> list[TableStage]:
    """The stage that draws which prompts' candidates are rendered; none where the recipe has no render budget.

    Args:
        recipe: the validated recipe.
        number: the round's number, counted from 1.
    """
    budget = recipe.render_budget
    if budget is None:
        return []
    own = {"drift": recipe.drift.model_dump(mode="json"), "shard_size": recipe.label.shard_size}
    settings, outside = budget.model_dump(mode="json") | own, {"drift.encoder": recipe.drift.encoder}
    work = partial(_work, budget, number)
    return [TableStage(NAME, "drawing what to render", settings, ("candidates",), outside, RenderDraw, work)]


def _work(budget: RenderBudgetConfig, number: int, run: Run) -> list[Shard]:
    config, candidates = run.recipe.drift, run.shards("candidates", Candidate)
    places = by_prompt(candidates.column("prompt_id"), run.recipe.label.shard_size)  # the same split as label's

    def load() -> TextEncoder:
        encoder = run.models.encoder(config.encoder)
        rows = (row for start, stop in places for row in _as_pairs(candidates.between(start, stop)))
        refuse_unknown_words(unknown_beforehand(rows, encoder), config.encoder)
        return encoder

    encoder = cache(load)

    def make(index: int, progress: Progress) -> Made:
        shard = candidates.between(*places[index])
        drift = measure(_as_pairs(shard), encoder(), config.batch_size, progress)
        if not isinstance(encoder(), KnowsWords):  # one that does was asked about all candidates in ``load``
            refuse_unknown_words(drift.unknown, config.encoder)
        rows = drawn(shard, drift, budget, number)
        return rows, _counts(rows, drift)

    return [Shard(stop - start, partial(make, index)) for index, (start, stop) in enumerate(places)]


def _as_pairs(candidates: Sequence[Candidate]) -> list[Pair]:
    """The candidates in the form in which drift is measured, each on both sides of a pair."""
    return [Pair(row.candidate_id, row.prompt, row.rewrite, row.rewrite, None, None) for row in candidates]


def drawn(
    candidates: Sequence[Candidate], drift: Drift, budget: RenderBudgetConfig, number: int = 1
) -> list[RenderDraw]:
    """Draws for every prompt whether its candidates are rendered; the draw depends on prompt, seed and round only.

    Args:
        candidates: the candidates of one shard; those of one prompt follow each other, [n].
        drift: their distances from their prompts, [n].
        budget: the strength of the weight and the seed.
        number: the round's number, counted from 1.

    Returns:
        One row for each prompt, in the candidates' order.
    """
    rows, start = [], 0
    for prompt_id, group in groupby(row.prompt_id for row in candidates):
        count = len(list(group))
        distances = drift.distance[start : start + count]
        p = probability(distances, budget.alpha)
        is_kept = draw(prompt_id, budget.seed, number) < p
        rows.append(RenderDraw(prompt_id, count, float(distances.min()), p, is_kept))
        start += count
    return rows


def _counts(rows: Sequence[RenderDraw], drift: Drift) -> dict[str, int]:
    left_out = [row.candidates for row in rows if not row.kept]
    return {
        "kept": len(rows) - len(left_out),
        "images": sum(row.candidates for row in rows) - sum(left_out),
        "prompts_left_out": len(left_out),
        "images_left_out": sum(left_out),
        "truncated": int(np.sum(drift.truncated)),
    }
