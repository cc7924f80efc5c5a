"""The stages that evaluate: every method's pictures, then every judge's scores of them, each in a folder of its own.

Pictures are drawn once for all metrics and kept, so that a new metric costs its own judging only, and a new method its
own pictures and their judging. Judges come one after the other over all methods, so that one is in memory at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from semdpo.data.records import EvaluationRow, Judgement, Picture, Prompt
from semdpo.engine import store
from semdpo.engine.stage import Made, Run, Shard, TableStage, once, parts_of
from semdpo.errors import DataError
from semdpo.progress import Progress
from semdpo.protocols import Scorer
from semdpo.recipe.schema import EvaluateConfig, Recipe
from semdpo.stages.evaluate import consistency, draw, join, judge, rewrite_all, shown_rows
from semdpo.texts import is_visible

CONSISTENCY = "consistency"
Asking = Callable[[Sequence[Picture], Scorer, str, Progress], list[Judgement]]


@dataclass(frozen=True)
class Evaluation:
    """Which methods draw which prompts, and who judges.

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
        """All pictures, method by method; then all judgements, metric by metric."""
        found = [self._drawing(recipe, method) for method in self.models]
        for metric, scorer in self.config.metrics.items():
            found += [self._judging(recipe, metric, method) for method in self.models]
            if scorer == recipe.weigh.encoder:  # which is in memory now
                found += [self._comparing(recipe, method) for method in self._compared(recipe)]
        return found

    def rows(self, run: Run) -> list[EvaluationRow]:
        """One row per picture of the finished evaluation, method by method.

        Where the safety checker blackened one method's picture, the pictures of the same prompt and image seed are
        left out of all methods, so that all are compared on the same.

        Raises:
            DataError: a judge's scores and the pictures do not belong together, or no place is left.
        """
        found: list[EvaluationRow] = []
        black = self.blackened(run)
        places = {place for own in black.values() for place in own}
        for method in self.models:
            judgements = {m: run.rows(f"{self.folder}/{method}/{m}", Judgement) for m in self.config.metrics}
            pictures, own = self._drawn(run, method), f"{self.folder}/{method}/{CONSISTENCY}"
            consistencies = run.rows(own, Judgement) if method in self._compared(run.recipe) else None
            rows = join(pictures, judgements, self.config.keep_images, consistencies)
            found += [row for row in rows if (row.prompt_id, row.image_seed) not in places]
        if places and not found:
            raise DataError(
                "nothing is left to compare: for every prompt and image seed the safety checker blackened the picture "
                "of a method; set evaluate.renderer.safety_checker=false, or give other prompts"
            )
        return found

    def blackened(self, run: Run) -> dict[str, list[tuple[str, int]]]:
        """Of each method the prompt and image seed of the pictures that the safety checker blackened."""
        counts = {m: store.row_counts(run.folder / self._pictures(m)).get("blackened", 0) for m in self.models}
        return {
            method: [(p.prompt_id, p.image_seed) for p in self._without_images(run, method) if p.blackened]
            if count
            else []
            for method, count in counts.items()
        }

    def _without_images(self, run: Run, method: str) -> list[Picture]:
        return run.rows(self._pictures(method), Picture, unread={"image": b""})

    def _drawn(self, run: Run, method: str) -> list[Picture]:
        """A method's pictures, of which only those that a report shows have their image."""
        pictures = self._without_images(run, method)
        shown = shown_rows(pictures, self.config.keep_images)
        images = run.shards(self._pictures(method), Picture).cells("image", shown)
        for row, image in zip(shown, images, strict=True):
            pictures[row] = replace(pictures[row], image=image)
        return pictures

    def _pictures(self, method: str) -> str:
        return f"{self.folder}/{method}/pictures"

    def _drawing(self, recipe: Recipe, method: str) -> TableStage:
        config, own = self.config, self.config.rewriters.get(method)
        rewriting = {} if method == "human" else {"rewrite": (own or config.rewrite).model_dump(mode="json")}
        shared = config.model_dump(mode="json", include={"image_seeds", "renderer", "shard_size"})
        outside = {"weigh.encoder": recipe.weigh.encoder, "evaluate.renderer.model": config.renderer.model}
        outside |= {} if own is None else {f"evaluate.rewriters.{method}.model": own.model}
        return TableStage(
            self._pictures(method),
            "drawing",
            shared | rewriting | {"encoder": recipe.weigh.encoder},
            (self.prompts, self.models[method]),
            outside,
            Picture,
            partial(self._draw, method),
        )

    def _judging(self, recipe: Recipe, metric: str, method: str) -> TableStage:
        scorer = self.config.metrics[metric]
        return TableStage(
            f"{self.folder}/{method}/{metric}",
            "judging",
            {"scorer": scorer, "scoring": recipe.scoring.of_results()},
            (self._pictures(method),),
            {f"evaluate.metrics.{metric}": scorer},
            Judgement,
            partial(self._judge, judge, scorer, metric, method),
            line=f"{self.folder}/…/{metric}",
        )

    def _compared(self, recipe: Recipe) -> list[str]:
        """The methods whose pictures are compared with their rewrites: all, where the encoder can see pictures."""
        sees = recipe.weigh.encoder in self.config.metrics.values() and self.folder == "evaluate"
        return list(self.models) if sees else []

    def _comparing(self, recipe: Recipe, method: str) -> TableStage:
        encoder = recipe.weigh.encoder
        return TableStage(
            f"{self.folder}/{method}/{CONSISTENCY}",
            "comparing pictures and rewrites",
            {"encoder": encoder, "scoring": recipe.scoring.of_results()},
            (self._pictures(method),),
            {"weigh.encoder": encoder},
            Judgement,
            partial(self._judge, consistency, encoder, CONSISTENCY, method),
            line=f"{self.folder}/…/{CONSISTENCY}",
        )

    def _shards(self, run: Run) -> list[Sequence[Prompt]]:
        chosen = [prompt for prompt in run.rows(self.prompts, Prompt) if prompt.split == self.split]
        return list(parts_of(chosen, self.config.shard_size))

    def _draw(self, method: str, run: Run) -> list[Shard]:
        config, own = self.config, self.config.rewriters.get(method)
        model = str(run.folder / self.models[method])
        counter = once(lambda: run.parts.rewriter(model, None, config.rewrite))
        rewriter = counter if own is None else once(lambda: run.parts.rewriter(own.model, own.template, own))
        seed = config.rewrite.seed if own is None else own.seed
        encoder = once(lambda: run.parts.encoder(run.recipe.weigh.encoder))
        renderer = once(lambda: run.parts.renderer(config.renderer))

        def make(part: Sequence[Prompt], progress: Progress) -> Made:
            human = method == "human"
            rewrites, cut = ([each.prompt for each in part], 0) if human else rewrite_all(part, rewriter(), seed)
            size, tokens = config.renderer.batch_size, counter().tokens
            rows = draw(
                method, part, rewrites, renderer(), encoder(), config.image_seeds, size, tokens, progress
            )  # fmt: skip
            empty = sum(not is_visible(rewrite) for rewrite in rewrites)
            black = sum(row.blackened for row in rows)
            return rows, {
                "truncated": sum(row.truncated for row in rows), "empty": empty, "cut": cut, "blackened": black
            }  # fmt: skip

        return [Shard(len(part) * len(config.image_seeds), partial(make, part)) for part in self._shards(run)]

    def _judge(self, ask: Asking, name: str, metric: str, method: str, run: Run) -> list[Shard]:
        scorer = once(lambda: run.parts.scorer(name, run.recipe.scoring))
        pictures = run.shards(self._pictures(method), Picture)

        def make(index: int, progress: Progress) -> Made:
            rows = ask(pictures.read(index), scorer(), metric, progress)
            return rows, {"truncated": sum(row.truncated for row in rows)}

        seeds = len(self.config.image_seeds)
        return [Shard(len(part) * seeds, partial(make, i)) for i, part in enumerate(self._shards(run))]
