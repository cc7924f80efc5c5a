"""Stage 8: draw a method's rewrites of held-out prompts and judge every picture against the user's prompt."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from semdpo.config import EvaluateConfig
from semdpo.errors import DataError
from semdpo.progress import Progress, silent
from semdpo.protocols import Renderer, Rewriter, Scorer, TextEncoder
from semdpo.records import EvaluationRow, Prompt, content_seed
from semdpo.semantics import cosine_distance

WEBP_QUALITY = 90


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


def rewrite_all(prompts: Sequence[Prompt], rewriter: Rewriter, seed: int) -> list[str]:
    """One rewrite for each prompt, in their order. An empty one stays empty: it is what the user would have got.

    Args:
        prompts: n prompts.
        rewriter: which knows how to decode.
        seed: of its sampling.
    """
    return [row[0] for row in rewriter.rewrite([each.prompt for each in prompts], 1, seed)]


def evaluate(
    method: str,
    prompts: Sequence[Prompt],
    rewrites: Sequence[str],
    renderer: Renderer,
    scorers: Mapping[str, Scorer],
    encoder: TextEncoder,
    config: EvaluateConfig,
    count_tokens: Callable[[Sequence[str]], Sequence[int]],
    progress: Progress = silent,
) -> list[EvaluationRow]:
    """Pictures of rewrites, judged against the prompts.

    The seed of a picture is made of the prompt's id and the image seed, so all methods share it. Each picture is
    drawn once for all metrics.

    Args:
        method: the rows' name.
        prompts: n prompts.
        rewrites: of the method, n; the prompts themselves for ``human``.
        renderer: draws.
        scorers: column name to judge.
        encoder: measures the drift.
        config: image seeds, and how many of *these* prompts' pictures are kept (at their first image seed).
        count_tokens: of the rewriter's tokenizer: texts to numbers of tokens.
        progress: told after every batch of pictures, and after every judge.

    Returns:
        n · len(config.image_seeds) rows, prompt by prompt. ``truncated`` says that the renderer or the encoder did
        not read the rewrite to its end, or a judge or the encoder the prompt.

    Raises:
        DataError: numbers of prompts and rewrites differ.
    """
    if len(prompts) != len(rewrites):
        raise DataError(f"{method} has {len(rewrites)} rewrites for {len(prompts)} prompts; rewrite them again")
    if not prompts:
        return []
    known = _texts(prompts, rewrites, renderer, encoder, count_tokens)
    order = [(i, seed) for i in range(len(prompts)) for seed in config.image_seeds]
    images = _draw(prompts, rewrites, renderer, config, order, progress, len(order) * (1 + len(scorers)))
    asked = [prompts[i].prompt for i, _ in order]
    values: dict[str, NDArray[np.float32]] = {}
    truncated = known.truncated[[i for i, _ in order]]
    for name, scorer in scorers.items():
        scores = scorer.score(images, asked)
        values[name] = scores.values
        truncated = truncated | scores.truncated
        progress(len(order) * (1 + len(values)), len(order) * (1 + len(scorers)), name)
    return [
        EvaluationRow(
            method=method,
            prompt_id=prompts[i].prompt_id,
            prompt=prompts[i].prompt,
            source=prompts[i].source,
            image_seed=seed,
            rewrite=rewrites[i],
            tokens=int(known.tokens[i]),
            distance=float(known.distance[i]),
            truncated=bool(truncated[row]),
            metrics={name: float(column[row]) for name, column in values.items()},
            image=_webp(images[row]) if i < config.keep_images and seed == config.image_seeds[0] else None,
        )
        for row, (i, seed) in enumerate(order)
    ]


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


def _draw(
    prompts: Sequence[Prompt],
    rewrites: Sequence[str],
    renderer: Renderer,
    config: EvaluateConfig,
    order: Sequence[tuple[int, int]],
    progress: Progress,
    total: int,
) -> list[Image.Image]:
    images: list[Image.Image] = []
    size = config.renderer.batch_size
    for start in range(0, len(order), size):
        batch = order[start : start + size]
        seeds = [content_seed("image", prompts[i].prompt_id, str(seed)) for i, seed in batch]
        images += renderer.render([rewrites[i] for i, _ in batch], seeds)
        progress(len(images), total, "drawing")
    return images


def _webp(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=WEBP_QUALITY)
    return buffer.getvalue()
