"""Stage 5: of every prompt's candidates, the best-scored against the worst-scored."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial

from semdpo.data.records import Candidate, Pair, Score, content_id
from semdpo.engine import parquet, store
from semdpo.engine.shards import by_prompt
from semdpo.engine.stage import Made, Run, Shard, TableStage
from semdpo.errors import DataError
from semdpo.progress import Progress
from semdpo.recipe.schema import PairsConfig, Recipe

NAME = "pairs"


def stage(recipe: Recipe) -> TableStage:
    """Preference pairs of the scored candidates."""
    config = recipe.pairs.model_dump(mode="json")
    return TableStage(NAME, "choosing", config, ("candidates", "label"), {}, Pair, _work)


def _work(run: Run) -> list[Shard]:
    config = run.recipe.label
    candidates, scores = run.shards("candidates", Candidate), run.shards("label", Score)
    places = by_prompt(candidates.column("prompt_id"), config.shard_size)  # as label's shards are

    def make(index: int, _: Progress) -> Made:
        by_scorer: dict[str, list[Score]] = {}
        for score in scores.read(index):
            by_scorer.setdefault(score.scorer, []).append(score)
        own, fidelities = by_scorer.get(config.scorer, []), by_scorer.get(config.fidelity or "", [])
        rows, counts = choose(candidates.between(*places[index]), own, run.recipe.pairs, fidelities)
        if index == len(places) - 1 and not rows:
            _refuse_black(run, index, counts.blackened)
        return rows, asdict(counts)

    return [Shard(stop - start, partial(make, index)) for index, (start, stop) in enumerate(places)]


def _refuse_black(run: Run, last: int, blackened: int) -> None:
    """Refuses a run none of whose shards has a pair, where the safety checker is why."""
    before = [parquet.counts(store.shard_path(run.folder / NAME, index)) for index in range(last)]
    blackened += sum(counts["blackened"] for counts in before)
    if blackened and not any(counts["rows"] for counts in before):
        raise DataError(
            f"no pair is left: of {blackened} prompts the safety checker blackened all images but one or "
            "none; set label.renderer.safety_checker=false, or give other prompts"
        )


@dataclass(frozen=True, slots=True)
class PairCounts:
    """What became of the prompts; each is counted once, so the sum is the number of prompts that have candidates.

    Attributes:
        kept: best and worst make a pair.
        tied: best and worst have equal scores.
        below_margin: they differ, by less than the margin.
        single: the prompt has one distinct candidate only.
        blackened: the safety checker left the prompt with less than two candidates whose images could be scored.
    """

    kept: int
    tied: int
    below_margin: int
    single: int
    blackened: int = 0


def choose(
    candidates: Sequence[Candidate], scores: Sequence[Score], config: PairsConfig, fidelities: Sequence[Score] = ()
) -> tuple[list[Pair], PairCounts]:
    """Pairs the best candidate of each prompt with the worst; among equal scores the lowest id is taken.

    Candidates whose image could not be scored, because the safety checker blackened it, take no part.

    Args:
        candidates: of all prompts.
        scores: of the preference scorer, one for each candidate, in any order.
        config: the margin.
        fidelities: of the fidelity scorer, which only go along with the pairs; none, or one for each candidate.

    Returns:
        The pairs, in the order in which their prompts first appear, and the counts.

    Raises:
        DataError: a score is not a number, or a candidate has none; the candidates are named.
    """
    values, faithful = _values(scores), _values(fidelities)
    black = {score.candidate_id for score in (*scores, *fidelities) if score.error is not None}
    scored = [candidate for candidate in candidates if candidate.candidate_id not in black]
    _check(scored, values)
    if faithful:
        _check(scored, faithful)
    groups: dict[str, dict[str, Candidate]] = {}
    for candidate in candidates:
        groups.setdefault(candidate.prompt_id, {})[candidate.candidate_id] = candidate
    pairs: list[Pair] = []
    tied = below = single = blackened = 0
    for group in groups.values():
        ids = sorted(group.keys() - black)
        if len(ids) < 2 <= len(group):
            blackened += 1
            continue
        if len(group) == 1:
            single += 1
            continue
        best = max(ids, key=values.__getitem__)  # max and min keep the first of equals, which has the lowest id
        worst = min(ids, key=values.__getitem__)
        difference = values[best] - values[worst]
        if difference == 0:
            tied += 1
        elif difference < config.margin:
            below += 1
        else:
            pairs.append(_pair(group[best], group[worst], values, faithful))
    return pairs, PairCounts(len(pairs), tied, below, single, blackened)


def _values(scores: Sequence[Score]) -> dict[str, float]:
    return {score.candidate_id: score.score for score in scores if score.score is not None}


def _pair(best: Candidate, worst: Candidate, values: dict[str, float], faithful: dict[str, float]) -> Pair:
    return Pair(
        pair_id=content_id(best.prompt, best.rewrite, worst.rewrite),
        prompt=best.prompt,
        chosen=best.rewrite,
        rejected=worst.rewrite,
        chosen_score=values[best.candidate_id],
        rejected_score=values[worst.candidate_id],
        chosen_fidelity=faithful.get(best.candidate_id),
        rejected_fidelity=faithful.get(worst.candidate_id),
    )


def _check(candidates: Sequence[Candidate], values: dict[str, float]) -> None:
    for what, bad in (
        ("have no score", [c.candidate_id for c in candidates if c.candidate_id not in values]),
        ("have scores that are not a number", [key for key, value in values.items() if math.isnan(value)]),
    ):
        if bad:
            named = ", ".join(bad[:5]) + (" …" if len(bad) > 5 else "")
            raise DataError(f"candidates {named} {what}; label them again (--only label --fresh)")
