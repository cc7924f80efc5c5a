"""Stage 4: render every candidate that the render budget keeps, and score its image against the user's prompt."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from semdpo.analysis.render_budget import kept
from semdpo.data.atoms import NO_ATOMS, Atom
from semdpo.data.atoms import by_prompt as atoms_of_prompts
from semdpo.data.records import BLACKENED, Candidate, RenderDraw, Score, content_seed
from semdpo.engine import image_cache, score_cache, store
from semdpo.engine.image_cache import ImageCache, Rendered
from semdpo.engine.score_cache import ScoreCache
from semdpo.engine.shards import by_prompt
from semdpo.engine.stage import Made, Run, Shard, TableStage
from semdpo.errors import DataError
from semdpo.models import attempts
from semdpo.progress import Progress, silent
from semdpo.protocols import Renderer, Scorer
from semdpo.recipe.atoms import ATOMS, AtomsConfig
from semdpo.recipe.endpoints import is_url
from semdpo.recipe.label import LabelConfig
from semdpo.recipe.schema import Recipe

if TYPE_CHECKING:
    from PIL import Image

_Key = tuple[str, int, str]  # rewrite, image seed, prompt
_Outcome = tuple[float | None, bool, str | None]  # score, truncated, error

NAME = "label"


def stage(recipe: Recipe) -> TableStage:
    """The stage that renders every candidate, or those that the render budget keeps, and scores the image."""
    config, budget = recipe.label, recipe.render_budget
    scorers = {"label.scorer": config.scorer} | ({} if config.fidelity is None else {"label.fidelity": config.fidelity})
    atoms = _scored_atoms(recipe)
    asked = {} if atoms is None else atoms.answering
    settings = config.of_results() | {"scoring": recipe.scoring.of_results(*scorers.values(), *asked.values())}
    inputs: tuple[str, ...] = ("candidates",)
    if budget is not None:  # among the settings too, so that a recipe without a budget refuses a part of the scores
        settings |= {"render_budget": budget.model_dump(mode="json")}
        inputs = (*inputs, "render_budget")
    outside = config.renderer.models("label.renderer")
    outside |= {key: name for key, name in (scorers | asked).items() if not is_url(name)}
    if atoms is not None:
        settings |= {"atoms": atoms.of_scores()}
        inputs = (*inputs, "atoms")
        outside = {key: name for key, name in outside.items() if key != "label.fidelity"}
    return TableStage(NAME, "rendering and scoring", settings, inputs, outside, Score, _work, pool="render")


def _work(run: Run) -> list[Shard]:
    config = run.recipe.label
    names = [name for name in (config.scorer, config.fidelity) if name is not None]
    renderer = cache(lambda: run.models.renderer(config.renderer))
    asked = cache(lambda: atoms_of_prompts(run.rows("atoms", Atom)) if _scored_atoms(run.recipe) else None)
    scorers = cache(lambda: {name: _scorer(run, name, asked()) for name in names})
    known = cache(lambda: {name: _known(run, name) for name in names} if config.reuse_scores else {})
    images = cache(lambda: _images(run) if config.reuse_images else None)
    candidates = run.shards("candidates", Candidate)
    draws = None if run.recipe.render_budget is None else run.shards("render_budget", RenderDraw)

    def make(index: int, start: int, stop: int, progress: Progress) -> Made:
        rendered = candidates.between(start, stop)
        if draws is not None:
            prompts = kept(draws.read(index))
            rendered = [row for row in rendered if row.prompt_id in prompts]
        atoms = asked()
        bare = () if atoms is None else frozenset(row.prompt for row in rendered if row.prompt_id not in atoms)
        rows = label(rendered, renderer(), scorers(), config, progress, known(), images(), bare)
        preferences = [row for row in rows if row.scorer == config.scorer]
        counts = {
            "truncated": sum(row.truncated for row in preferences),
            "blackened": sum(row.error == BLACKENED for row in preferences),
            "failed": len(_failures(rows)),
        }
        if atoms is not None:
            counts["without_atoms"] = sum(row.error == NO_ATOMS for row in rows)
        return rows, counts

    places = by_prompt(candidates.column("prompt_id"), config.shard_size)
    sizes = [stop - start for start, stop in places]
    if draws is not None:
        sizes = [sum(row.candidates for row in draws.read(index) if row.kept) for index in range(len(places))]
        if not any(sizes):
            raise DataError(
                "render_budget keeps no prompt, because all candidates are too far from their prompts; lower "
                "render_budget.alpha, or give more prompts"
            )
    return [Shard(size, partial(make, index, *places[index])) for index, size in enumerate(sizes)]


def _scored_atoms(recipe: Recipe) -> AtomsConfig | None:
    """The recipe's atoms if they are the fidelity scorer."""
    return recipe.atoms if recipe.label.fidelity == ATOMS else None


def _scorer(run: Run, name: str, atoms: Mapping[str, Sequence[Atom]] | None) -> Scorer:
    config = _scored_atoms(run.recipe)
    if config is None or name != ATOMS:
        return run.models.scorer(name, run.recipe.scoring)
    from semdpo.models.atom_scorer import AtomScorer

    return AtomScorer(run.models.answerer(str(config.model), run.recipe.scoring), atoms or {}, config.mean)


def _known(run: Run, scorer: str) -> ScoreCache:
    """The scores that earlier runs got from a scorer for images of this run's renderer."""
    config = _scored_atoms(run.recipe)
    if config is not None and scorer == ATOMS:  # other atoms of a prompt are other scores
        model = str(config.model)
        parts = [run.models.content(model), config.mean, store.manifest_hash(run.path("atoms"))]
    else:
        model = scorer
        parts = [run.models.content(scorer)]
    scoring = run.recipe.scoring.of_results(model)
    depends_on = _rendering(run, without={"batch_size"}) | {"scorer": [*parts, scoring]}
    return ScoreCache(depends_on, score_cache.default_path())


def _images(run: Run) -> ImageCache:
    """The images that earlier runs rendered with this run's renderer."""
    import torch

    depends_on = _rendering(run, without=set())
    depends_on |= {"threads": store.thread_count(), "processor": torch.backends.cpu.get_cpu_capability()}
    return ImageCache(depends_on, image_cache.default_path(), run.recipe.label.kept_images_gb * 1e9)


def _rendering(run: Run, without: set[str]) -> dict[str, Any]:
    """What the images of a run depend on, besides their texts and seeds, without some of the renderer's settings."""
    import torch

    config = run.recipe.label.renderer
    settings = config.of_results()
    # Names are left out, since contents count; but a server has none, and some families are known by name alone.
    by_name = config.is_remote or "family_defaults" in settings
    left_out = {"tiny_vae", *without} | (set() if by_name else {"model"})
    return {
        "renderer": {name: value for name, value in settings.items() if name not in left_out},
        "models": [run.models.fingerprint(name) for name in config.models("renderer").values()],
        "versions": dict(store.versions()),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
    }


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
    known: Mapping[str, ScoreCache] | None = None,
    kept_images: ImageCache | None = None,
    bare: Collection[str] = (),
) -> list[Score]:
    """Renders candidates and scores their images.

    All candidates of one prompt are rendered with one image seed, so that only their words differ. An equal (rewrite,
    seed) is rendered once. The scorer gets the *user's* prompt, never the rewrite. A row has no score, and gives the
    reason in ``error``, where the renderer's safety checker blackened the image, the image cannot be rendered or
    scored, or the score is not finite.

    Args:
        candidates: the candidates of one shard.
        renderer: the text-to-image model.
        scorers: name → scorer: the preference scorer, and the fidelity scorer where the recipe has one.
        config: the scorers' names, the batch size, the seed and how many candidates may fail.
        progress: called after every batch.
        known: scorer's name → its scores of earlier runs; new ones are added to them. None looks for none.
        kept_images: the images of earlier runs; new ones are added to them. None looks for none.
        bare: the prompts without atoms, whose images the scorer ``atoms`` cannot score.

    Returns:
        One score of each scorer for each candidate, in the candidates' order. ``truncated`` is true when the prompt is
        longer than the scorer reads, or the rewrite longer than the renderer reads.

    Raises:
        DataError: more candidates failed than ``config.max_failed`` allows; the message gives the first reason.
    """
    seeds = [content_seed("label", str(config.seed), candidate.prompt_id) for candidate in candidates]
    keys = zip((c.rewrite for c in candidates), seeds, (c.prompt for c in candidates), strict=True)
    distinct = list(dict.fromkeys(keys))
    outcomes = _known_outcomes(known or {}, distinct)
    distinct = [key for key in distinct if any((name, key) not in outcomes for name in scorers)]
    for start, batch in _batches(distinct, config.batch_size):
        images = _rendered(renderer, batch, kept_images)
        for name, scorer in scorers.items():
            shown = _without(images, batch, bare) if name == ATOMS else images
            for key, image, outcome in zip(batch, images, _scored(name, scorer, shown, batch), strict=True):
                value, truncated, error = outcome
                outcomes[name, key] = value, truncated or image.too_long, error
        for name, scores in (known or {}).items():
            given = {key: outcomes[name, key] for key in batch}
            scores.put({key: (value, truncated) for key, (value, truncated, _) in given.items() if value is not None})
        progress(start + len(batch), len(distinct))
    rows = []
    for candidate, seed in zip(candidates, seeds, strict=True):
        for name in scorers:
            value, truncated, error = outcomes[name, (candidate.rewrite, seed, candidate.prompt)]
            rows.append(Score(candidate.candidate_id, name, value, seed, truncated, error))
    _refuse_many_failures(rows, len(candidates), config.max_failed)
    return rows


def _known_outcomes(known: Mapping[str, ScoreCache], keys: Sequence[_Key]) -> dict[tuple[str, _Key], _Outcome]:
    return {
        (name, key): (value, truncated, None)
        for name, scores in known.items()
        for key, (value, truncated) in scores.get(keys).items()
    }


def _rendered(renderer: Renderer, batch: Sequence[_Key], kept: ImageCache | None) -> list[Rendered]:
    """The images of a batch, rendered or kept, [n]; later runs try again what could not be rendered."""
    rows = [(rewrite, seed) for rewrite, seed, _ in batch]
    found = None if kept is None else kept.get(rows)
    if found is None:
        found, together = _newly_rendered(renderer, rows)
        # Images that were rendered one by one may have other last digits than those of a whole batch.
        if kept is not None and together and all(each.error in (None, BLACKENED) for each in found):
            kept.put(rows, found)
    return found


def _newly_rendered(renderer: Renderer, rows: Sequence[tuple[str, int]]) -> tuple[list[Rendered], bool]:
    """The images of a batch, [n], and whether they were rendered together."""
    too_long = _too_long(renderer, [text for text, _ in rows])
    drawn, together = attempts.rendered(renderer, rows)
    found = []
    for each, long in zip(drawn, too_long, strict=True):
        if isinstance(each, str):
            found.append(Rendered(None, each, long))
        else:
            image, black = each
            found.append(Rendered(None if black else image, BLACKENED if black else None, long))
    return found, together


def _without(images: Sequence[Rendered], batch: Sequence[_Key], bare: Collection[str]) -> list[Rendered]:
    """The images, of which those of prompts without atoms cannot be scored."""
    return [
        replace(each, image=None, error=NO_ATOMS) if prompt in bare and each.image is not None else each
        for each, (_, _, prompt) in zip(images, batch, strict=True)
    ]


def _scored(name: str, scorer: Scorer, images: Sequence[Rendered], batch: Sequence[_Key]) -> list[_Outcome]:
    """Each image's score, whether its prompt was truncated, and why it has no score, [n]."""

    def score(shown: Sequence[tuple[Image.Image, str]]) -> list[tuple[float, bool]]:
        scores = scorer.score([image for image, _ in shown], [prompt for _, prompt in shown])
        return [(float(v), bool(t)) for v, t in zip(scores.values, scores.truncated, strict=True)]

    pairs = zip(images, batch, strict=True)
    shown = [(rendered.image, prompt) for rendered, (_, _, prompt) in pairs if rendered.image is not None]
    found = iter(attempts.attempted(score, shown))
    return [(None, False, each.error) if each.image is None else _outcome(name, next(found)) for each in images]


def _outcome(name: str, scored: tuple[float, bool] | Exception) -> _Outcome:
    if isinstance(scored, Exception):
        return None, False, f"{name} cannot score the image ({attempts.reason(scored)})"
    value, truncated = scored
    if not math.isfinite(value):
        return None, truncated, f"{name} gave a score that is not finite ({value})"
    return value, truncated, None


def _too_long(renderer: Renderer, rewrites: Sequence[str]) -> list[bool]:
    if isinstance(renderer, FlaggingRenderer):
        return [bool(flag) for flag in renderer.too_long(rewrites)]
    return [False] * len(rewrites)


def _batches(keys: list[_Key], size: int) -> Iterator[tuple[int, list[_Key]]]:
    for start in range(0, len(keys), size):
        yield start, keys[start : start + size]


def _failures(rows: Sequence[Score]) -> dict[str, str]:
    """Candidate → why it has no score, without those that the safety checker blackened or that have no atoms."""
    return {row.candidate_id: row.error for row in rows if row.error not in (None, BLACKENED, NO_ATOMS)}


def _refuse_many_failures(rows: Sequence[Score], candidates: int, allowed: float) -> None:
    """One candidate of a shard may fail, however small the shard, unless none may."""
    failures = _failures(rows)
    if len(failures) > attempts.tolerated(candidates, allowed):
        first, reason = next(iter(failures.items()))
        raise DataError(
            f"{len(failures)} of a shard's {candidates} candidates have no score, and label.max_failed is {allowed:g}; "
            f"the first is {first}: {reason}; correct the cause (scores that are not finite: "
            "label.renderer.precision=float32 or another scorer), or raise label.max_failed"
        )
