"""The rows of a finished evaluation: one per image, with every metric, for the images that all methods have."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from semdpo.data.records import EvaluationRow, RenderedImage, Score
from semdpo.engine import store
from semdpo.engine.stage import Run
from semdpo.errors import DataError
from semdpo.models.scoring import decoded, described
from semdpo.stages.evaluate import CONSISTENCY, Evaluation

Place = tuple[str, int]  # a prompt's id, an image seed
SHOWN_QUALITY = 90  # of the images on the report's page; scorers see the lossless ones


def evaluation_rows(evaluation: Evaluation, run: Run) -> list[EvaluationRow]:
    """One row per image of the finished evaluation, method by method; those that a report shows have their image.

    Where the safety checker blackened one method's image, or it could not be rendered, the images of the same prompt
    and image seed are left out for all methods, so that all are compared on the same images. So are those for which a
    scorer had no score.

    Args:
        evaluation: the stages of the evaluation.
        run: the finished run.

    Raises:
        DataError: a scorer's scores do not belong to the images, or no image is left.
    """
    kept: list[EvaluationRow] = []
    black, lost, without = (
        {place for of_method in found.values() for place in of_method}
        for found in (blackened(evaluation, run), unrendered(evaluation, run), unscored(evaluation, run))
    )
    places = black | lost | without
    for method in evaluation.models:
        scores = {m: run.rows(f"{evaluation.folder}/{method}/{m}", Score) for m in evaluation.config.metrics}
        keep = _kept(evaluation, run, method)
        images = _images(evaluation, run, method, keep)
        stage = f"{evaluation.folder}/{method}/{CONSISTENCY}"
        consistencies = run.rows(stage, Score) if method in evaluation.compared(run.recipe) else None
        rows = join(images, scores, keep, consistencies)
        kept += [row for row in rows if (row.prompt_id, row.image_seed) not in places]
    if places and not kept:
        raise DataError(f"no image is left to compare: for every prompt and image seed {_why(places, black, lost)}")
    return kept


def _why(places: set[Place], black: set[Place], lost: set[Place]) -> str:
    """Why nothing is left, and what to do, as the end of a sentence."""
    if places == black:
        return (
            "the safety checker blackened the image of a method; set evaluate.renderer.safety_checker=false, or give "
            "other prompts"
        )
    if places == black | lost:
        return "the image of a method could not be rendered; name another renderer, or give other prompts"
    return "a scorer had no score for the image of a method; name another scorer in evaluate.metrics"


def blackened(evaluation: Evaluation, run: Run) -> dict[str, list[Place]]:
    """For every method the places of the images that the safety checker blackened."""
    return _places(evaluation, run, "blackened", lambda image: image.blackened)


def unrendered(evaluation: Evaluation, run: Run) -> dict[str, list[Place]]:
    """For every method the places of the images that could not be rendered."""
    return _places(evaluation, run, "failed", lambda image: image.error is not None)


def _places(
    evaluation: Evaluation, run: Run, counted: str, belongs: Callable[[RenderedImage], bool]
) -> dict[str, list[Place]]:
    """For every method the places of some images; its rows are read only where its stage counted any."""
    counts = {m: store.counts(run.folder / evaluation.images_stage(m)).get(counted, 0) for m in evaluation.models}
    return {
        method: [(p.prompt_id, p.image_seed) for p in _without_images(evaluation, run, method) if belongs(p)]
        if count
        else []
        for method, count in counts.items()
    }


def unscored(evaluation: Evaluation, run: Run) -> dict[str, list[Place]]:
    """For every method the places of the images for which a scorer had no score."""
    by_method: dict[str, list[Place]] = {}
    for method in evaluation.models:
        stages = [f"{evaluation.folder}/{method}/{metric}" for metric in evaluation.config.metrics]
        failed = [stage for stage in stages if store.counts(run.folder / stage).get("failed", 0)]
        images = _without_images(evaluation, run, method) if failed else []
        scored = [zip(images, run.rows(stage, Score), strict=True) for stage in failed]
        places = [(image.prompt_id, image.image_seed) for rows in scored for image, row in rows if row.unscored]
        by_method[method] = list(dict.fromkeys(places))
    return by_method


def _without_images(evaluation: Evaluation, run: Run, method: str) -> list[RenderedImage]:
    return run.rows(evaluation.images_stage(method), RenderedImage, unread={"image": b""})


def _kept(evaluation: Evaluation, run: Run, method: str) -> int:
    """The number of prompts whose images a report shows of a method; of one that belongs to another, only if named."""
    shown = method not in run.recipe.secondary or method in run.recipe.report.images
    return evaluation.config.keep_images if shown else 0


def _images(evaluation: Evaluation, run: Run, method: str, keep_images: int) -> list[RenderedImage]:
    """A method's rows; only those that a report shows carry their image."""
    images = _without_images(evaluation, run, method)
    shown = shown_rows(images, keep_images)
    cells = run.shards(evaluation.images_stage(method), RenderedImage).cells("image", shown)
    for row, image in zip(shown, cells, strict=True):
        images[row] = replace(images[row], image=image)
    return images


def join(
    images: Sequence[RenderedImage],
    scores: Mapping[str, Sequence[Score]],
    keep_images: int,
    consistencies: Sequence[Score] | None = None,
) -> list[EvaluationRow]:
    """One row per image, with the score of every scorer.

    Images that the safety checker blackened or that could not be rendered are left out, and so are those for which a
    scorer had no score.

    Args:
        images: one method's images, prompt by prompt.
        scores: metric → scores of the same images in the same order.
        keep_images: number of prompts whose ``shown_rows`` carry their image; no other image is read.
        consistencies: scores of the images against the rewrites, where the encoder is one of the scorers.

    Raises:
        DataError: a metric's scores belong to other images; the message names the first one.
    """
    for name, rows in scores.items():
        _refuse_others(images, rows, name)
    if consistencies is not None:
        _refuse_others(images, consistencies, "consistency")
    shown = set(shown_rows(images, keep_images))
    return [
        EvaluationRow(
            method=image.method,
            prompt_id=image.prompt_id,
            prompt=image.prompt,
            source=image.source,
            image_seed=image.image_seed,
            rewrite=image.rewrite,
            tokens=image.tokens,
            distance=image.distance,
            truncated=image.truncated or any(rows[i].truncated for rows in scores.values()),
            metrics={name: _value(rows[i], image) for name, rows in scores.items()},
            image=_small(image) if i in shown else None,
            consistency=None if consistencies is None else consistencies[i].score,
        )
        for i, image in enumerate(images)
        if image.missing is None and not any(rows[i].unscored for rows in scores.values())
    ]


def shown_rows(images: Sequence[RenderedImage], keep_images: int) -> list[int]:
    """The images that a report shows: for the first prompts, those at the first image seed that show something.

    Args:
        images: one method's images, prompt by prompt.
        keep_images: number of prompts.

    Returns:
        Ascending row numbers, counted from 0.
    """
    shown = set(list(dict.fromkeys(image.prompt_id for image in images))[:keep_images])
    return [
        row
        for row, image in enumerate(images)
        if image.prompt_id in shown and image.image_seed == images[0].image_seed and image.missing is None
    ]


def _value(score: Score, image: RenderedImage) -> float:
    if score.score is None:
        raise DataError(f"the image of {described(image)} has no score; evaluate again")
    return score.score


def _refuse_others(images: Sequence[RenderedImage], rows: Sequence[Score], name: str) -> None:
    if len(rows) != len(images):
        raise DataError(f"'{name}' scored {len(rows)} images, but there are {len(images)}; evaluate again")
    for image, row in zip(images, rows, strict=True):
        if (image.candidate_id, image.image_seed) != (row.candidate_id, row.image_seed):
            raise DataError(
                f"'{name}' scored rewrite {row.candidate_id}, seed {row.image_seed}, instead of {described(image)}; "
                "evaluate again"
            )


def _small(image: RenderedImage) -> bytes:
    buffer = io.BytesIO()
    decoded(image).save(buffer, "WEBP", quality=SHOWN_QUALITY)
    return buffer.getvalue()
