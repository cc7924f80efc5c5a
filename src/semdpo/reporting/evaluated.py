"""The rows of a finished evaluation: one an image, with every metric, of the images that all methods have."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import replace

from semdpo.data.records import EvaluationRow, Judgement, Picture
from semdpo.engine import store
from semdpo.engine.stage import Run
from semdpo.errors import DataError
from semdpo.stages.evaluate import CONSISTENCY, Evaluation, described, opened

SHOWN_QUALITY = 90  # of the images on the report's page; scorers see the lossless ones


def evaluation_rows(evaluation: Evaluation, run: Run) -> list[EvaluationRow]:
    """One row per picture of the finished evaluation, method by method.

    Where the safety checker blackened one method's picture, the pictures of the same prompt and image seed are
    left out of all methods, so that all are compared on the same.

    Raises:
        DataError: a judge's scores and the pictures do not belong together, or no place is left.
    """
    found: list[EvaluationRow] = []
    black = blackened(evaluation, run)
    places = {place for own in black.values() for place in own}
    for method in evaluation.models:
        judgements = {m: run.rows(f"{evaluation.folder}/{method}/{m}", Judgement) for m in evaluation.config.metrics}
        pictures, own = _drawn(evaluation, run, method), f"{evaluation.folder}/{method}/{CONSISTENCY}"
        consistencies = run.rows(own, Judgement) if method in evaluation.compared(run.recipe) else None
        rows = join(pictures, judgements, evaluation.config.keep_images, consistencies)
        found += [row for row in rows if (row.prompt_id, row.image_seed) not in places]
    if places and not found:
        raise DataError(
            "nothing is left to compare: for every prompt and image seed the safety checker blackened the picture "
            "of a method; set evaluate.renderer.safety_checker=false, or give other prompts"
        )
    return found


def blackened(evaluation: Evaluation, run: Run) -> dict[str, list[tuple[str, int]]]:
    """Of each method the prompt and image seed of the pictures that the safety checker blackened."""
    counts = {
        m: store.row_counts(run.folder / evaluation.pictures_stage(m)).get("blackened", 0) for m in evaluation.models
    }
    return {
        method: [(p.prompt_id, p.image_seed) for p in _without_images(evaluation, run, method) if p.blackened]
        if count
        else []
        for method, count in counts.items()
    }


def _without_images(evaluation: Evaluation, run: Run, method: str) -> list[Picture]:
    return run.rows(evaluation.pictures_stage(method), Picture, unread={"image": b""})


def _drawn(evaluation: Evaluation, run: Run, method: str) -> list[Picture]:
    """A method's pictures, of which only those that a report shows have their image."""
    pictures = _without_images(evaluation, run, method)
    shown = shown_rows(pictures, evaluation.config.keep_images)
    images = run.shards(evaluation.pictures_stage(method), Picture).cells("image", shown)
    for row, image in zip(shown, images, strict=True):
        pictures[row] = replace(pictures[row], image=image)
    return pictures


def join(
    pictures: Sequence[Picture],
    judgements: Mapping[str, Sequence[Judgement]],
    keep_images: int,
    consistencies: Sequence[Judgement] | None = None,
) -> list[EvaluationRow]:
    """One row per picture, with every judge's score; those that the safety checker blackened have none, and no row.

    Args:
        pictures: of one method, prompt by prompt.
        judgements: metric to judgements of the same pictures in the same order.
        keep_images: of so many prompts, the ``shown_rows`` carry their image; no other image is looked at.
        consistencies: of the pictures and the rewrites, where the encoder is one of the judges.

    Raises:
        DataError: a metric's judgements are of other pictures; the first one is named.
    """
    for name, rows in judgements.items():
        _refuse_others(pictures, rows, name)
    if consistencies is not None:
        _refuse_others(pictures, consistencies, "consistency")
    shown = set(shown_rows(pictures, keep_images))
    return [
        EvaluationRow(
            method=picture.method,
            prompt_id=picture.prompt_id,
            prompt=picture.prompt,
            source=picture.source,
            image_seed=picture.image_seed,
            rewrite=picture.rewrite,
            tokens=picture.tokens,
            distance=picture.distance,
            truncated=picture.truncated or any(rows[i].truncated for rows in judgements.values()),
            metrics={name: _score(rows[i], picture) for name, rows in judgements.items()},
            image=_small(picture) if i in shown else None,
            consistency=None if consistencies is None else consistencies[i].score,
        )
        for i, picture in enumerate(pictures)
        if not picture.blackened
    ]


def shown_rows(pictures: Sequence[Picture], keep_images: int) -> list[int]:
    """Which images a report shows: of the first prompts, those at the first image seed that are not blackened.

    Args:
        pictures: of one method, prompt by prompt.
        keep_images: of how many prompts.

    Returns:
        Rows, counted from 0, ascending.
    """
    shown = set(list(dict.fromkeys(picture.prompt_id for picture in pictures))[:keep_images])
    return [
        row
        for row, picture in enumerate(pictures)
        if picture.prompt_id in shown and picture.image_seed == pictures[0].image_seed and not picture.blackened
    ]


def _score(judgement: Judgement, picture: Picture) -> float:
    if judgement.score is None:
        raise DataError(f"the picture of {described(picture)} has no score; evaluate again")
    return judgement.score


def _refuse_others(pictures: Sequence[Picture], rows: Sequence[Judgement], name: str) -> None:
    if len(rows) != len(pictures):
        raise DataError(f"'{name}' judged {len(rows)} pictures, and there are {len(pictures)}; evaluate again")
    for picture, row in zip(pictures, rows, strict=True):
        if (picture.prompt_id, picture.image_seed) != (row.prompt_id, row.image_seed):
            raise DataError(
                f"'{name}' judged prompt {row.prompt_id}, seed {row.image_seed}, where {described(picture)} stands; "
                "evaluate again"
            )


def _small(picture: Picture) -> bytes:
    buffer = io.BytesIO()
    opened(picture).save(buffer, "WEBP", quality=SHOWN_QUALITY)
    return buffer.getvalue()
