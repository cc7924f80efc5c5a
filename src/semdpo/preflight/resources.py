"""Memory and disk that a recipe needs, and whether this machine has them; what a run has already counts for nothing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Literal

import psutil
from safetensors import SafetensorError, safe_open

from semdpo.engine import model_folders, store
from semdpo.engine.stage import AnyStage, ModelStage
from semdpo.errors import ModelError, StoreError
from semdpo.models import registry
from semdpo.models.hub import cached
from semdpo.recipe.schema import Recipe
from semdpo.stages.flow import flow

GB = 1e9
TRAINED_BYTES = 16  # a parameter that is trained: float32 weight, gradient and Adam's two running means
CHECKPOINT_BYTES = 2 * 12  # two checkpoints: weight and the two means

Level = Literal["ok", "warning", "error"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        level: ``error`` stops a run.
        what: the thing.
        found: what is known of it.
        cure: what to do, where something is to be done; a command where there is one.
    """

    level: Level
    what: str
    found: str
    cure: str = ""


def resources(
    recipe: Recipe, folder: Path, stages: Sequence[AnyStage] | None = None, *, fresh: bool = False, fetched: float = 0.0
) -> list[Finding]:
    """Memory and disk, as far as the sizes of the models are known.

    Args:
        recipe: validated.
        folder: where the run's files would go; what is finished there needs nothing more.
        stages: those that will be made; None is the whole recipe.
        fresh: whether finished stages may be made again.
        fetched: bytes that will be downloaded to the same disk.
    """
    chosen = flow(recipe) if stages is None else stages
    missing = [stage for stage in chosen if fresh or not store.is_complete(folder / stage.name)]
    wanted = _memory_wanted(recipe, missing)
    most = max(wanted, key=lambda stage: wanted[stage])
    memory, what = _memory()
    kept = _disk_wanted(recipe, missing, folder)
    purpose = "for models, checkpoints and images" + (f", {fetched / GB:.1f} GB of it to download" if fetched else "")
    cure = "give a folder on a larger disk: --out" + (" (downloads: HF_HOME)" if fetched else "")
    return [
        _compare("memory", wanted[most], memory, f"for {most}", f"{what} free", _less_memory(most)),
        _compare("disk", kept + fetched, free(folder), purpose, "free", cure),
    ]


def refuse_too_large(
    recipe: Recipe, folder: Path, stages: Sequence[AnyStage] | None = None, *, fresh: bool = False, fetched: float = 0.0
) -> None:
    """Refuses a run that this machine cannot hold; arguments as in ``resources``.

    Raises:
        StoreError: there is not enough memory or disk.
    """
    found = resources(recipe, folder, stages, fresh=fresh, fetched=fetched)
    if wrong := [each for each in found if each.level == "error"]:
        raise StoreError("; ".join(f"{each.what}: {each.found}; {each.cure}" for each in wrong))


def _memory_wanted(recipe: Recipe, missing: Sequence[AnyStage]) -> dict[str, float]:
    """Bytes that each kind of missing work needs at once."""
    policy = 4 * parameters(recipe.sft.model)
    drawing, encoder = 4 * parameters(recipe.label.renderer.model), 4 * parameters(recipe.drift.encoder)
    scorers = {recipe.label.scorer, recipe.label.fidelity or recipe.label.scorer}
    evaluating = [stage for stage in missing if "evaluate/" in stage.name]
    asked = [stage.outside.items() for stage in evaluating]
    jury = {name for each in asked for key, name in each if key.startswith("evaluate.metrics.")}
    names_of = {stage.name for stage in missing}
    wanted = {"what is left": 0.0}
    if any(isinstance(stage, ModelStage) for stage in missing):
        wanted["training"] = policy / 4 * TRAINED_BYTES  # fine-tuning moves all weights, whatever comes after it
    if "candidates" in names_of:
        wanted["rewriting"] = float(policy)
    if "label" in names_of:
        wanted["rendering and scoring"] = drawing + sum(4 * parameters(name) for name in scorers)
    if evaluating:
        images = drawing + 2 * policy if any(name.endswith("/images") for name in names_of) else 0
        wanted["evaluation"] = encoder + max([images, *(4 * parameters(name) for name in jury)])
    return wanted


def _disk_wanted(recipe: Recipe, missing: Sequence[AnyStage], folder: Path) -> float:
    """Bytes that are still to be written."""
    policy = parameters(recipe.sft.model)
    models = [stage for stage in missing if isinstance(stage, ModelStage)]
    wanted = sum(_left(4 * policy, folder / stage.name) for stage in models)
    if models:  # one more while it gets its name, and the checkpoints of the one that is being trained
        begun = sum(_size(path) for stage in models for path in _checkpoints(folder / stage.name))
        wanted += 4 * policy + max(CHECKPOINT_BYTES * policy - begun, 0)
    for stage in missing:
        if stage.name.endswith("/images"):
            wanted += _left(_images(recipe, stage) * _image_bytes(recipe), folder / stage.name)
    return wanted


def _images(recipe: Recipe, stage: AnyStage) -> int:
    """How many a stage draws; 0 when the number of prompts is not given."""
    if stage.name.startswith("sweep/"):
        return 0 if recipe.sweep is None else (recipe.sweep.prompts.limit or 0) * len(recipe.sweep.image_seeds)
    return (held_out(recipe) or 0) * len(recipe.evaluate.image_seeds)


def _checkpoints(folder: Path) -> list[Path]:
    return [model_folders.checkpoints(folder)]


def _left(wanted: float, folder: Path) -> float:
    return max(wanted - _size(folder), 0.0)


def _size(folder: Path) -> int:
    """Bytes of a folder's files; 0 when it is not there."""
    places = (Path(place, name) for place, _, found in os.walk(folder) for name in found)
    return sum(each.lstat().st_size for each in places)


# ------------------------------------------------------------------------------------------------- how much there is


def images(recipe: Recipe) -> int | None:
    """How many images a run draws at most; None when the number of prompts is not given."""
    scored = evaluated(recipe)
    if recipe.prompts.limit is None or scored is None:
        return None
    return recipe.prompts.limit * recipe.candidates.n + scored


def evaluated(recipe: Recipe) -> int | None:
    """How many images the evaluation draws and keeps; None when the number of prompts is not given."""
    prompts = held_out(recipe)
    if prompts is None:
        return None
    methods = 2 + len(recipe.train.methods) + len(recipe.evaluate.rewriters)
    return prompts * methods * len(recipe.evaluate.image_seeds)


def held_out(recipe: Recipe) -> int | None:
    """How many prompts the evaluation uses; None when the number is not given."""
    sets = [each.limit for each in recipe.prompts.test_sets.values()] or [recipe.prompts.test_limit]
    return None if None in sets else sum(each or 0 for each in sets)


def _image_bytes(recipe: Recipe) -> float:
    """Of one kept image: lossless WebP takes about 60% of a photograph's bytes."""
    config = recipe.evaluate.renderer
    return 0.6 * 3 * (config.height or 512) * (config.width or 512)


def is_absent(name: str) -> bool:
    """Whether a model would have to be downloaded first.

    Raises:
        ModelError: there is no such model.
    """
    return where(name).startswith("not")


def parameters(name: str) -> int:
    """Of a model, from its files' headers; by the published size where it is not there; 0 when nothing is known.

    Raises:
        ModelError: there is no such model, or one of its files is broken.
    """
    place = registry.resolve(name)
    known = registry.published(name)
    folder = Path(place.path) if place.local else None
    files = [] if folder is None else [p for p in folder.rglob("*.safetensors") if "safety_checker" not in p.parts]
    if files:
        return sum(_counted(each) for each in files)
    if folder is not None:
        return sum(each.stat().st_size for suffix in ("pt", "bin") for each in folder.glob(f"*.{suffix}")) // 4
    return 0 if known is None else known.millions * 1_000_000


def where(name: str, files: Sequence[str] | None = None) -> str:
    """Where a model is, in words; begins with "not" when it is nowhere here.

    Raises:
        ModelError: there is no such model.
    """
    place = registry.resolve(name)
    if place.local:
        return "embedded" if name.startswith("tiny:") else f"in {place.path}"
    return "downloaded" if cached(place.path, files or place.files, registry.SKIPPED) else "not downloaded"


def free(folder: Path) -> int:
    """Bytes that are free on the disk of a folder, which need not be there yet."""
    existing = next(each for each in (folder.absolute(), *folder.absolute().parents) if each.exists())
    return shutil.disk_usage(existing).free


def _memory() -> tuple[float, str]:
    import torch

    if torch.cuda.is_available():
        return float(torch.cuda.mem_get_info(0)[0]), "of the GPU"
    return float(psutil.virtual_memory().available), "of the processor's"


def _compare(what: str, wanted: float, there: float, purpose: str, kind: str, cure: str) -> Finding:
    found = f"about {wanted / GB:.2g} GB {purpose}, {there / GB:.2g} GB {kind}"
    return Finding("error", what, found, cure) if wanted > there else Finding("ok", what, found)


def _less_memory(stage: str) -> str:
    if stage in ("training", "rewriting"):
        return "choose a smaller sft.model, or use a machine with more memory"
    return "name fewer or smaller scorers, or use a machine with more memory"


def _counted(path: Path) -> int:
    """Numbers in a safetensors file; only its header is read."""
    try:
        with safe_open(path, "numpy") as file:
            return sum(prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise ModelError(f"'{path}' is not a complete safetensors file ({error}); download or save it again") from error
