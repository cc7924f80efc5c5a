"""The scores of an evaluation's images: against the user's prompt, or against the rewrite."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from semdpo.data.records import RenderedImage, Score
from semdpo.errors import DataError, PartlyRefusedError
from semdpo.models.images import decode
from semdpo.progress import Progress, silent
from semdpo.protocols import ScoreBatch, Scorer, UnscoredError

if TYPE_CHECKING:
    from PIL import Image


def score_images(
    images: Sequence[RenderedImage], scorer: Scorer, name: str, progress: Progress = silent
) -> list[Score]:
    """Scores each image against the *user's* prompt.

    An image that the safety checker blackened, or that could not be rendered, gets no score, nor does one for which the
    scorer raises an ``UnscoredError``; its row says why.

    Args:
        images: the rows of the images, [n].
        scorer: the scorer.
        name: the metric's name, for the rows and for errors.
        progress: called at the end.

    Returns:
        The scores, [n], in the images' order.

    Raises:
        DataError: an image cannot be read, or the scorer gave a wrong number of scores, scores that are not finite, or
            none at all; the message names the rows.
    """
    return _scored(images, [image.prompt for image in images], scorer, name, progress)


def consistency(images: Sequence[RenderedImage], scorer: Scorer, name: str, progress: Progress = silent) -> list[Score]:
    """Scores each image against the *rewrite* that it was rendered from: the renderer's drift (Proposition 2).

    Arguments, result and errors are those of ``score_images``; the scores are cosines.
    """
    return _scored(images, [image.rewrite for image in images], scorer, name, progress)


def _scored(
    images: Sequence[RenderedImage], texts: Sequence[str], scorer: Scorer, name: str, progress: Progress
) -> list[Score]:
    shown = [(image, text) for image, text in zip(images, texts, strict=True) if image.missing is None]
    scores = iter(_checked_scores([image for image, _ in shown], [text for _, text in shown], scorer, name))
    progress(len(images), len(images), name)
    return [
        Score(image.candidate_id, name, None, image.image_seed, False, image.missing) if image.missing else next(scores)
        for image in images
    ]


def _checked_scores(images: Sequence[RenderedImage], texts: Sequence[str], scorer: Scorer, name: str) -> list[Score]:
    if not images:
        return []
    shown = [decoded(image) for image in images]
    try:
        return _rows(images, scorer.score(shown, texts), name)
    except PartlyRefusedError as error:  # a server has answered the others
        outcomes = error.outcomes
    except UnscoredError:
        outcomes = [_outcome(scorer, *each) for each in zip(shown, texts, strict=True)]
    return _rows_with_unscored(images, outcomes, name)


def _outcome(scorer: Scorer, image: Image.Image, text: str) -> tuple[float, bool] | Exception:
    """An image's score and whether its text was truncated, or why the scorer has none for it."""
    try:
        scores = scorer.score([image], [text])
    except UnscoredError as error:
        return error
    return float(scores.values[0]), bool(scores.truncated[0])


def _rows_with_unscored(
    images: Sequence[RenderedImage], outcomes: Sequence[tuple[float, bool] | Exception], name: str
) -> list[Score]:
    rows: list[Score] = []
    for image, outcome in zip(images, outcomes, strict=True):
        if isinstance(outcome, Exception):
            rows.append(Score(image.candidate_id, name, None, image.image_seed, False, f"{name}: {outcome}"))
        else:
            value, truncated = outcome
            rows += _rows([image], ScoreBatch(np.array([value]), np.array([truncated])), name)
    if all(row.unscored for row in rows):
        first = f"{described(images[0])}: {rows[0].error}"
        raise DataError(f"'{name}' scored none of {len(rows)} images; the first is {first}; use another scorer")
    return rows


def _rows(images: Sequence[RenderedImage], scores: ScoreBatch, name: str) -> list[Score]:
    if len(scores.values) != len(images) or len(scores.truncated) != len(images):
        first = described(images[min(len(scores.values), len(images) - 1)])
        raise DataError(
            f"'{name}' gave {len(scores.values)} scores for {len(images)} images; they end before or continue "
            f"after {first}; correct the scorer"
        )
    broken = [image for image, value in zip(images, scores.values, strict=True) if not math.isfinite(value)]
    if broken:
        examples = ", ".join(described(image) for image in broken[:3])
        raise DataError(
            f"'{name}' gave {len(broken)} scores that are not finite ({examples}{' …' if len(broken) > 3 else ''}); "
            "try scoring.precision=float32, or another scorer"
        )
    return [
        Score(image.candidate_id, name, float(value), image.image_seed, bool(truncated))
        for image, value, truncated in zip(images, scores.values, scores.truncated, strict=True)
    ]


def described(image: RenderedImage) -> str:
    """Which image it is, for messages."""
    return f"method '{image.method}', prompt {image.prompt_id}, seed {image.image_seed}"


def decoded(image: RenderedImage) -> Image.Image:
    """Decodes the image of a row.

    Raises:
        DataError: the image is damaged.
    """
    try:
        return decode(image.image)
    except OSError as error:
        raise DataError(
            f"the image of {described(image)} is damaged or incomplete ({error}); remove the "
            f"folder of the method's images (evaluate/{image.method}/images in the run's folder, or "
            "sweep/evaluate/… for a sweep), and evaluate again"
        ) from error
