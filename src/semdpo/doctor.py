"""What a recipe needs, beside what this machine has: told before hours are spent."""

from __future__ import annotations

import json
import os
import platform
import shutil
import struct
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Literal

import psutil

from semdpo import store
from semdpo.config import Recipe
from semdpo.errors import DataError, ModelError, SemdpoError, StoreError
from semdpo.flow import flow, is_file
from semdpo.models import names
from semdpo.models.hub import ask, cached
from semdpo.parts import refuse_remote_code

GB = 1e9
TRAINED_BYTES = 16  # a parameter that is trained: float32 weight, gradient and Adam's two running means
MEASURED_SECONDS = 20.0

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


def machine(folder: Path) -> list[Finding]:
    """Versions, devices, memory and disk.

    Args:
        folder: where the run's files would go.
    """
    import torch

    memory = psutil.virtual_memory()
    found = [
        Finding("ok", "python", platform.python_version()),
        *(Finding("ok", name, version) for name, version in store.versions().items()),
        Finding(
            "ok", "processor", f"{os.cpu_count()} cores, {memory.available / GB:.1f} of {memory.total / GB:.1f} GB free"
        ),
    ]
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        name = torch.cuda.get_device_name(index)
        found.append(Finding("ok", f"GPU {index}", f"{name}, {free / GB:.1f} of {total / GB:.1f} GB free"))
    if not torch.cuda.is_available():
        found.append(Finding("ok", "GPU", "none; everything is computed on the processor"))
    return [*found, Finding("ok", "disk", f"{_free(folder) / GB:.1f} GB free at {folder.absolute()}")]


def needs(recipe: Recipe, folder: Path) -> list[Finding]:
    """The recipe's files and models, and whether they fit this machine; the hub is not asked.

    Args:
        recipe: validated.
        folder: where the run's files would go.
    """
    things = {name: key for stage in flow(recipe) for key, name in stage.outside.items() if not is_file(key)}
    files = {name: key for stage in flow(recipe) for key, name in stage.outside.items() if is_file(key)}
    found = [_file(key, name) for name, key in files.items()]
    found += [finding for name, key in things.items() for finding in _model(key, name)]
    try:
        refuse_remote_code(recipe)
    except ModelError as error:
        found.append(Finding("error", "remote code", str(error)))
    return [*found, *remote_code(recipe), *resources(recipe, folder)]


def remote_code(recipe: Recipe) -> list[Finding]:
    """Whether the Python code that comes with judges, where the user allows it, runs with what is installed.

    It is imported and its class is built, without weights. What is not here yet cannot be tried.

    Args:
        recipe: validated.
    """
    judges = dict.fromkeys([recipe.label.scorer, recipe.label.fidelity, *recipe.evaluate.metrics.values()])
    return [_tried(name) for name in judges if name is not None and name in recipe.scoring.allow_remote_code]


def resources(recipe: Recipe, folder: Path) -> list[Finding]:
    """Memory and disk, as far as the sizes of the models are known.

    Args:
        recipe: validated.
        folder: where the run's files would go.
    """
    policy = parameters(recipe.sft.model)
    drawing = 4 * parameters(recipe.label.renderer.model)
    judges = {recipe.label.scorer, recipe.label.fidelity or recipe.label.scorer}
    jury = set(recipe.evaluate.metrics.values())
    encoder = 4 * parameters(recipe.weigh.encoder)
    wanted = {
        "training": policy * TRAINED_BYTES,  # fine-tuning moves all weights, whatever comes after it
        "drawing and scoring": drawing + sum(4 * parameters(name) for name in judges),
        "evaluation": encoder + max(drawing + 2 * 4 * policy, *(4 * parameters(name) for name in jury)),
    }
    most = max(wanted, key=lambda stage: wanted[stage])
    memory, what = _memory()
    kept = 4 * policy * (2 + len(recipe.train.methods)) + 2 * 12 * policy + (evaluated(recipe) or 0) * _bytes(recipe)
    return [
        _compare("memory", wanted[most], memory, f"for {most}", f"{what} free", _less_memory(most)),
        _compare(
            "disk",
            kept,
            _free(folder),
            "for models, checkpoints and pictures",
            "free",
            "give a folder on a larger disk: --out",
        ),
    ]


def refuse_the_impossible(recipe: Recipe, folder: Path) -> None:
    """The pre-flight of a run.

    Raises:
        ModelError: the Python code that comes with a judge does not run.
        StoreError: there is not enough memory or disk.
    """
    for each in remote_code(recipe):
        if each.level == "error":
            raise ModelError(f"{each.what}: {each.found}")
    if wrong := [each for each in resources(recipe, folder) if each.level == "error"]:
        raise StoreError("; ".join(f"{each.what}: {each.found}; {each.cure}" for each in wrong))


def pictures(recipe: Recipe) -> int | None:
    """How many pictures a run draws at most; None when the number of prompts is not given."""
    judged = evaluated(recipe)
    if recipe.prompts.limit is None or judged is None:
        return None
    return recipe.prompts.limit * recipe.candidates.n + judged


def evaluated(recipe: Recipe) -> int | None:
    """How many pictures the evaluation draws and keeps; None when the number of prompts is not given."""
    prompts = held_out(recipe)
    if prompts is None:
        return None
    methods = 2 + len(recipe.train.methods) + len(recipe.evaluate.rewriters)
    return prompts * methods * len(recipe.evaluate.image_seeds)


def held_out(recipe: Recipe) -> int | None:
    """How many prompts the evaluation uses; None when the number is not given."""
    sets = [each.limit for each in recipe.prompts.test_sets.values()] or [recipe.prompts.test_limit]
    return None if None in sets else sum(each or 0 for each in sets)


def _bytes(recipe: Recipe) -> float:
    """Of one kept picture: lossless WebP takes about 60% of a photograph's bytes."""
    config = recipe.evaluate.renderer
    return 0.6 * 3 * (config.height or 512) * (config.width or 512)


def measure(recipe: Recipe, seconds: float = MEASURED_SECONDS) -> Finding:
    """How long the pictures will take, from drawing and scoring some for a while.

    Args:
        recipe: validated; its renderer and scorer must be there.
        seconds: to measure for; at least two batches are drawn.
    """
    count = pictures(recipe)
    if any(is_absent(name) for name in (recipe.label.renderer.model, recipe.label.scorer)):
        return Finding("warning", "time", "not measured: renderer or scorer is not there")
    from semdpo.parts import real_parts

    parts = real_parts()
    try:
        renderer = parts.renderer(recipe.label.renderer)
        scorer = parts.scorer(recipe.label.scorer, recipe.scoring)
        size = recipe.label.renderer.batch_size
        done, speed, begun = 0, 0.0, time.monotonic()
        while done < 2 * size or time.monotonic() - begun < seconds:
            batch = time.monotonic()
            prompts = ["a red house near a tree"] * size
            scorer.score(renderer.render(prompts, list(range(done, done + size))), prompts)
            done += size
            speed = max(speed, size / (time.monotonic() - batch))  # the first batch warms up
    except SemdpoError as error:
        return Finding("error", "time", str(error))
    each = f"{speed:.3g} pictures drawn and scored a second"
    if count is None:
        return Finding("ok", "time", f"{each}; set prompts.limit to be told how long a run takes")
    hours = count / speed / 3600
    return Finding("ok", "time", f"{each}; {count:,} pictures take about {hours:.1f} hours")


def is_absent(name: str) -> bool:
    """Whether a model would have to be downloaded first.

    Raises:
        ModelError: there is no such model.
    """
    return _where(name).startswith("not")


def parameters(name: str) -> int:
    """Of a model, from its files' headers; by the published size where it is not there; 0 when nothing is known.

    Raises:
        ModelError: there is no such model.
    """
    place = names.resolve(name)
    known = names.published(name)
    folder = Path(place.path) if place.local else None
    files = [] if folder is None else [p for p in folder.rglob("*.safetensors") if "safety_checker" not in p.parts]
    if files:
        return sum(_counted(each) for each in files)
    if folder is not None:
        return sum(each.stat().st_size for suffix in ("pt", "bin") for each in folder.glob(f"*.{suffix}")) // 4
    return 0 if known is None else known.millions * 1_000_000


# --------------------------------------------------------------------------------------------------- one thing each


def _file(key: str, name: str) -> Finding:
    from semdpo.tables import resolve

    if name.startswith("hub:"):
        return Finding("ok", name, f"{key}: read from the hub")
    try:
        path = resolve(name)
    except DataError as error:
        return Finding("error", name, f"{key}: not there", str(error))
    return Finding("ok", name, f"{key}: {path.stat().st_size / 1e6:.1f} MB")


def _model(key: str, name: str) -> Iterable[Finding]:
    try:
        state = _where(name)
    except ModelError as error:
        yield Finding("error", name, f"{key}: unknown", str(error))
        return
    if state.startswith("not"):
        yield _to_be_fetched(key, name)
    else:
        yield Finding("ok", name, f"{key}: {state}, {parameters(name) / 1e6:.4g} M parameters")
    words = names.resolve(name).words_elsewhere()
    if words is not None and _where(words, names.WORDS).startswith("not"):
        yield _to_be_fetched(f"{key}, the tokenizer", words, names.WORDS)


def _tried(name: str) -> Finding:
    from semdpo.models.remote import has_remote_code, try_remote

    try:
        if _where(name).startswith("not"):
            return Finding(
                "warning", name, "its own Python code was not tried, for it is not here", "once it is: `semdpo doctor`"
            )
        folder = names.resolve(name).folder()
        if not has_remote_code(folder):
            return Finding("ok", name, "brings no Python code of its own")
        try_remote(folder)
    except ModelError as error:
        return Finding("error", name, str(error), "see the documentation of models, under jina")
    return Finding("ok", name, "its own Python code runs")


def _to_be_fetched(key: str, name: str, files: Sequence[str] = ()) -> Finding:
    """A model of the hub that is not here: whether it will come by itself, and if not, what to do."""
    place = names.resolve(name)
    known = names.published(name)
    size = f", about {known.gigabytes:g} GB" if known and not files else ""
    exact = [file for file in place.files if "*" not in file]
    patterns = [f"--include '{each}'" for each in files]
    download = " ".join(["`hf download", place.path, *exact, *patterns]) + "`"
    match ask(place.path):
        case "there":
            return Finding("warning", name, f"{key}: not downloaded{size}; the run will fetch it", download)
        case "gated":
            cure = f"accept its licence at https://huggingface.co/{place.path}, then `hf auth login`"
            return Finding("error", name, f"{key}: not downloaded{size}, and gated", cure)
        case "absent":
            return Finding("error", name, f"{key}: not on the hub, or private", "check the name, or `hf auth login`")
        case _:
            cure = f"where there is a connection: {download}; or put it under $SEMDPO_MODELS"
            return Finding("error", name, f"{key}: not downloaded{size}, and the hub cannot be reached", cure)


def _where(name: str, files: Sequence[str] | None = None) -> str:
    """Where a model is, in words; begins with "not" when it is nowhere here.

    Raises:
        ModelError: there is no such model.
    """
    place = names.resolve(name)
    if place.local:
        return "embedded" if name.startswith("tiny:") else f"in {place.path}"
    return "downloaded" if cached(place.path, files or place.files, names.SKIPPED) else "not downloaded"


def _memory() -> tuple[float, str]:
    import torch

    if torch.cuda.is_available():
        return float(torch.cuda.mem_get_info(0)[0]), "of the GPU"
    return float(psutil.virtual_memory().available), "of the processor's"


def _compare(what: str, wanted: float, there: float, purpose: str, kind: str, cure: str) -> Finding:
    found = f"about {wanted / GB:.2g} GB {purpose}, {there / GB:.2g} GB {kind}"
    return Finding("error", what, found, cure) if wanted > there else Finding("ok", what, found)


def _less_memory(stage: str) -> str:
    if stage == "training":
        return "choose a smaller sft.model, or use a machine with more memory"
    return "name fewer or smaller judges, or use a machine with more memory"


def _free(folder: Path) -> int:
    existing = next(each for each in (folder.absolute(), *folder.absolute().parents) if each.exists())
    return shutil.disk_usage(existing).free


def _counted(path: Path) -> int:
    """Numbers in a safetensors file, from its header: eight bytes of length, then JSON."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    return sum(prod(each["shape"]) for name, each in header.items() if name != "__metadata__")
