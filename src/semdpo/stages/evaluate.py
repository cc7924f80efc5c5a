"""Stage 9: render every method's rewrites of held-out prompts, then score each image against the user's prompt.

Images are rendered once for all metrics and kept, each method's in a folder of its own, so that a new metric costs its
own scoring only, and a new method its own images and their scoring. Scorers come one after the other over all methods,
so that one is in memory at a time.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from semdpo.analysis.semantics import cosine_distance
from semdpo.data.records import BLACKENED, Prompt, RenderedImage, Score, content_seed
from semdpo.engine.stage import Made, Run, Shard, TableStage, batched
from semdpo.errors import DataError
from semdpo.models.images import rgb
from semdpo.progress import Progress, silent
from semdpo.protocols import FlaggingRewriter, Renderer, Rewriter, Scorer, TextEncoder, render_checked
from semdpo.recipe.schema import EvaluateConfig, Recipe
from semdpo.texts import is_visible

if TYPE_CHECKING:
    from PIL import Image

CONSISTENCY = "consistency"
Asking = Callable[[Sequence[RenderedImage], Scorer, str, Progress], list[Score]]


def evaluation(recipe: Recipe) -> Evaluation:
    """Every method of a recipe on the held-out prompts."""
    own = {method: f"train/{method}" for method in recipe.train.methods}
    models = {"human": "sft", "sft": "sft", **own, **dict.fromkeys(recipe.evaluate.rewriters, "sft")}
    return Evaluation("evaluate", "prompts", "test", models, recipe.evaluate)


@dataclass(frozen=True)
class Evaluation:
    """Which methods draw which prompts, and who scorers.

    Attributes:
        folder: of the run, where the results go.
        prompts: the stage that holds the prompts.
        split: which of its prompts.
        models: method to the stage whose model rewrites for it; sft's counts the tokens of what no stage's model wrote.
        config: renderer, image seeds, metrics, other rewriters.
    """

    folder: str
    prompts: str
    split: str
    models: Mapping[str, str]
    config: EvaluateConfig

    def stages(self, recipe: Recipe) -> list[TableStage]:
        """All images, method by method; then all scores, metric by metric."""
        found = [self._drawing(recipe, method) for method in self.models]
        for metric, scorer in self.config.metrics.items():
            found += [self._scoring(recipe, metric, method) for method in self.models]
            if scorer == recipe.drift.encoder:  # which is in memory now
                found += [self._comparing(recipe, method) for method in self.compared(recipe)]
        return found

    def images_stage(self, method: str) -> str:
        """The stage that holds a method's images."""
        return f"{self.folder}/{method}/images"

    def _drawing(self, recipe: Recipe, method: str) -> TableStage:
        config, own = self.config, self.config.rewriters.get(method)
        rewriting = {} if method == "human" else {"rewrite": (own or config.rewrite).model_dump(mode="json")}
        shared = config.model_dump(mode="json", include={"image_seeds", "renderer", "shard_size"})
        outside = {"drift.encoder": recipe.drift.encoder, "evaluate.renderer.model": config.renderer.model}
        outside |= {} if own is None else {f"evaluate.rewriters.{method}.model": own.model}
        return TableStage(
            self.images_stage(method),
            "drawing",
            shared | rewriting | {"encoder": recipe.drift.encoder},
            (self.prompts, self.models[method]),
            outside,
            RenderedImage,
            partial(self._draw, method),
        )

    def _scoring(self, recipe: Recipe, metric: str, method: str) -> TableStage:
        scorer = self.config.metrics[metric]
        return TableStage(
            f"{self.folder}/{method}/{metric}",
            "scoring",
            {"scorer": scorer, "scoring": recipe.scoring.of_results()},
            (self.images_stage(method),),
            {f"evaluate.metrics.{metric}": scorer},
            Score,
            partial(self._scores, score_images, scorer, metric, method),
            shown_as=f"{self.folder}/…/{metric}",
        )

    def compared(self, recipe: Recipe) -> list[str]:
        """The methods whose images are compared with their rewrites: all, where the encoder can see images."""
        sees = recipe.drift.encoder in self.config.metrics.values() and self.folder == "evaluate"
        return list(self.models) if sees else []

    def _comparing(self, recipe: Recipe, method: str) -> TableStage:
        encoder = recipe.drift.encoder
        return TableStage(
            f"{self.folder}/{method}/{CONSISTENCY}",
            "comparing images and rewrites",
            {"encoder": encoder, "scoring": recipe.scoring.of_results()},
            (self.images_stage(method),),
            {"drift.encoder": encoder},
            Score,
            partial(self._scores, consistency, encoder, CONSISTENCY, method),
            shown_as=f"{self.folder}/…/{CONSISTENCY}",
        )

    def _shards(self, run: Run) -> list[Sequence[Prompt]]:
        chosen = [prompt for prompt in run.rows(self.prompts, Prompt) if prompt.split == self.split]
        return list(batched(chosen, self.config.shard_size))

    def _draw(self, method: str, run: Run) -> list[Shard]:
        config, own = self.config, self.config.rewriters.get(method)
        model = str(run.folder / self.models[method])
        counter = cache(lambda: run.models.rewriter(model, None, config.rewrite))
        rewriter = counter if own is None else cache(lambda: run.models.rewriter(own.model, own.template, own))
        seed = config.rewrite.seed if own is None else own.seed
        encoder = cache(lambda: run.models.encoder(run.recipe.drift.encoder))
        renderer = cache(lambda: run.models.renderer(config.renderer))

        def make(some: Sequence[Prompt], progress: Progress) -> Made:
            human = method == "human"
            rewrites, unended = ([each.prompt for each in some], 0) if human else rewrite_all(some, rewriter(), seed)
            size, tokens = config.renderer.batch_size, counter().tokens
            rows = draw(
                method, some, rewrites, renderer(), encoder(), config.image_seeds, size, tokens, progress
            )  # fmt: skip
            empty = sum(not is_visible(rewrite) for rewrite in rewrites)
            black = sum(row.blackened for row in rows)
            counts = {"truncated": sum(row.truncated for row in rows), "empty": empty}
            return rows, counts | {"rewrites_truncated": unended, "blackened": black}

        return [Shard(len(some) * len(config.image_seeds), partial(make, some)) for some in self._shards(run)]

    def _scores(self, ask: Asking, name: str, metric: str, method: str, run: Run) -> list[Shard]:
        scorer = cache(lambda: run.models.scorer(name, run.recipe.scoring))
        images = run.shards(self.images_stage(method), RenderedImage)

        def make(index: int, progress: Progress) -> Made:
            rows = ask(images.read(index), scorer(), metric, progress)
            return rows, {"truncated": sum(row.truncated for row in rows)}

        seeds = len(self.config.image_seeds)
        return [Shard(len(some) * seeds, partial(make, i)) for i, some in enumerate(self._shards(run))]


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
        return [rewrite for rewrite, _ in flagged], sum(truncated for _, truncated in flagged)
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
) -> list[RenderedImage]:
    """Images of rewrites.

    The seed of an image is made of the prompt's id and the image seed, so all methods share it.

    Args:
        method: the rows' name.
        prompts: n prompts.
        rewrites: of the method, n; the prompts themselves for ``human``.
        renderer: draws.
        encoder: measures the drift.
        image_seeds: one image of every rewrite for each.
        batch_size: images that are asked for at once.
        count_tokens: of the rewriter's tokenizer: texts to numbers of tokens.
        progress: told after every batch.

    Returns:
        n · len(image_seeds) rows, prompt by prompt. ``truncated`` says that the renderer or the encoder did not read
        the rewrite to its end, or the encoder the prompt.

    Raises:
        DataError: numbers of prompts and rewrites differ, or the renderer gives another number of images than asked.
    """
    if len(prompts) != len(rewrites):
        raise DataError(f"{method} has {len(rewrites)} rewrites for {len(prompts)} prompts; rewrite them again")
    if not prompts:
        return []
    known = _texts(prompts, rewrites, renderer, encoder, count_tokens)
    order = [(i, seed) for i in range(len(prompts)) for seed in image_seeds]
    rows: list[RenderedImage] = []
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        seeds = [content_seed("image", prompts[i].prompt_id, str(seed)) for i, seed in batch]
        images = render_checked(renderer, [rewrites[i] for i, _ in batch], seeds)
        if len(images) != len(batch):
            raise DataError(f"{method}: the renderer drew {len(images)} images for {len(batch)} texts; correct it")
        rows += [
            RenderedImage(
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


def score_images(
    images: Sequence[RenderedImage], scorer: Scorer, name: str, progress: Progress = silent
) -> list[Score]:
    """One scorer's scores of images, each against what the *user* asked for.

    An image that the safety checker blackened gets no score.

    Args:
        images: n.
        scorer: the scorer.
        name: of the metric, for errors.
        progress: told at the end.

    Returns:
        n scores, in the images' order.

    Raises:
        DataError: an image cannot be read, the scorer gave more or fewer scores than images, or one that is not
            finite; the rows are named.
    """
    return _scored(images, [image.prompt for image in images], scorer, name, progress)


def consistency(images: Sequence[RenderedImage], scorer: Scorer, name: str, progress: Progress = silent) -> list[Score]:
    """How well each image shows the *rewrite* it was drawn from: the renderer's part of the drift (Proposition 2).

    Arguments, result and errors as of ``score_images``; the scorer's values are cosines.
    """
    return _scored(images, [image.rewrite for image in images], scorer, name, progress)


def _scored(
    images: Sequence[RenderedImage], texts: Sequence[str], scorer: Scorer, name: str, progress: Progress
) -> list[Score]:
    shown = [(image, text) for image, text in zip(images, texts, strict=True) if not image.blackened]
    found = iter(_asked([image for image, _ in shown], [text for _, text in shown], scorer, name))
    progress(len(images), len(images), name)
    return [
        Score(image.candidate_id, name, None, image.image_seed, False, BLACKENED) if image.blackened else next(found)
        for image in images
    ]


def _asked(images: Sequence[RenderedImage], texts: Sequence[str], scorer: Scorer, name: str) -> list[Score]:
    if not images:
        return []
    scores = scorer.score([opened(image) for image in images], texts)
    if len(scores.values) != len(images) or len(scores.truncated) != len(images):
        first = described(images[min(len(scores.values), len(images) - 1)])
        raise DataError(
            f"'{name}' gave {len(scores.values)} scores for {len(images)} images; its scores end before or go on "
            f"after {first}; mend the judge"
        )
    broken = [p for p, value in zip(images, scores.values, strict=True) if not math.isfinite(value)]
    if broken:
        named = ", ".join(described(each) for each in broken[:3])
        raise DataError(
            f"'{name}' gave {len(broken)} scores that are not finite ({named}{' …' if len(broken) > 3 else ''}); "
            "try scoring.precision=float32, or another judge"
        )
    return [
        Score(image.candidate_id, name, float(value), image.image_seed, bool(truncated))
        for image, value, truncated in zip(images, scores.values, scores.truncated, strict=True)
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


def described(image: RenderedImage) -> str:
    """An image in words, for messages."""
    return f"method '{image.method}', prompt {image.prompt_id}, seed {image.image_seed}"


def opened(image: RenderedImage) -> Image.Image:
    """The image of a row.

    Raises:
        DataError: it is damaged.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(image.image)) as found:
            return rgb(found)
    except (UnidentifiedImageError, OSError) as error:
        raise DataError(
            f"the image of {described(image)} is damaged or half-written ({error}); remove the "
            f"method's folder of images (evaluate/{image.method}/images of the run, or sweep/evaluate/… of a "
            "sweep), and evaluate again"
        ) from error


def _lossless(image: Image.Image) -> bytes:
    # The quickest of WebP's lossless ways: a third larger than the slowest, and ten times as fast.
    buffer = io.BytesIO()
    rgb(image).save(buffer, "WEBP", lossless=True, quality=0, method=0)
    return buffer.getvalue()
