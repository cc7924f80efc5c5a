"""Stage 9: render every method's rewrites of held-out prompts, then score each image against the user's prompt.

Images are rendered once for all metrics and stored, each method's in its own folder. Therefore a new metric costs only
its own scoring, and a new method only its own images and their scoring. Each scorer scores the images of all methods
before the next scorer is loaded, so that only one is in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from semdpo.analysis.semantics import cosine_distance
from semdpo.data.records import Prompt, RenderedImage, Score, content_seed
from semdpo.engine.shards import in_groups
from semdpo.engine.stage import Made, Run, Shard, TableStage
from semdpo.errors import DataError
from semdpo.models import attempts
from semdpo.models.images import lossless
from semdpo.models.scoring import consistency, described, score_images
from semdpo.progress import Progress, silent
from semdpo.protocols import (
    FlaggingRewriter,
    Renderer,
    Rewriter,
    Scorer,
    TextEncoder,
)
from semdpo.recipe.endpoints import is_url
from semdpo.recipe.models import DecodingConfig
from semdpo.recipe.schema import EvaluateConfig, Recipe
from semdpo.texts import is_visible

if TYPE_CHECKING:
    from PIL import Image

CONSISTENCY = "consistency"
Scoring = Callable[[Sequence[RenderedImage], Scorer, str, Progress], list[Score]]


def evaluation(recipe: Recipe) -> Evaluation:
    """The evaluation of all methods of a recipe, and of their later rounds, on the held-out prompts."""
    trained = {method: f"train/{method}" for method in recipe.train.methods}
    models = {"human": "sft", "sft": "sft", **trained, **dict.fromkeys(recipe.evaluate.rewriters, "sft")}
    models |= {name: models[variant.method] for name, variant in recipe.variants.items()}
    models |= {each.name: each.trained for each in recipe.later_rounds}
    decodings = {name: variant.decoding for name, variant in recipe.variants.items() if variant.decoding}
    return Evaluation("evaluate", "prompts", "test", models, recipe.evaluate, decodings)


def on_benchmark(recipe: Recipe, name: str) -> Evaluation:
    """The evaluation of the same methods, by the same scorers, on the prompts of a benchmark."""
    of_run, seeds = evaluation(recipe), recipe.benchmarks[name].image_seeds
    changes = {"keep_images": 0} | ({} if seeds is None else {"image_seeds": seeds})
    config = recipe.evaluate.model_copy(update=changes)
    folder = f"benchmarks/{name}"
    return replace(of_run, folder=f"{folder}/evaluate", prompts=f"{folder}/prompts", config=config)


@dataclass(frozen=True)
class Evaluation:
    """Which methods are evaluated, on which prompts and by which scorers.

    Attributes:
        folder: the folder of the results, in the run's folder.
        prompts: the stage that holds the prompts.
        split: the split of these prompts to use.
        models: method → the stage whose model rewrites the prompts. Where no stage's model does (``human`` and other
            rewriters), it is the stage whose tokenizer counts the tokens.
        config: renderer, image seeds, metrics and other rewriters.
        decodings: method → its decoding, of those methods of ``models`` that do not use ``config.rewrite``.
    """

    folder: str
    prompts: str
    split: str
    models: Mapping[str, str]
    config: EvaluateConfig
    decodings: Mapping[str, DecodingConfig] = field(default_factory=dict)

    def stages(self, recipe: Recipe) -> list[TableStage]:
        """The stages that render, method by method; then those that score, metric by metric."""
        stages = [self._rendering_stage(recipe, method) for method in self.models]
        for metric, scorer in self.config.metrics.items():
            stages += [self._scoring_stage(recipe, metric, method) for method in self.models]
            if scorer == recipe.drift.encoder:  # here, since that model is in memory now
                stages += [self._consistency_stage(recipe, method) for method in self.compared(recipe)]
        return stages

    def images_stage(self, method: str) -> str:
        """The stage that holds a method's images."""
        return f"{self.folder}/{method}/images"

    def _rendering_stage(self, recipe: Recipe, method: str) -> TableStage:
        config, other = self.config, self.config.rewriters.get(method)
        how = self._decoding(method).model_dump(mode="json") if other is None else other.of_results()
        rewriting = {} if method == "human" else {"rewrite": how}
        shared = config.model_dump(mode="json", include={"image_seeds", "shard_size"})
        shared |= {"renderer": config.renderer.of_results()}
        outside = {"drift.encoder": recipe.drift.encoder} | config.renderer.models("evaluate.renderer")
        outside |= {} if other is None or other.is_remote else {f"evaluate.rewriters.{method}.model": other.model}
        return TableStage(
            self.images_stage(method),
            "rendering",
            shared | rewriting | {"encoder": recipe.drift.encoder},
            (self.prompts, self.models[method]),
            outside,
            RenderedImage,
            partial(self._rendering_work, method),
            pool="render",
        )

    def _scoring_stage(self, recipe: Recipe, metric: str, method: str) -> TableStage:
        scorer = self.config.metrics[metric]
        return TableStage(
            f"{self.folder}/{method}/{metric}",
            "scoring",
            {"scorer": scorer, "scoring": recipe.scoring.of_results(scorer)},
            (self.images_stage(method),),
            {} if is_url(scorer) else {f"evaluate.metrics.{metric}": scorer},
            Score,
            partial(self._scoring_work, score_images, scorer, metric, method),
            shown_as=f"{self.folder}/…/{metric}",
            pool="score",
        )

    def compared(self, recipe: Recipe) -> list[str]:
        """The methods whose images are compared with their rewrites: all, if the encoder is also a scorer of images."""
        sees = recipe.drift.encoder in self.config.metrics.values() and self.folder == "evaluate"
        return list(self.models) if sees else []

    def _consistency_stage(self, recipe: Recipe, method: str) -> TableStage:
        encoder = recipe.drift.encoder
        return TableStage(
            f"{self.folder}/{method}/{CONSISTENCY}",
            "comparing images and rewrites",
            {"encoder": encoder, "scoring": recipe.scoring.of_results()},
            (self.images_stage(method),),
            {"drift.encoder": encoder},
            Score,
            partial(self._scoring_work, consistency, encoder, CONSISTENCY, method),
            shown_as=f"{self.folder}/…/{CONSISTENCY}",
            pool="score",
        )

    def _decoding(self, method: str) -> DecodingConfig:
        """How the rewriter of a method decodes that this run trained."""
        return self.decodings.get(method, self.config.rewrite)

    def _rendering_work(self, method: str, run: Run) -> list[Shard]:
        config, other, decoding = self.config, self.config.rewriters.get(method), self._decoding(method)
        model = str(run.folder / self.models[method])
        counter = cache(lambda: run.models.rewriter(model, None, decoding))
        rewriter = counter if other is None else cache(lambda: run.models.other_rewriter(other, other))
        seed = decoding.seed if other is None else other.seed
        encoder = cache(lambda: run.models.encoder(run.recipe.drift.encoder))
        renderer = cache(lambda: run.models.renderer(config.renderer))
        of_run = run.shards(self.prompts, Prompt)

        def make(start: int, stop: int, progress: Progress) -> Made:
            prompts = of_run.between(start, stop)
            if method == "human":
                rewrites, truncations = [prompt.prompt for prompt in prompts], 0
            else:
                rewrites, truncations = rewrite_all(prompts, rewriter(), seed)
            size, tokens = config.renderer.batch_size, counter().tokens
            rows = render(
                method, prompts, rewrites, renderer(), encoder(), config.image_seeds, size, tokens, progress
            )  # fmt: skip
            failed = _refuse_many_failures(rows, config.max_failed)
            empty = sum(not is_visible(rewrite) for rewrite in rewrites)
            black = sum(row.blackened for row in rows)
            counts = {"truncated": sum(row.truncated for row in rows), "empty": empty}
            counts |= {"rewrites_truncated": truncations, "blackened": black}
            return rows, counts | ({"failed": failed} if failed else {})

        places, seeds = in_groups(of_run.column("split"), self.split, config.shard_size), len(config.image_seeds)
        return [Shard((stop - start) * seeds, partial(make, start, stop)) for start, stop in places]

    def _scoring_work(self, score: Scoring, name: str, metric: str, method: str, run: Run) -> list[Shard]:
        scorer = cache(lambda: run.models.scorer(name, run.recipe.scoring))
        images = run.shards(self.images_stage(method), RenderedImage)

        def make(index: int, progress: Progress) -> Made:
            rows = score(images.read(index), scorer(), metric, progress)
            failed = sum(row.unscored for row in rows)
            return rows, {"truncated": sum(row.truncated for row in rows)} | ({"failed": failed} if failed else {})

        return [Shard(size, partial(make, index)) for index, size in enumerate(images.sizes)]


@runtime_checkable
class KnowsLimit(Protocol):
    """A renderer that reports which prompts are longer than it reads."""

    def too_long(self, prompts: Sequence[str]) -> NDArray[np.bool_]:
        """Reports for each prompt whether it is longer than the renderer reads, [n]."""
        ...


@dataclass(frozen=True, slots=True)
class _Texts:
    """What is known of each prompt and rewrite before an image is rendered; all of length n."""

    tokens: Sequence[int]
    distance: NDArray[np.float64]
    truncated: NDArray[np.bool_]


def rewrite_all(prompts: Sequence[Prompt], rewriter: Rewriter, seed: int) -> tuple[list[str], int]:
    """Rewrites each prompt once. An empty rewrite stays empty, because that is what a user would get.

    Args:
        prompts: the prompts, [n].
        rewriter: the rewriter, with its decoding.
        seed: the seed of its sampling.

    Returns:
        The rewrites, [n], and how many of them were truncated at the token budget, as far as the rewriter reports it.
    """
    texts = [prompt.prompt for prompt in prompts]
    if isinstance(rewriter, FlaggingRewriter):
        flagged = [row[0] for row in rewriter.rewrite_flagged(texts, 1, seed)]
        return [rewrite for rewrite, _ in flagged], sum(truncated for _, truncated in flagged)
    return [row[0] for row in rewriter.rewrite(texts, 1, seed)], 0


def render(
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
    """Renders rewrites.

    The seed of an image depends on the prompt's id and the image seed only, so that all methods share it.

    Args:
        method: the method's name, for the rows.
        prompts: the users' prompts, [n].
        rewrites: the method's rewrites, [n]; the prompts themselves for ``human``.
        renderer: the text-to-image model.
        encoder: the encoder that measures the drift.
        image_seeds: the image seeds; every rewrite is rendered once per seed.
        batch_size: the number of images that are rendered at once.
        count_tokens: counts the tokens of texts, under the rewriter's tokenizer.
        progress: called after every batch.

    Returns:
        n · len(image_seeds) rows, prompt by prompt. ``truncated`` is true when the rewrite is longer than the renderer
        or the encoder reads, or the prompt longer than the encoder reads. Where an image cannot be rendered, its row
        has the reason.

    Raises:
        DataError: the numbers of prompts and rewrites differ, or the renderer gives a wrong number of images.
    """
    if len(prompts) != len(rewrites):
        raise DataError(f"{method} has {len(rewrites)} rewrites for {len(prompts)} prompts; rewrite them again")
    if not prompts:
        return []
    texts = _texts(prompts, rewrites, renderer, encoder, count_tokens)
    order = [(i, seed) for i in range(len(prompts)) for seed in image_seeds]
    rows: list[RenderedImage] = []
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        seeds = [content_seed("image", prompts[i].prompt_id, str(seed)) for i, seed in batch]
        texts_and_seeds = [(rewrites[i], seed) for (i, _), seed in zip(batch, seeds, strict=True)]
        images, _ = attempts.rendered(renderer, texts_and_seeds)
        rows += [
            RenderedImage(
                method=method,
                prompt_id=prompts[i].prompt_id,
                prompt=prompts[i].prompt,
                source=prompts[i].source,
                image_seed=seed,
                rewrite=rewrites[i],
                tokens=int(texts.tokens[i]),
                distance=float(texts.distance[i]),
                truncated=bool(texts.truncated[i]),
                **_image_of(drawn),
            )
            for (i, seed), drawn in zip(batch, images, strict=True)
        ]
        progress(len(rows), len(order))
    return rows


def _image_of(drawn: tuple[Image.Image, bool] | str) -> dict[str, Any]:
    """What a row says of its image: the image and whether it is black, or why there is none."""
    if isinstance(drawn, str):
        return {"image": b"", "error": drawn}
    image, black = drawn
    return {"image": lossless(image), "blackened": black}


def _refuse_many_failures(rows: Sequence[RenderedImage], allowed: float) -> int:
    """The number of images that cannot be rendered, if they may be missing.

    Rewrites are counted, since a server that refuses one refuses it with every image seed.
    """
    failed = [row for row in rows if row.error is not None]
    without, all_of_them = len({row.prompt_id for row in failed}), len({row.prompt_id for row in rows})
    if without > attempts.tolerated(all_of_them, allowed):
        raise DataError(
            f"{without} of a shard's {all_of_them} rewrites have no image, and evaluate.max_failed is {allowed:g}; the "
            f"first is that of {described(failed[0])}: {failed[0].error}; correct the cause, or raise "
            "evaluate.max_failed"
        )
    return len(failed)


def _texts(
    prompts: Sequence[Prompt],
    rewrites: Sequence[str],
    renderer: Renderer,
    encoder: TextEncoder,
    count_tokens: Callable[[Sequence[str]], Sequence[int]],
) -> _Texts:
    before, after = encoder.encode([prompt.prompt for prompt in prompts]), encoder.encode(rewrites)
    truncated = before.truncated | after.truncated
    if isinstance(renderer, KnowsLimit):
        truncated = truncated | renderer.too_long(rewrites)
    return _Texts(count_tokens(rewrites), cosine_distance(before.vectors, after.vectors), truncated)
