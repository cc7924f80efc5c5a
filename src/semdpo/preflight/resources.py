"""The memory and disk space that the unfinished stages of a run need, and whether this machine has them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from math import prod
from pathlib import Path
from typing import Literal

import psutil
from safetensors import SafetensorError, safe_open

from semdpo.data.benchmarks import BENCHMARKS
from semdpo.engine import model_folders, store
from semdpo.engine.stage import AnyStage, ModelStage, TableStage
from semdpo.errors import ModelError, StoreError
from semdpo.models import catalogue, registry
from semdpo.models.hub import cached, downloaded
from semdpo.recipe.endpoints import is_url
from semdpo.recipe.models import RendererConfig, RewriterSource
from semdpo.recipe.rounds import work_of
from semdpo.recipe.schema import Recipe
from semdpo.stages.flow import flow

GB = 1e9
TRAINED_BYTES = 16  # per trained parameter: float32 weight, gradient and Adam's two running means
CHECKPOINT_BYTES = 2 * 12  # per parameter: two checkpoints of the weight and the two means

Level = Literal["ok", "warning", "error"]


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check.

    Attributes:
        level: whether it is fine; an ``error`` stops a run.
        what: what was checked.
        found: what the check found.
        cure: what to do about it, if possible a command; empty where nothing is to be done.
    """

    level: Level
    what: str
    found: str
    cure: str = ""


def resources(
    recipe: Recipe, folder: Path, stages: Sequence[AnyStage] | None = None, *, fresh: bool = False, fetched: float = 0.0
) -> list[Finding]:
    """Compares the memory and disk space that a run needs with what is free, as far as the models' sizes are known.

    Args:
        recipe: the validated recipe.
        folder: the run's folder, which need not exist; its finished stages need no further space.
        stages: the stages to run; None is the whole recipe.
        fresh: whether finished stages may be made again.
        fetched: the bytes that will be downloaded to the same disk.
    """
    chosen = flow(recipe) if stages is None else stages
    missing = [stage for stage in chosen if fresh or not store.is_complete(folder / stage.name)]
    needed = _memory_needed(recipe, [stage for stage in missing if not _is_made_elsewhere(recipe, stage)])
    most = max(needed, key=lambda work: needed[work])
    memory, what = _memory()
    files = _disk_needed(recipe, missing, folder)
    purpose = "for models, checkpoints and images" + (f", {fetched / GB:.1f} GB of it to download" if fetched else "")
    cure = "choose a folder on a larger disk with --out" + (" (downloads: HF_HOME)" if fetched else "")
    return [
        _compare("memory", needed[most], memory, f"for {most}", f"{what} free", _less_memory(most)),
        _compare("disk", files + fetched, free(folder), purpose, "free", cure),
    ]


def refuse_too_large(
    recipe: Recipe, folder: Path, stages: Sequence[AnyStage] | None = None, *, fresh: bool = False, fetched: float = 0.0
) -> None:
    """Refuses a run that this machine cannot hold; arguments as in ``resources``.

    Raises:
        StoreError: there is not enough memory or disk.
    """
    findings = resources(recipe, folder, stages, fresh=fresh, fetched=fetched)
    if errors := [finding for finding in findings if finding.level == "error"]:
        raise StoreError("; ".join(f"{finding.what}: {finding.found}; {finding.cure}" for finding in errors))


def _is_made_elsewhere(recipe: Recipe, stage: AnyStage) -> bool:
    """Whether a stage is made by a cluster's workers, whose memory is not known here."""
    return recipe.engine == "ray" and isinstance(stage, TableStage) and stage.pool is not None


def _memory_needed(recipe: Recipe, missing: Sequence[AnyStage]) -> dict[str, float]:
    """The bytes of memory that each kind of unfinished work needs."""
    policy, scored = parameters(recipe.sft.model), _weight_bytes(recipe.scoring.precision)
    rendering, encoder = renderer_bytes(recipe.label.renderer), 4 * parameters(recipe.drift.encoder)
    scorers = {recipe.label.scorer, recipe.model_of(recipe.label.fidelity) or recipe.label.scorer}
    evaluating = [stage for stage in missing if "evaluate/" in stage.name]
    outside = [stage.outside.items() for stage in evaluating]
    metrics = {name for items in outside for key, name in items if key.startswith(("evaluate.metrics.", "atoms.model"))}
    names = {work_of(stage.name) for stage in missing}
    needed = {"the rest": 0.0}
    if any(isinstance(stage, ModelStage) for stage in missing):
        needed["training"] = float(policy * TRAINED_BYTES)  # fine-tuning trains all weights, even if LoRA follows
    if "atoms" in names and recipe.atoms is not None:
        lm = recipe.atoms.lm
        needed["writing atoms"] = 0.0 if lm is None else _weight_bytes(lm.precision) * _others(lm)
    if "candidates" in names:
        weights = policy + _others(recipe.candidates.rewriter)
        needed["rewriting"] = _weight_bytes(recipe.candidates.precision) * weights
    if "label" in names:
        needed["rendering and scoring"] = rendering + sum(scored * parameters(name) for name in scorers)
    if evaluating:
        rewriters = 2 * _weight_bytes(recipe.evaluate.rewrite.precision) * policy
        drawing = renderer_bytes(recipe.evaluate.renderer) + rewriters
        images = drawing if any(name.endswith("/images") for name in names) else 0
        needed["evaluation"] = encoder + max([images, *(scored * parameters(name) for name in metrics)])
    return needed


def _weight_bytes(precision: str) -> float:
    """The bytes of a weight of a rewriter or scorer, from the setting of its precision; see ``device.compute``."""
    import torch

    from semdpo.models.device import native_bfloat16

    half = precision in ("bfloat16", "float16")
    return 2.0 if half or (precision == "auto" and torch.cuda.is_available() and native_bfloat16()) else 4.0


def renderer_bytes(config: RendererConfig) -> float:
    """The bytes of a renderer's weights on the device that computes, as far as its size is known.

    Args:
        config: its settings; precision, quantisation and offloading count.
    """
    import torch

    if not torch.cuda.is_available():
        return 4.0 * parameters(config.model)  # weights on a CPU are always float32
    each = _weight_bytes(config.precision)
    if config.quantization is not None:
        each = 0.6 if config.quantization == "4bit" else 1.1  # with scales, and parts that stay as they are
    match config.offload:
        case "sequential":
            return 0.0
        case "model":
            return each * _largest_part(config.model)
        case _:
            return each * parameters(config.model)


def _largest_part(name: str) -> int:
    """The parameters of a pipeline's largest part; 0 where its files are not here, for nothing else tells them."""
    place = registry.resolve(name)
    folder = Path(place.path) if place.local else downloaded(place.path, place.files, catalogue.SKIPPED)
    sizes: dict[Path, int] = {}
    for file in [] if folder is None else _files_of_weights(folder):
        sizes[file.parent] = sizes.get(file.parent, 0) + _numbers_in(file)
    return max(sizes.values(), default=0)


def _files_of_weights(folder: Path) -> list[Path]:
    """The safetensors files of a model that are loaded: not those of a safety checker, and no further copies."""
    # Beside a pipeline's parts, its publisher may put all of them into one file once more.
    pattern = "*/*.safetensors" if (folder / "model_index.json").is_file() else "**/*.safetensors"
    names = {path: path.relative_to(folder).as_posix() for path in folder.glob(pattern)}
    return [
        path
        for path, name in names.items()
        if "safety_checker" not in path.parts and not any(fnmatch(name, each) for each in catalogue.SKIPPED)
    ]


def _others(rewriter: RewriterSource | None) -> int:
    """The parameters of a rewriter beside the policy, whose tokenizer counts; 0 for none, or one behind a URL."""
    return 0 if rewriter is None or rewriter.is_remote else parameters(rewriter.model)


def _disk_needed(recipe: Recipe, missing: Sequence[AnyStage], folder: Path) -> float:
    """The bytes of disk space that the unfinished stages need."""
    policy = parameters(recipe.sft.model)
    models = [stage for stage in missing if isinstance(stage, ModelStage)]
    needed = sum(_left(4 * policy, folder / stage.name) for stage in models)
    if models:  # one more model while its files are copied, and the checkpoints of one training
        written = sum(_size(path) for stage in models for path in _checkpoints(folder / stage.name))
        needed += 4 * policy + max(CHECKPOINT_BYTES * policy - written, 0)
    for stage in missing:
        if stage.name.endswith("/images"):
            needed += _left(_images(recipe, stage) * _image_bytes(recipe), folder / stage.name)
    return needed


def _images(recipe: Recipe, stage: AnyStage) -> int:
    """How many images a stage renders; 0 when the recipe sets no number of prompts."""
    if stage.name.startswith("benchmarks/"):
        return benchmark_images(recipe, stage.name.split("/")[1])
    if stage.name.startswith("sweep/"):
        return 0 if recipe.sweep is None else (recipe.sweep.prompts.limit or 0) * len(recipe.sweep.image_seeds)
    return (held_out(recipe) or 0) * len(recipe.evaluate.image_seeds)


def benchmark_images(recipe: Recipe, name: str) -> int:
    """The number of images that the evaluation on a benchmark renders of each method, if its file has all prompts.

    Args:
        recipe: the validated recipe.
        name: the benchmark's name.
    """
    config, whole = recipe.benchmarks[name], BENCHMARKS[name].prompts
    seeds = recipe.evaluate.image_seeds if config.image_seeds is None else config.image_seeds
    return min(config.limit or whole, whole) * len(seeds)


def _checkpoints(folder: Path) -> list[Path]:
    return [model_folders.checkpoints(folder)]


def _left(needed: float, folder: Path) -> float:
    return max(needed - _size(folder), 0.0)


def _size(folder: Path) -> int:
    """The bytes of a folder's files; 0 when there is no such folder."""
    paths = (Path(place, name) for place, _, names in os.walk(folder) for name in names)
    return sum(path.lstat().st_size for path in paths)


# ------------------------------------------------------------------------------------------------- sizes


def images(recipe: Recipe) -> int | None:
    """The largest number of images that a run renders; None when the recipe sets no number of prompts."""
    scored = evaluated(recipe)
    if recipe.prompts.limit is None or scored is None:
        return None
    rounds = 1 + len(recipe.later_rounds)  # a later round has candidates of its own for every method
    return recipe.prompts.limit * recipe.candidates.most * rounds + scored


def evaluated(recipe: Recipe) -> int | None:
    """The number of images that the evaluation renders and stores; None when the recipe sets no number of prompts."""
    prompts = held_out(recipe)
    if prompts is None:
        return None
    methods = 2 + len(recipe.train.methods) + len(recipe.evaluate.rewriters) + len(recipe.secondary)
    of_benchmarks = sum(benchmark_images(recipe, name) for name in recipe.benchmarks)
    return methods * (prompts * len(recipe.evaluate.image_seeds) + of_benchmarks)


def held_out(recipe: Recipe) -> int | None:
    """The number of prompts of the evaluation; None when the recipe sets none."""
    sets = [test_set.limit for test_set in recipe.prompts.test_sets.values()] or [recipe.prompts.test_limit]
    return None if None in sets else sum(limit or 0 for limit in sets)


def _image_bytes(recipe: Recipe) -> float:
    """The bytes of one stored image: lossless WebP takes about 60% of a photograph's raw bytes."""
    config = recipe.evaluate.renderer
    usual = _usual_side(config.model)
    return 0.6 * 3 * (config.height or usual) * (config.width or usual)


def _usual_side(name: str) -> int:
    """The side of a model's images in pixels; 512 where its family is not known here."""
    from semdpo.models.families import FAMILIES, family_of

    try:
        place = registry.resolve(name)
        family = family_of(Path(place.path), name) if place.local else None
    except ModelError:
        family = None
    published = registry.published(name)
    if family is not None:
        return family.pixels
    return 512 if published is None or not published.family else FAMILIES[published.family].pixels


def is_absent(name: str) -> bool:
    """Whether a model must be downloaded first.

    Raises:
        ModelError: there is no such model.
    """
    return where(name).startswith("not")


def parameters(name: str) -> int:
    """The number of a model's parameters: from its files, or the published number where they are not here, or 0.

    Those of a model that it stands on are counted too. A model behind a URL has none here.

    Raises:
        ModelError: there is no such model, or one of its files is broken.
    """
    if is_url(name):
        return 0
    place = registry.resolve(name)
    base = place.separate_base()
    return _own_parameters(name, place) + (0 if base is None else parameters(base))


def _own_parameters(name: str, place: registry.Place) -> int:
    published = registry.published(name)
    folder = Path(place.path) if place.local else None
    if folder is not None and (files := _files_of_weights(folder)):
        return sum(_numbers_in(file) for file in files)
    if folder is not None:
        return sum(file.stat().st_size for suffix in ("pt", "pth", "bin") for file in folder.glob(f"*.{suffix}")) // 4
    return 0 if published is None else published.millions * 1_000_000


def where(name: str, files: Sequence[str] | None = None) -> str:
    """Where a model is, in words that begin with "not" when it is not on this machine.

    Raises:
        ModelError: there is no such model.
    """
    place = registry.resolve(name)
    if place.local:
        return "embedded" if name.startswith("tiny:") else f"in {place.path}"
    return "downloaded" if cached(place.path, files or place.files, catalogue.SKIPPED) else "not downloaded"


def free(folder: Path) -> int:
    """The free bytes on the disk of a folder, which need not exist yet."""
    existing = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    return shutil.disk_usage(existing).free


def _memory() -> tuple[float, str]:
    import torch

    if torch.cuda.is_available():
        return float(torch.cuda.mem_get_info(0)[0]), "of the GPU's memory"
    return float(psutil.virtual_memory().available), "of the CPU's memory"


def _compare(what: str, needed: float, available: float, purpose: str, kind: str, cure: str) -> Finding:
    found = f"about {needed / GB:.2g} GB {purpose}, {available / GB:.2g} GB {kind}"
    return Finding("error", what, found, cure) if needed > available else Finding("ok", what, found)


def _less_memory(stage: str) -> str:
    if stage == "writing atoms":
        return "choose a smaller atoms.lm.model, or use a machine with more memory"
    if stage in ("training", "rewriting"):
        return "choose a smaller sft.model, or use a machine with more memory"
    import torch

    on_gpu = "set renderer.offload or scoring.precision=auto, " if torch.cuda.is_available() else ""
    return f"{on_gpu}name fewer or smaller scorers, or use a machine with more memory"


def _numbers_in(path: Path) -> int:
    """How many numbers a safetensors file holds; only its header is read."""
    try:
        with safe_open(path, "numpy") as file:
            return sum(prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise ModelError(f"'{path}' is not a complete safetensors file ({error}); download or save it again") from error
