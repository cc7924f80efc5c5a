"""Stage 8: draw every method's rewrites of held-out prompts, judge each picture against the user's prompt, join."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from semdpo.analysis.semantics import cosine_distance
from semdpo.data.records import EvaluationRow, Judgement, Picture, Prompt, content_seed
from semdpo.errors import DataError
from semdpo.models.images import rgb
from semdpo.progress import Progress, silent
from semdpo.protocols import FlaggingRewriter, Renderer, Rewriter, Scorer, TextEncoder, render_checked

SHOWN_QUALITY = 90  # of the pictures on the report's page; judges see the lossless ones


@runtime_checkable
class KnowsLimit(Protocol):
    """A renderer that can tell which prompts it reads only in part."""

    def too_long(self, prompts: Sequence[str]) -> NDArray[np.bool_]:
        """Which prompts are longer than it reads, [n]."""
        ...


@dataclass(frozen=True, slots=True)
class _Texts:
    """What is known of each prompt and rewrite before anything is drawn; all of length n."""

    tokens: Sequence[int]
    distance: NDArray[np.float64]
    truncated: NDArray[np.bool_]


def rewrite_all(prompts: Sequence[Prompt], rewriter: Rewriter, seed: int) -> tuple[list[str], int]:
    """One rewrite for each prompt, in their order. An empty one stays empty: it is what the user would have got.

    Args:
        prompts: n prompts.
        rewriter: which knows how to decode.
        seed: of its sampling.

    Returns:
        The rewrites, and how many of them met the rewriter's token budget before they had ended, as far as it tells.
    """
    texts = [each.prompt for each in prompts]
    if isinstance(rewriter, FlaggingRewriter):
        flagged = [row[0] for row in rewriter.rewrite_flagged(texts, 1, seed)]
        return [rewrite for rewrite, _ in flagged], sum(cut for _, cut in flagged)
    return [row[0] for row in rewriter.rewrite(texts, 1, seed)], 0


def draw(
    method: str,
    prompts: Sequence[Prompt],
    rewrites: Sequence[str],
    renderer: Renderer,
    encoder: TextEncoder,
    image_seeds: Sequence[int],
    batch_size: int,
    count_tokens: Callable[[Sequence[str]], Sequence[int]],
    progress: Progress = silent,
) -> list[Picture]:
    """Pictures of rewrites.

    The seed of a picture is made of the prompt's id and the image seed, so all methods share it.

    Args:
        method: the rows' name.
        prompts: n prompts.
        rewrites: of the method, n; the prompts themselves for ``human``.
        renderer: draws.
        encoder: measures the drift.
        image_seeds: one picture of every rewrite for each.
        batch_size: pictures that are asked for at once.
        count_tokens: of the rewriter's tokenizer: texts to numbers of tokens.
        progress: told after every batch.

    Returns:
        n · len(image_seeds) rows, prompt by prompt. ``truncated`` says that the renderer or the encoder did not read
        the rewrite to its end, or the encoder the prompt.

    Raises:
        DataError: numbers of prompts and rewrites differ, or the renderer gives another number of pictures than asked.
    """
    if len(prompts) != len(rewrites):
        raise DataError(f"{method} has {len(rewrites)} rewrites for {len(prompts)} prompts; rewrite them again")
    if not prompts:
        return []
    known = _texts(prompts, rewrites, renderer, encoder, count_tokens)
    order = [(i, seed) for i in range(len(prompts)) for seed in image_seeds]
    rows: list[Picture] = []
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        seeds = [content_seed("image", prompts[i].prompt_id, str(seed)) for i, seed in batch]
        images = render_checked(renderer, [rewrites[i] for i, _ in batch], seeds)
        if len(images) != len(batch):
            raise DataError(f"{method}: the renderer drew {len(images)} pictures for {len(batch)} texts; mend it")
        rows += [
            Picture(
                method=method,
                prompt_id=prompts[i].prompt_id,
                prompt=prompts[i].prompt,
                source=prompts[i].source,
                image_seed=seed,
                rewrite=rewrites[i],
                tokens=int(known.tokens[i]),
                distance=float(known.distance[i]),
                truncated=bool(known.truncated[i]),
                image=_lossless(image),
                blackened=black,
            )
            for (i, seed), (image, black) in zip(batch, images, strict=True)
        ]
        progress(len(rows), len(order))
    return rows


def judge(pictures: Sequence[Picture], scorer: Scorer, name: str, progress: Progress = silent) -> list[Judgement]:
    """One judge's scores of pictures, each against what the *user* asked for.

    A picture that the safety checker blackened gets no score.

    Args:
        pictures: n.
        scorer: the judge.
        name: of the metric, for errors.
        progress: told at the end.

    Returns:
        n judgements, in the pictures' order.

    Raises:
        DataError: a picture cannot be read, the judge gave more or fewer scores than pictures, or one that is not
            finite; the rows are named.
    """
    return _judged(pictures, [picture.prompt for picture in pictures], scorer, name, progress)


def consistency(pictures: Sequence[Picture], scorer: Scorer, name: str, progress: Progress = silent) -> list[Judgement]:
    """How well each picture shows the *rewrite* it was drawn from: the renderer's part of the drift (Proposition 2).

    Arguments, result and errors as of ``judge``; the scorer's values are cosines.
    """
    return _judged(pictures, [picture.rewrite for picture in pictures], scorer, name, progress)


def _judged(
    pictures: Sequence[Picture], texts: Sequence[str], scorer: Scorer, name: str, progress: Progress
) -> list[Judgement]:
    shown = [(picture, text) for picture, text in zip(pictures, texts, strict=True) if not picture.blackened]
    found = iter(_asked([picture for picture, _ in shown], [text for _, text in shown], scorer, name))
    progress(len(pictures), len(pictures), name)
    return [
        Judgement(picture.prompt_id, picture.image_seed, None, False) if picture.blackened else next(found)
        for picture in pictures
    ]


def _asked(pictures: Sequence[Picture], texts: Sequence[str], scorer: Scorer, name: str) -> list[Judgement]:
    if not pictures:
        return []
    scores = scorer.score([_open(picture) for picture in pictures], texts)
    if len(scores.values) != len(pictures) or len(scores.truncated) != len(pictures):
        first = _named(pictures[min(len(scores.values), len(pictures) - 1)])
        raise DataError(
            f"'{name}' gave {len(scores.values)} scores for {len(pictures)} pictures; its scores end before or go on "
            f"after {first}; mend the judge"
        )
    broken = [p for p, value in zip(pictures, scores.values, strict=True) if not math.isfinite(value)]
    if broken:
        named = ", ".join(_named(each) for each in broken[:3])
        raise DataError(
            f"'{name}' gave {len(broken)} scores that are not finite ({named}{' …' if len(broken) > 3 else ''}); "
            "try scoring.precision=float32, or another judge"
        )
    return [
        Judgement(picture.prompt_id, picture.image_seed, float(value), bool(cut))
        for picture, value, cut in zip(pictures, scores.values, scores.truncated, strict=True)
    ]


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
        raise DataError(f"the picture of {_named(picture)} has no score; evaluate again")
    return judgement.score


def _texts(
    prompts: Sequence[Prompt],
    rewrites: Sequence[str],
    renderer: Renderer,
    encoder: TextEncoder,
    count_tokens: Callable[[Sequence[str]], Sequence[int]],
) -> _Texts:
    asked, got = encoder.encode([each.prompt for each in prompts]), encoder.encode(rewrites)
    truncated = asked.truncated | got.truncated
    if isinstance(renderer, KnowsLimit):
        truncated = truncated | renderer.too_long(rewrites)
    return _Texts(count_tokens(rewrites), cosine_distance(asked.vectors, got.vectors), truncated)


def _refuse_others(pictures: Sequence[Picture], rows: Sequence[Judgement], name: str) -> None:
    if len(rows) != len(pictures):
        raise DataError(f"'{name}' judged {len(rows)} pictures, and there are {len(pictures)}; evaluate again")
    for picture, row in zip(pictures, rows, strict=True):
        if (picture.prompt_id, picture.image_seed) != (row.prompt_id, row.image_seed):
            raise DataError(
                f"'{name}' judged prompt {row.prompt_id}, seed {row.image_seed}, where {_named(picture)} stands; "
                "evaluate again"
            )


def _named(picture: Picture) -> str:
    return f"method '{picture.method}', prompt {picture.prompt_id}, seed {picture.image_seed}"


def _open(picture: Picture) -> Image.Image:
    try:
        with Image.open(io.BytesIO(picture.image)) as image:
            return rgb(image)
    except (UnidentifiedImageError, OSError) as error:
        raise DataError(
            f"the picture of {_named(picture)} is damaged or half-written ({error}); remove the "
            f"method's folder of pictures (evaluate/{picture.method}/pictures of the run, or sweep/evaluate/… of a "
            "sweep), and evaluate again"
        ) from error


def _lossless(image: Image.Image) -> bytes:
    # The quickest of WebP's lossless ways: a third larger than the slowest, and ten times as fast.
    buffer = io.BytesIO()
    rgb(image).save(buffer, "WEBP", lossless=True, quality=0, method=0)
    return buffer.getvalue()


def _small(picture: Picture) -> bytes:
    buffer = io.BytesIO()
    _open(picture).save(buffer, "WEBP", quality=SHOWN_QUALITY)
    return buffer.getvalue()
