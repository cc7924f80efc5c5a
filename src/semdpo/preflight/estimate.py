"""What a whole run will cost, stage by stage, from what a probe measured of its parts."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from semdpo.models.registry import resolve
from semdpo.preflight.measuring import Cost
from semdpo.preflight.probe import Found, Unmeasured
from semdpo.preflight.resources import CHECKPOINT_BYTES, benchmark_images, parameters
from semdpo.recipe.atoms import ATOMS
from semdpo.recipe.benchmarks import own_atoms
from semdpo.recipe.models import RewriterSource
from semdpo.recipe.objectives import ObjectiveSettings
from semdpo.recipe.schema import Recipe
from semdpo.stages.atoms import ROWS
from semdpo.stages.evaluate import Evaluation, evaluation, on_benchmark

WEIGHTS = {".safetensors", ".bin", ".pt"}  # suffixes of files of weights
LOSS_BYTES = 32  # of a row of losses, and of a cached log-probability: an id and numbers
NOTES_BYTES = 1_300  # of a stage's manifest, settings and times
IMAGES = "/…/images"  # after the folder of an evaluation


@dataclass(frozen=True, slots=True)
class Span:
    """A number with the range that its measurements give."""

    mean: float = 0.0
    low: float = 0.0
    high: float = 0.0

    def __add__(self, other: Span) -> Span:
        """The sum, whose range is that of both together."""
        return Span(self.mean + other.mean, self.low + other.low, self.high + other.high)

    def __mul__(self, factor: float) -> Span:
        """The product with a number ≥ 0."""
        return Span(self.mean * factor, self.low * factor, self.high * factor)

    @classmethod
    def exactly(cls, value: float) -> Span:
        """A number without a range."""
        return cls(value, value, value)


@dataclass(frozen=True, slots=True)
class Stage:
    """What a stage will cost.

    Attributes:
        name: the stage, as a run shows it.
        work: the seconds of its batches, which grow with the number of prompts.
        fixed: the seconds that it takes however many prompts there are: loading the models, warming up.
        size: the bytes of its files.
        measured: the batches that were timed.
        shards: the number of files that different processes can make at the same time; 0 where one process does all.
        memory: the largest number of bytes in use on the GPU.
        missing: why it is not known, and what to do; None where it is.
    """

    name: str
    work: Span = Span()
    fixed: float = 0.0
    size: float = 0.0
    measured: str = ""
    shards: int = 0
    memory: int = 0
    missing: Unmeasured | None = None

    @property
    def seconds(self) -> Span:
        """The seconds of one process that does everything."""
        return self.work + Span.exactly(self.fixed)

    def wall(self, processes: int) -> Span:
        """The seconds until the stage is done by processes that each have a device like the measured one."""
        rounds = math.ceil(self.shards / processes) / self.shards if self.shards else 1.0
        return self.work * rounds + Span.exactly(self.fixed)

    def device(self, processes: int) -> Span:
        """The seconds that the devices are at work: each process that takes part loads the models."""
        return self.work + Span.exactly(self.fixed * max(min(processes, self.shards), 1))


def stages(recipe: Recipe, found: Found, prompts: int, held_out: int, reading: float) -> list[Stage]:
    """The stages of a run, in order.

    Args:
        recipe: the validated recipe.
        found: what ``probe.probe`` measured.
        prompts: the number of training prompts; every one gives a pair.
        held_out: the number of held-out prompts.
        reading: the seconds that the prompts take to read.
    """
    first = _stage("prompts", found["prompts"], prompts + held_out, rows=prompts + held_out, files=1)
    listed = [replace(first, fixed=first.fixed + reading), *_atoms(recipe, found, prompts + held_out)]
    listed.append(_stage("sft", found["sft"], recipe.sft.steps, size=model_bytes(recipe)))
    listed += _pairs(recipe, found, prompts, recipe.candidates.rewriter)
    listed += _trainings(recipe, found, prompts)
    for each in recipe.later_rounds:  # a method's own rewriter writes the candidates
        listed += [replace(stage, name=f"{each.folder}/{stage.name}") for stage in _pairs(recipe, found, prompts, None)]
        objective = recipe.train.methods[each.method]
        listed.append(_training(recipe, found, prompts, each.trained, objective, referred=False))
    listed += _evaluation(recipe, evaluation(recipe), found, held_out, asks=recipe.atoms is not None)
    for name, settings in recipe.benchmarks.items():
        plan, asks = on_benchmark(recipe, name), own_atoms(name, settings, recipe.atoms) is not None
        own = benchmark_images(recipe, name) // len(plan.config.image_seeds)
        listed += _evaluation(recipe, plan, found, own, asks=asks)
    return listed


def _pairs(recipe: Recipe, found: Found, prompts: int, other: RewriterSource | None) -> Iterator[Stage]:
    """The stages of one round from the candidates, which another rewriter may write, to the pairs with distances."""
    config, n, rows = recipe.label, recipe.candidates.n, prompts * recipe.candidates.most
    shards, files = math.ceil(prompts / recipe.candidates.shard_size), math.ceil(prompts / config.shard_size)
    if other is not None and other.is_remote:
        yield Stage("candidates", missing=_of_server())
    else:
        own = other is None and recipe.candidates.rewriter is not None
        cost = found["rewrite/own candidates" if own else "rewrite/candidates"]
        yield _stage("candidates", cost, prompts, shards=shards, rows=prompts * n, files=shards)
    label = _stage("label", found["label"], rows, shards=files, rows=rows, files=files)
    yield _asked_too(label, found["atoms"], rows) if config.fidelity == ATOMS else label
    yield _stage("pairs", found["pairs"], prompts, rows=prompts, files=files)
    yield _stage("drift", found["drift"], prompts, rows=prompts, files=files)


def _asked_too(stage: Stage, cost: Cost | Unmeasured, images: int) -> Stage:
    """The stage that labels, where a model also answers the atoms of its images."""
    if stage.missing is not None:
        return stage
    if isinstance(cost, Unmeasured):
        return replace(stage, missing=cost)
    return replace(stage, work=stage.work + _span(cost) * images, fixed=stage.fixed + cost.fixed)


def _atoms(recipe: Recipe, found: Found, prompts: int) -> list[Stage]:
    """The stage that makes atoms: what no model writes takes no time."""
    if recipe.atoms is None:
        return []
    if recipe.atoms.lm is None:
        return [Stage("atoms", size=NOTES_BYTES)]
    if recipe.atoms.lm.is_remote:
        return [Stage("atoms", missing=_of_server())]
    return [_stage("atoms", found["write/atoms"], prompts, rows=prompts, files=math.ceil(prompts / ROWS))]


def _of_server() -> Unmeasured:
    return Unmeasured("a server writes them; it is not asked, for its answers may cost money")


def model_bytes(recipe: Recipe) -> float:
    """The bytes of a trained rewriter: weights in float32, and the starting model's other files. Adapters take less."""
    place = resolve(recipe.sft.model)
    others = [file for file in place.folder().iterdir() if file.suffix not in WEIGHTS] if place.local else []
    return 4 * parameters(recipe.sft.model) + sum(file.stat().st_size for file in others if file.is_file())


def passing_bytes(recipe: Recipe) -> float:
    """The most bytes that lie beside the run's files while it trains: two checkpoints, and a model being written."""
    return (CHECKPOINT_BYTES + 4) * parameters(recipe.sft.model)


def _stage(
    name: str, cost: Cost | Unmeasured, units: float, *,
    shards: int = 0, rows: int = 0, files: int = 0, size: float = 0.0, folders: int = 1,
) -> Stage:  # fmt: skip
    if isinstance(cost, Unmeasured):
        return Stage(name, missing=cost)
    size += files * cost.file_bytes + rows * cost.row_bytes + folders * NOTES_BYTES
    return Stage(name, _span(cost) * units, cost.fixed, size, cost.measured, shards, cost.memory)


def _span(cost: Cost) -> Span:
    """The seconds of one unit."""
    mean = sum(cost.seconds) / len(cost.seconds)
    return Span(mean, min(cost.seconds), max(cost.seconds) * cost.worst)


def _trainings(recipe: Recipe, found: Found, prompts: int) -> Iterator[Stage]:
    config, referred = recipe.train, False
    for method, objective in config.methods.items():
        yield _training(recipe, found, prompts, f"train/{method}", objective, referred=referred)
        referred = referred or objective.needs_reference
    for method, objective in config.methods.items():
        if objective.needs_distance:  # loads the trained model and the reference; the reference's values are cached
            cost = found[f"train/{objective.name}"]
            if isinstance(cost, Unmeasured):
                yield Stage(f"losses/{method}", missing=cost)
            else:
                empty = Stage(f"losses/{method}", fixed=cost.fixed, size=LOSS_BYTES * prompts + NOTES_BYTES)
                yield _with_reference(empty, cost, recipe, found, prompts)


def _training(
    recipe: Recipe, found: Found, prompts: int, name: str, objective: ObjectiveSettings, *, referred: bool
) -> Stage:
    """The training of one method; ``referred`` says whether the reference's values are there already."""
    config, cost = recipe.train, found[f"train/{objective.name}"]
    updates = math.ceil(prompts / config.batch_size) * config.epochs
    stage = _stage(name, cost, updates, size=model_bytes(recipe))
    passes = int(objective.needs_reference and not referred)
    if passes:
        stage = replace(stage, size=stage.size + 2 * LOSS_BYTES * prompts)
    passes += config.epochs * objective.needs_other_prompts  # its own pass over other prompts' completions
    return _with_reference(stage, cost, recipe, found, passes * prompts)


def _with_reference(stage: Stage, trained: Cost | Unmeasured, recipe: Recipe, found: Found, pairs: int) -> Stage:
    """The stage with passes that compute log-probabilities of some pairs, without an update."""
    if not pairs or isinstance(trained, Unmeasured):
        return stage
    cost = found.get("reference")
    if isinstance(cost, Cost):
        each, how = _span(cost), cost.measured
    else:  # too slow to time: a pass forward is a third of an update's work
        each = _span(trained) * (1 / 3 / recipe.train.batch_size)
        how = "the reference as a third of an update"
    measured = ", ".join(part for part in (stage.measured, how) if part)
    return replace(stage, work=stage.work + each * pairs, measured=measured)


def _evaluation(recipe: Recipe, plan: Evaluation, found: Found, held_out: int, *, asks: bool) -> Iterator[Stage]:
    config, seeds = plan.config, len(plan.config.image_seeds)
    methods, files = len(plan.models), math.ceil(held_out / config.shard_size)
    images = held_out * seeds * methods
    yield _images(recipe, plan, found, held_out, images, files)
    for metric, scorer in config.metrics.items():
        cost = found[f"score/{metric}"]
        shards = {"shards": files, "rows": images, "files": files * methods, "folders": methods}
        yield _stage(f"{plan.folder}/…/{metric}", cost, images, **shards)
        if scorer == recipe.drift.encoder and plan.compared(recipe):
            yield _stage(f"{plan.folder}/…/consistency", cost, images, **shards)
    if asks and "atoms" in found:
        shards = {"shards": files, "rows": images, "files": files * methods, "folders": methods}
        yield _stage(f"{plan.folder}/…/atoms", found["atoms"], images, **shards)


def _images(recipe: Recipe, plan: Evaluation, found: Found, held_out: int, images: int, files: int) -> Stage:
    """Rewriting by every method, and rendering, which the same stages do."""
    stage = _stage(
        f"{plan.folder}{IMAGES}",
        found["images"],
        images,
        shards=files,
        rows=images,
        files=files * len(plan.models),
        folders=len(plan.models),
    )
    counter = found["rewrite/evaluation"]  # every method loads a model of the run, if only to count tokens
    reasons, without = [stage.missing], list[str]()
    for method in plan.models:
        other, variant = recipe.evaluate.rewriters.get(method), recipe.variants.get(method)
        if other is not None and other.is_remote:
            without.append(method)
        name = f"other {method}" if other else f"also {variant.name}" if variant else "evaluation"
        cost = counter if method == "human" or method in without else found[f"rewrite/{name}"]
        if isinstance(cost, Unmeasured) or isinstance(counter, Unmeasured):
            reasons.append(next(each for each in (cost, counter) if isinstance(each, Unmeasured)))
            continue
        writes = method != "human" and method not in without
        work = stage.work + (_span(cost) * held_out if writes else Span())
        stage = replace(stage, work=work, fixed=stage.fixed + cost.fixed + (counter.fixed if other and writes else 0.0))
    if reason := next(filter(None, reasons), None):
        return Stage(f"{plan.folder}{IMAGES}", missing=reason)
    writing = counter.measured if isinstance(counter, Cost) else ""
    asked = f"; without {', '.join(without)}, which a server writes" if without else ""
    return replace(stage, measured=f"{stage.measured}, {writing}{asked}")
