"""Compares what a recipe needs with what this machine has, before hours of work."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Sequence
from pathlib import Path

import psutil

from semdpo import extras
from semdpo.engine import store
from semdpo.engine.providers import refuse_blind_fidelity, refuse_remote_code
from semdpo.engine.stage import AnyStage
from semdpo.errors import ConfigError, ModelError
from semdpo.models import catalogue, registry
from semdpo.models.hub import ask
from semdpo.preflight import downloads, encoders, endpoints, libraries, renderers
from semdpo.preflight.resources import (
    GB,
    Finding,
    evaluated,
    free,
    held_out,
    images,
    is_absent,
    parameters,
    refuse_too_large,
    resources,
    where,
)
from semdpo.recipe import trackers
from semdpo.recipe.schema import Recipe
from semdpo.stages.flow import flow, is_file

__all__ = [
    "Finding",
    "evaluated",
    "held_out",
    "images",
    "is_absent",
    "machine",
    "needs",
    "parameters",
    "refuse_the_impossible",
    "remote_code",
    "resources",
]


def machine(folder: Path) -> list[Finding]:
    """Reports versions, devices, memory and disk space.

    Args:
        folder: the run's folder, which need not exist.
    """
    import torch

    memory = psutil.virtual_memory()
    findings = [
        Finding("ok", "python", platform.python_version()),
        *(Finding("ok", name, version) for name, version in store.versions().items()),
        Finding("ok", "CPU", f"{os.cpu_count()} cores, {memory.available / GB:.1f} of {memory.total / GB:.1f} GB free"),
    ]
    for index in range(torch.cuda.device_count()):
        unused, total = torch.cuda.mem_get_info(index)
        name = torch.cuda.get_device_name(index)
        findings.append(Finding("ok", f"GPU {index}", f"{name}, {unused / GB:.1f} of {total / GB:.1f} GB free"))
    if not torch.cuda.is_available():
        findings.append(Finding("ok", "GPU", "none; everything is computed on the CPU"))
    return [*findings, Finding("ok", "disk", f"{free(folder) / GB:.1f} GB free at {folder.absolute()}")]


def needs(recipe: Recipe, folder: Path) -> list[Finding]:
    """Reports whether the recipe's files, models and libraries are here, its servers answer, and the run fits.

    Args:
        recipe: the validated recipe.
        folder: the run's folder, which need not exist.
    """
    models = {name: key for stage in flow(recipe) for key, name in stage.outside.items() if not is_file(key)}
    files = {name: key for stage in flow(recipe) for key, name in stage.outside.items() if is_file(key)}
    findings = [downloads.source(key, name) for name, key in files.items()]
    findings += [finding for name, key in models.items() for finding in _model(key, name)]
    findings += encoders.reading(recipe.drift.encoder)
    findings += [
        _library(extra, use) for extra, use in libraries.wanted(recipe, folder).items() if extras.absent(extra)
    ]
    try:
        refuse_remote_code(recipe)
    except ModelError as error:
        findings.append(Finding("error", "remote code", str(error)))
    try:
        refuse_blind_fidelity(recipe)
    except ModelError as error:
        findings.append(Finding("error", "fidelity", str(error)))
    try:
        trackers.refuse_absent(recipe.train.report_to)
    except ConfigError as error:
        findings.append(Finding("error", "train.report_to", str(error)))
    if not extras.absent("render"):
        findings += renderers.fitting(recipe)
    room = resources(recipe, folder, fetched=downloads.bytes_to_download(recipe, folder))
    return [*findings, *endpoints.servers(recipe), *remote_code(recipe), *downloads.download(recipe), *room]


def refuse_the_impossible(
    recipe: Recipe,
    folder: Path,
    stages: Sequence[AnyStage] | None = None,
    *,
    fresh: bool = False,
    report: bool = True,
) -> None:
    """Refuses a run that cannot be finished on this machine.

    Args:
        recipe: the validated recipe.
        folder: the run's folder; its finished stages need no further space.
        stages: the stages to run; None is the whole recipe.
        fresh: whether finished stages may be made again.
        report: whether the report is written at the end.

    Raises:
        ConfigError: a tracker, or a library that the stages or the report need, is not installed.
        ModelError: the Python code that comes with a model does not run, or a setting does not fit the renderer.
        StoreError: there is not enough memory or disk.
    """
    extras.require(**libraries.wanted(recipe, folder, stages, fresh=fresh, report=report))
    trackers.refuse_absent(recipe.train.report_to)
    for finding in remote_code(recipe):
        if finding.level == "error":
            raise ModelError(f"{finding.what}: {finding.found}")
    renderers.refuse_unfit(recipe, folder, stages, fresh=fresh)
    refuse_too_large(recipe, folder, stages, fresh=fresh, fetched=downloads.bytes_to_download(recipe, folder))


def remote_code(recipe: Recipe) -> list[Finding]:
    """Reports whether the Python code that comes with scorers or the encoder runs with the installed libraries.

    Only models that the recipe allows to run code are tried: the code is imported and its class is built, without
    weights. A model that is not downloaded cannot be tried.

    Args:
        recipe: the validated recipe.
    """
    names = dict.fromkeys(
        [recipe.label.scorer, recipe.label.fidelity, *recipe.evaluate.metrics.values(), recipe.drift.encoder]
    )
    return [_tried(name) for name in names if name is not None and name in recipe.scoring.allow_remote_code]


# --------------------------------------------------------------------------------------------------- single findings


def _model(key: str, name: str) -> Iterable[Finding]:
    try:
        state = where(name)
    except ModelError as error:
        yield Finding("error", name, f"{key}: unknown", str(error))
        return
    if state.startswith("not"):
        yield _to_be_fetched(key, name)
    else:
        yield Finding("ok", name, f"{key}: {state}, {parameters(name) / 1e6:.4g} M parameters")
    tokenizer = registry.resolve(name).separate_tokenizer()
    if tokenizer is not None and where(tokenizer, catalogue.WORDS).startswith("not"):
        yield _to_be_fetched(f"{key}, the tokenizer", tokenizer, catalogue.WORDS)
    if (base := registry.resolve(name).separate_base()) is not None:
        yield from _model(f"{key}, the model that it stands on", base)


def _library(extra: str, use: str) -> Finding:
    missing = ", ".join(extras.absent(extra))
    return Finding("error", f"extra {extra}", f"{use} needs {missing}, not installed", extras.command(extra))


def _tried(name: str) -> Finding:
    from semdpo.models.remote import has_remote_code, try_remote

    try:
        if where(name).startswith("not"):
            return Finding(
                "warning",
                name,
                "its own Python code was not tried: it is not downloaded",
                "download it, then run `semdpo doctor` again",
            )
        folder = registry.resolve(name).folder()
        if not has_remote_code(folder):
            return Finding("ok", name, "has no Python code of its own")
        try_remote(folder)
    except ModelError as error:
        return Finding("error", name, str(error), "see jina in the documentation of models")
    return Finding("ok", name, "its own Python code runs")


def _to_be_fetched(key: str, name: str, files: Sequence[str] = ()) -> Finding:
    """Reports whether the run can download a model, and if not, what to do."""
    place = registry.resolve(name)
    published = registry.published(name)
    size = f", about {published.gigabytes:g} GB" if published and published.gigabytes and not files else ""
    size += f", licence {published.licence}" if published and published.licence and not files else ""
    exact = [file for file in place.files if "*" not in file]
    patterns = [f"--include '{file}'" for file in files or place.files if "*" in file and not exact]
    left_out = [f"--exclude '{file}'" for file in catalogue.SKIPPED if patterns and not files]
    download = " ".join(["`hf download", place.path, *exact, *patterns, *left_out]) + "`"
    match ask(place.path):
        case "there":
            return Finding("warning", name, f"{key}: not downloaded{size}; the run will fetch it", download)
        case "gated":
            cure = f"accept its licence at https://huggingface.co/{place.path}, then `hf auth login`"
            return Finding("error", name, f"{key}: not downloaded{size}, and gated", cure)
        case "absent":
            return Finding("error", name, f"{key}: not on the hub, or private", "check the name, or `hf auth login`")
        case _:
            cure = f"download it where there is a connection: {download}; or put it under $SEMDPO_MODELS"
            return Finding("error", name, f"{key}: not downloaded{size}, and the hub cannot be reached", cure)
