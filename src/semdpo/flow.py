"""The whole method as a list that one can read: each stage, what it reads and the function that does it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from semdpo import files, store
from semdpo.config import Recipe, RewriterConfig
from semdpo.fields import Stage
from semdpo.parts import CountingRewriter, Parts
from semdpo.progress import Progress
from semdpo.protocols import Renderer, Scorer, TextEncoder
from semdpo.records import Candidate, Curve, EvaluationRow, Pair, Prompt, Score
from semdpo.stages import candidates, label, pairs, prompts, weigh

T = TypeVar("T")
Made = tuple[Sequence[Any], Mapping[str, int]]


@dataclass(frozen=True)
class Run:
    """A run's folder, its recipe and its models."""

    folder: Path
    recipe: Recipe
    parts: Parts

    def rows(self, stage: str, kind: type[T]) -> list[T]:
        """The records of a finished stage."""
        return store.read_rows(self.folder / stage, kind)


@dataclass(frozen=True)
class Shard:
    """One file of a stage: how many units of work it holds, and the function that makes its rows and counts."""

    size: int
    make: Callable[[Progress], Made]


@dataclass(frozen=True)
class TableStage:
    """A stage whose result is rows, made shard by shard.

    Attributes:
        name: its folder in the run.
        title: what it does, for people.
        config: everything of the recipe that its result depends on.
        inputs: the stages that it reads.
        outside: the files and models that it reads; name in the recipe to name of the thing.
        kind: the class of its rows.
        shards: the work, in order; models are loaded by the first shard that is made.
    """

    name: str
    title: str
    config: Mapping[str, Any]
    inputs: tuple[str, ...]
    outside: Mapping[str, str]
    kind: type[Any]
    shards: Callable[[Run], list[Shard]]


@dataclass(frozen=True)
class ModelStage:
    """A stage whose result is a model's folder; attributes as in ``TableStage``.

    Attributes:
        train: writes the model into a folder and returns its curves.
    """

    name: str
    title: str
    config: Mapping[str, Any]
    inputs: tuple[str, ...]
    outside: Mapping[str, str]
    train: Callable[[Run, Path, Progress], list[Curve]]


AnyStage = TableStage | ModelStage


def is_file(key: str) -> bool:
    """Whether what a recipe's key names from outside is a file; otherwise it is a model."""
    return key.startswith("prompts.") or key == "sft.file"


def flow(recipe: Recipe) -> list[AnyStage]:
    """The stages of a recipe, in the order in which data flows; the report comes after them."""
    r = recipe
    methods = list(r.train.methods)
    return [
        TableStage("prompts", "reading", _dump(r.prompts), (), _prompt_files(r), Prompt, _prompts),
        ModelStage("sft", "fine-tuning", _dump(r.sft), (), {"sft.model": r.sft.model, "sft.file": r.sft.file}, _sft),
        TableStage("candidates", "rewriting", _dump(r.candidates), ("prompts", "sft"), {}, Candidate, _candidates),
        TableStage("label", "drawing and scoring", _labelling(r), ("candidates",), _judges(r), Score, _label),
        TableStage("pairs", "choosing", _dump(r.pairs), ("candidates", "label"), {}, Pair, _pairs),
        TableStage("weigh", "measuring drift", _dump(r.weigh), ("pairs",), _encoder(r), Pair, _weigh),
        *(
            ModelStage(f"train/{m}", "training", _training(r, m), ("sft", "weigh"), {}, partial(_train, m))
            for m in methods
        ),
        *(
            TableStage(
                f"evaluate/{m}", "drawing and judging", _evaluation(r, m), ("prompts", _model_of(r, m)),
                _jury(r, m), EvaluationRow, partial(_evaluate, m),
            )
            for m in ("human", "sft", *methods, *r.evaluate.rewriters)
        ),
    ]  # fmt: skip


# ------------------------------------------------------------------------------------------------- the stages' work


def _dump(config: Stage) -> dict[str, Any]:
    return config.model_dump(mode="json")


def _training(recipe: Recipe, method: str) -> dict[str, Any]:
    shared = recipe.train.model_dump(mode="json", exclude={"methods"})
    return shared | {"objective": _dump(recipe.train.methods[method])}


def _labelling(recipe: Recipe) -> dict[str, Any]:
    return _dump(recipe.label) | {"scoring": _dump(recipe.scoring)}


def _evaluation(recipe: Recipe, method: str) -> dict[str, Any]:
    """What a method's results depend on; another method's rewriter is not part of it."""
    shared = recipe.evaluate.model_dump(mode="json", exclude={"rewriters"})
    own = recipe.evaluate.rewriters.get(method)
    return shared | {
        "encoder": recipe.weigh.encoder,
        "scoring": _dump(recipe.scoring),
        "rewriter": None if own is None else _dump(own),
    }


def _prompt_files(recipe: Recipe) -> dict[str, str]:
    named = {"prompts.file": recipe.prompts.file, "prompts.test_file": recipe.prompts.test_file}
    sets = {f"prompts.test_sets.{name}": each.file for name, each in recipe.prompts.test_sets.items()}
    return {key: name for key, name in named.items() if name is not None} | sets


def _judges(recipe: Recipe) -> dict[str, str]:
    config = recipe.label
    fidelity = {} if config.fidelity is None else {"label.fidelity": config.fidelity}
    return {"label.renderer.model": config.renderer.model, "label.scorer": config.scorer} | fidelity


def _encoder(recipe: Recipe) -> dict[str, str]:
    return {"weigh.encoder": recipe.weigh.encoder}


def _jury(recipe: Recipe, method: str) -> dict[str, str]:
    own = recipe.evaluate.rewriters.get(method)
    rewriter = {} if own is None else {f"evaluate.rewriters.{method}.model": own.model}
    judges = {f"evaluate.metrics.{name}": scorer for name, scorer in recipe.evaluate.metrics.items()}
    return judges | rewriter | _encoder(recipe) | {"evaluate.renderer.model": recipe.evaluate.renderer.model}


def _model_of(recipe: Recipe, method: str) -> str:
    """The stage whose model rewrites for a method; sft's counts the tokens of what no stage's model wrote."""
    return f"train/{method}" if method in recipe.train.methods else "sft"


def _parts_of(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _split(run: Run, name: str) -> list[Prompt]:
    return [prompt for prompt in run.rows("prompts", Prompt) if prompt.split == name]


def _prompts(run: Run) -> list[Shard]:
    def make(_: Progress) -> Made:
        rows, left_out = prompts.collect(run.recipe.prompts)
        # Asked here, so that an encoder that does not know the prompts is told before anything is drawn.
        config = run.recipe.weigh
        share = weigh.unknown_share([row.prompt for row in rows], run.parts.encoder(config.encoder), config.batch_size)
        weigh.refuse_unknown_words(share, config.encoder)
        return rows, {split: sum(row.split == split for row in rows) for split in ("train", "test")} | left_out

    return [Shard(1, make)]


def _sft(run: Run, output: Path, progress: Progress) -> list[Curve]:
    config = run.recipe.sft
    return run.parts.fine_tune(files.read_rewrites(config.file), config, output, progress)


def _candidates(run: Run) -> list[Shard]:
    config = run.recipe.candidates
    rewriter = _once(lambda: run.parts.rewriter(str(run.folder / "sft"), None, config))

    def make(part: Sequence[Prompt], _: Progress) -> Made:
        rows, counts = candidates.sample(part, rewriter(), config)
        return rows, asdict(counts)

    return [Shard(len(p), partial(make, p)) for p in _parts_of(_split(run, "train"), config.shard_size)]


def _label(run: Run) -> list[Shard]:
    config = run.recipe.label
    judges = [name for name in (config.scorer, config.fidelity) if name is not None]
    models = _once(
        lambda: (
            run.parts.renderer(config.renderer),
            {name: run.parts.scorer(name, run.recipe.scoring) for name in judges},
        )
    )
    by_prompt: dict[str, list[Candidate]] = {}
    for candidate in run.rows("candidates", Candidate):
        by_prompt.setdefault(candidate.prompt_id, []).append(candidate)

    def make(part: Sequence[Candidate], progress: Progress) -> Made:
        rows = label.label(part, *models(), config, progress)
        return rows, {"truncated": sum(row.truncated for row in rows if row.scorer == config.scorer)}

    groups = _parts_of(list(by_prompt.values()), config.shard_size)
    parts = [[candidate for group in part for candidate in group] for part in groups]
    return [Shard(len(part), partial(make, part)) for part in parts]


def _pairs(run: Run) -> list[Shard]:
    def make(_: Progress) -> Made:
        judged: dict[str, list[Score]] = {}
        for score in run.rows("label", Score):
            judged.setdefault(score.scorer, []).append(score)
        fidelities = judged.get(run.recipe.label.fidelity or "", [])
        scores = judged.get(run.recipe.label.scorer, [])
        rows, counts = pairs.choose(run.rows("candidates", Candidate), scores, run.recipe.pairs, fidelities)
        return rows, asdict(counts)

    return [Shard(1, make)]


def _weigh(run: Run) -> list[Shard]:
    config = run.recipe.weigh

    def make(progress: Progress) -> Made:
        encoder = run.parts.encoder(config.encoder)
        rows = weigh.weigh(run.rows("pairs", Pair), encoder, config.batch_size, config.encoder, progress)
        return rows, {"truncated": sum(bool(row.truncated) for row in rows)}

    return [Shard(1, make)]


def _train(method: str, run: Run, output: Path, progress: Progress) -> list[Curve]:
    config = run.recipe.train
    model, cache = str(run.folder / "sft"), run.folder / "reference"  # which all methods share
    curves = run.parts.train(run.rows("weigh", Pair), model, config.methods[method], config, output, cache, progress)
    return [Curve(method, curve.step, curve.name, curve.value) for curve in curves]


def _evaluate(method: str, run: Run) -> list[Shard]:
    from semdpo.stages.evaluate import evaluate, rewrite_all

    config = run.recipe.evaluate

    def load() -> tuple[CountingRewriter, Renderer, dict[str, Scorer], TextEncoder]:
        judges = {name: run.parts.scorer(scorer, run.recipe.scoring) for name, scorer in config.metrics.items()}
        rewriter = run.parts.rewriter(str(run.folder / _model_of(run.recipe, method)), None, config.rewrite)
        return rewriter, run.parts.renderer(config.renderer), judges, run.parts.encoder(run.recipe.weigh.encoder)

    models = _once(load)

    @functools.cache
    def published(own: RewriterConfig) -> CountingRewriter:
        return run.parts.rewriter(own.model, own.template, own)

    def make(part: Sequence[Prompt], before: int, progress: Progress) -> Made:
        rewriter, renderer, judges, encoder = models()
        if method == "human":
            rewrites = [each.prompt for each in part]
        elif (own := config.rewriters.get(method)) is not None:
            rewrites = rewrite_all(part, published(own), own.seed)
        else:
            rewrites = rewrite_all(part, rewriter, config.rewrite.seed)
        kept = config.model_copy(update={"keep_images": max(0, config.keep_images - before)})
        rows = evaluate(method, part, rewrites, renderer, judges, encoder, kept, rewriter.tokens, progress)
        empty = sum(not rewrite.strip() for rewrite in rewrites)
        return rows, {"truncated": sum(row.truncated for row in rows), "empty": empty}

    unit = len(config.image_seeds) * (1 + len(config.metrics))  # a picture is drawn once and judged by each
    parts = list(_parts_of(_split(run, "test"), config.shard_size))
    return [Shard(len(part) * unit, partial(make, part, i * config.shard_size)) for i, part in enumerate(parts)]


def _once(load: Callable[[], T]) -> Callable[[], T]:
    """Loads at the first call, so that a stage without work loads nothing."""
    loaded: list[T] = []

    def get() -> T:
        if not loaded:
            loaded.append(load())
        return loaded[0]

    return get
