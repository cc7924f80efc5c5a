"""Stage 4: render every candidate, and score its image against the user's prompt."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cache, partial
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from semdpo.data.records import BLACKENED, Candidate, Score, content_seed
from semdpo.engine.shards import by_prompt
from semdpo.engine.stage import Made, Run, Shard, TableStage
from semdpo.errors import DataError
from semdpo.progress import Progress, silent
from semdpo.protocols import Renderer, Scorer, render_checked
from semdpo.recipe.schema import LabelConfig, Recipe

if TYPE_CHECKING:
    from PIL import Image

_Outcome = tuple[float | None, bool, str | None]  # score, truncated, error

NAME = "label"


def stage(recipe: Recipe) -> TableStage:
    """The stage that renders every candidate and scores the image."""
    config = recipe.label
    settings = config.model_dump(mode="json") | {"scoring": recipe.scoring.of_results()}
    fidelity = {} if config.fidelity is None else {"label.fidelity": config.fidelity}
    outside = {"label.renderer.model": config.renderer.model, "label.scorer": config.scorer} | fidelity
    return TableStage(NAME, "rendering and scoring", settings, ("candidates",), outside, Score, _work)


def _work(run: Run) -> list[Shard]:
    config = run.recipe.label
    names = [name for name in (config.scorer, config.fidelity) if name is not None]
    renderer = cache(lambda: run.models.renderer(config.renderer))
    scorers = cache(lambda: {name: run.models.scorer(name, run.recipe.scoring) for name in names})
    candidates = run.shards("candidates", Candidate)

    def make(start: int, stop: int, progress: Progress) -> Made:
        rows = label(candidates.between(start, stop), renderer(), scorers(), config, progress)
        preferences = [row for row in rows if row.scorer == config.scorer]
        unscored = sum(row.error is not None for row in preferences)
        return rows, {"truncated": sum(row.truncated for row in preferences), "blackened": unscored}

    places = by_prompt(candidates.column("prompt_id"), config.shard_size)
    return [Shard(stop - start, partial(make, start, stop)) for start, stop in places]


@runtime_checkable
class FlaggingRenderer(Protocol):
    """A renderer that reports which texts are longer than it reads."""

    def too_long(self, prompts: Sequence[str]) -> Sequence[bool]:
        """Reports for each text whether it is longer than the renderer reads, [n]."""
        ...


def label(
    candidates: Sequence[Candidate],
    renderer: Renderer,
    scorers: Mapping[str, Scorer],
    config: LabelConfig,
    progress: Progress = silent,
) -> list[Score]:
    """Renders candidates and scores their images.

    All candidates of one prompt are rendered with one image seed, so that only their words differ. An equal (rewrite,
    seed) is rendered once. The scorer gets the *user's* prompt, never the rewrite. An image that the renderer's safety
    checker blackened is not scored: its rows have no score and give the reason in ``error``.

    Args:
        candidates: the candidates of one shard.
        renderer: the text-to-image model.
        scorers: name → scorer: the preference scorer, and the fidelity scorer where the recipe has one.
        config: the scorers' names, the batch size and the seed.
        progress: called after every batch.

    Returns:
        One score of each scorer for each candidate, in the candidates' order. ``truncated`` is true when the prompt is
        longer than the scorer reads, or the rewrite longer than the renderer reads.

    Raises:
        DataError: a score is not finite; the message names the candidates.
    """
    seeds = [content_seed("label", str(config.seed), candidate.prompt_id) for candidate in candidates]
    keys = zip((c.rewrite for c in candidates), seeds, (c.prompt for c in candidates), strict=True)
    distinct = list(dict.fromkeys(keys))
    outcomes: dict[tuple[str, str, int, str], _Outcome] = {}
    for start, batch in _batches(distinct, config.batch_size):
        images = render_checked(renderer, [rewrite for rewrite, _, _ in batch], [seed for _, seed, _ in batch])
        too_long = _too_long(renderer, [rewrite for rewrite, _, _ in batch])
        for name, scorer in scorers.items():
            for key, (value, truncated, error), long in zip(
                batch, _scored(scorer, images, batch), too_long, strict=True
            ):
                outcomes[name, *key] = value, truncated or long, error
        progress(start + len(batch), len(distinct))
    rows = []
    for candidate, seed in zip(candidates, seeds, strict=True):
        for name in scorers:
            value, truncated, error = outcomes[name, candidate.rewrite, seed, candidate.prompt]
            rows.append(Score(candidate.candidate_id, name, value, seed, truncated, error))
    _refuse_broken(rows)
    return rows


def _scored(
    scorer: Scorer, images: Sequence[tuple[Image.Image, bool]], batch: Sequence[tuple[str, int, str]]
) -> list[_Outcome]:
    """Each image's score, whether its prompt was truncated, and why it has no score, [n]."""
    shown = [(image, prompt) for (image, black), (_, _, prompt) in zip(images, batch, strict=True) if not black]
    if not shown:
        return [(None, False, BLACKENED)] * len(batch)
    scores = scorer.score([image for image, _ in shown], [prompt for _, prompt in shown])
    values = iter(zip(scores.values, scores.truncated, strict=True))
    outcomes: list[_Outcome] = []
    for _, black in images:
        value, truncated = (None, False) if black else next(values)
        outcomes.append((None, False, BLACKENED) if value is None else (float(value), bool(truncated), None))
    return outcomes


def _too_long(renderer: Renderer, rewrites: Sequence[str]) -> list[bool]:
    if isinstance(renderer, FlaggingRenderer):
        return [bool(flag) for flag in renderer.too_long(rewrites)]
    return [False] * len(rewrites)


def _batches(keys: list[tuple[str, int, str]], size: int) -> Iterator[tuple[int, list[tuple[str, int, str]]]]:
    for start in range(0, len(keys), size):
        yield start, keys[start : start + size]


def _refuse_broken(rows: Sequence[Score]) -> None:
    broken = [row for row in rows if row.score is not None and not math.isfinite(row.score)]
    if broken:
        ids = ", ".join(row.candidate_id for row in broken[:5])
        raise DataError(
            f"{broken[0].scorer} gave scores that are not finite to candidates {ids}"
            f"{' …' if len(broken) > 5 else ''}; try label.renderer.precision=float32, or another scorer"
        )
