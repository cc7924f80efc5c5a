"""Stage 5: pairs of the candidate with the highest score and the candidate with the lowest score of a prompt."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial

from semdpo.analysis.render_budget import kept
from semdpo.data.atoms import NO_ATOMS
from semdpo.data.records import BLACKENED, Candidate, Pair, RenderDraw, Score, content_id
from semdpo.engine.shards import by_prompt
from semdpo.engine.stage import Made, Run, Shard, TableStage
from semdpo.errors import DataError
from semdpo.progress import Progress
from semdpo.recipe.atoms import ATOMS
from semdpo.recipe.pairs import PairsConfig
from semdpo.recipe.schema import Recipe

NAME = "pairs"
FILTERED = ("below_fidelity", "less_faithful")  # counts of a recipe that filters pairs


def stage(recipe: Recipe) -> TableStage:
    """The stage that pairs the scored candidates."""
    config = recipe.pairs.model_dump(mode="json")
    inputs = ("candidates", "label") if recipe.render_budget is None else ("candidates", "render_budget", "label")
    return TableStage(NAME, "choosing", config, inputs, {}, Pair, _work)


def _work(run: Run) -> list[Shard]:
    config = run.recipe.label
    candidates, scores = run.shards("candidates", Candidate), run.shards("label", Score)
    draws = None if run.recipe.render_budget is None else run.shards("render_budget", RenderDraw)
    places = by_prompt(candidates.column("prompt_id"), config.shard_size)  # the same split as label's

    unused = {*([] if run.recipe.pairs.filters else FILTERED), *([] if config.fidelity == ATOMS else ["without_atoms"])}

    def make(index: int, _: Progress) -> Made:
        by_scorer: dict[str, list[Score]] = {}
        for score in scores.read(index):
            by_scorer.setdefault(score.scorer, []).append(score)
        preferences, fidelities = by_scorer.get(config.scorer, []), by_scorer.get(config.fidelity or "", [])
        rendered, weights = candidates.between(*places[index]), dict[str, float]()
        if draws is not None:
            weights = {prompt_id: 1 / p for prompt_id, p in kept(draws.read(index)).items()}
            rendered = [row for row in rendered if row.prompt_id in weights]
        rows, counts = choose(rendered, preferences, run.recipe.pairs, fidelities, weights)
        return rows, {name: count for name, count in asdict(counts).items() if name not in unused}

    return [Shard(stop - start, partial(make, index)) for index, (start, stop) in enumerate(places)]


@dataclass(frozen=True, slots=True)
class PairCounts:
    """What became of the prompts that have candidates; every prompt is counted once.

    Attributes:
        kept: prompts whose best and worst candidate make a pair.
        tied: prompts whose candidates all have the same score.
        below_margin: prompts whose highest and lowest score differ by less than the margin.
        single: prompts with only one distinct candidate.
        blackened: prompts with fewer than two scored images, because the safety checker blackened the others.
        failed: prompts with fewer than two scored images, because others could not be rendered or scored.
        below_fidelity: prompts whose best candidate's fidelity is below ``min_fidelity``.
        less_faithful: prompts whose best candidate has a lower fidelity than the worst, where ``faithful`` forbids it.
        without_atoms: prompts without atoms, so that their images have no fidelity.
    """

    kept: int
    tied: int
    below_margin: int
    single: int
    blackened: int = 0
    failed: int = 0
    below_fidelity: int = 0
    less_faithful: int = 0
    without_atoms: int = 0


def choose(
    candidates: Sequence[Candidate],
    scores: Sequence[Score],
    config: PairsConfig,
    fidelities: Sequence[Score] = (),
    weights: Mapping[str, float] | None = None,
) -> tuple[list[Pair], PairCounts]:
    """Pairs each prompt's best candidate with its worst; among equal scores, the candidate with the lowest id is taken.

    A candidate that gives a reason why it has no score is left out.

    Args:
        candidates: the candidates of all prompts.
        scores: the preference scorer's scores, one per candidate, in any order.
        config: the margin, and which pairs are left out by their fidelity.
        fidelities: the fidelity scorer's scores; none, or one per candidate.
        weights: prompt id → weight of its pair; None gives none.

    Returns:
        The pairs, in the order in which their prompts first appear, and the counts.

    Raises:
        DataError: a score is not a number, or a candidate has none; the message names the candidates.
    """
    values, fidelity = _values(scores), _values(fidelities)
    reasons = {score.candidate_id: score.error for score in (*fidelities, *scores) if score.error is not None}
    scored = [candidate for candidate in candidates if candidate.candidate_id not in reasons]
    _refuse_unscored(scored, values)
    if fidelity:
        _refuse_unscored(scored, fidelity)
    groups: dict[str, dict[str, Candidate]] = {}
    for candidate in candidates:
        groups.setdefault(candidate.prompt_id, {})[candidate.candidate_id] = candidate
    pairs: list[Pair] = []
    counts = Counter[str]()
    for group in groups.values():
        ids = sorted(group.keys() - reasons.keys())
        if why := _unpaired(group, ids, values, reasons, config):
            counts[why] += 1
            continue
        best, worst = _extremes(ids, values)
        if why := _unfaithful(fidelity.get(best), fidelity.get(worst), config):
            counts[why] += 1
            continue
        weight = (weights or {}).get(group[best].prompt_id)
        pairs.append(_pair(group[best], group[worst], values, fidelity, weight))
    return pairs, replace(PairCounts(len(pairs), 0, 0, 0), **counts)


def _extremes(ids: Sequence[str], values: Mapping[str, float]) -> tuple[str, str]:
    """The best and the worst candidate; among equals, max and min take the first, which has the lowest id."""
    return max(ids, key=values.__getitem__), min(ids, key=values.__getitem__)


def _unpaired(
    group: Mapping[str, Candidate],
    ids: Sequence[str],
    values: Mapping[str, float],
    reasons: Mapping[str, str],
    config: PairsConfig,
) -> str:
    """Why the candidates of a prompt make no pair, as ``PairCounts`` names it; empty where they make one."""
    why = {reasons[key] for key in group.keys() - set(ids)}
    if NO_ATOMS in why:
        return "without_atoms"
    if len(ids) < 2 <= len(group):
        return "blackened" if why == {BLACKENED} else "failed"
    if len(group) == 1:
        return "single"
    best, worst = _extremes(ids, values)
    difference = values[best] - values[worst]
    if difference == 0:
        return "tied"
    return "below_margin" if difference < config.margin else ""


def _unfaithful(chosen: float | None, rejected: float | None, config: PairsConfig) -> str:
    """Which filter leaves a pair out, as ``PairCounts`` names it; empty where none does."""
    if chosen is None or rejected is None:
        return ""
    if config.min_fidelity is not None and chosen < config.min_fidelity:
        return "below_fidelity"
    return "less_faithful" if config.faithful and chosen < rejected else ""


def _values(scores: Sequence[Score]) -> dict[str, float]:
    return {score.candidate_id: score.score for score in scores if score.score is not None}


def _pair(
    best: Candidate, worst: Candidate, values: dict[str, float], fidelity: dict[str, float], weight: float | None
) -> Pair:
    return Pair(
        pair_id=content_id(best.prompt, best.rewrite, worst.rewrite),
        prompt=best.prompt,
        chosen=best.rewrite,
        rejected=worst.rewrite,
        chosen_score=values[best.candidate_id],
        rejected_score=values[worst.candidate_id],
        weight=weight,
        chosen_fidelity=fidelity.get(best.candidate_id),
        rejected_fidelity=fidelity.get(worst.candidate_id),
    )


def _refuse_unscored(candidates: Sequence[Candidate], values: dict[str, float]) -> None:
    for fault, bad in (
        ("have no score", [c.candidate_id for c in candidates if c.candidate_id not in values]),
        ("have scores that are not a number", [key for key, value in values.items() if math.isnan(value)]),
    ):
        if bad:
            ids = ", ".join(bad[:5]) + (" …" if len(bad) > 5 else "")
            raise DataError(f"candidates {ids} {fault}; label them again (--only label --fresh)")
