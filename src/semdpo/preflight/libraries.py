"""The optional libraries that a recipe's stages need, found before any stage runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from semdpo.engine import store
from semdpo.engine.stage import AnyStage, ModelStage, TableStage
from semdpo.errors import ModelError
from semdpo.models.registry import resolve
from semdpo.preflight.downloads import HUB
from semdpo.recipe.atoms import ATOMS
from semdpo.recipe.rounds import work_of
from semdpo.recipe.schema import Recipe
from semdpo.stages import atoms, candidates, label, sft
from semdpo.stages.flow import flow, is_file


def wanted(
    recipe: Recipe,
    folder: Path,
    stages: Sequence[AnyStage] | None = None,
    *,
    fresh: bool = False,
    report: bool = True,
) -> dict[str, str]:
    """The extras that a run uses.

    Args:
        recipe: the validated recipe.
        folder: the run's folder; its finished stages need no library.
        stages: the stages to run; None is the whole recipe.
        fresh: whether finished stages may be made again.
        report: whether the report is written at the end.

    Returns:
        Extra → what needs it, for ``extras.require``.
    """
    chosen = flow(recipe) if stages is None else stages
    uses: dict[str, str] = {}
    for stage in chosen:
        if fresh or not store.is_complete(folder / stage.name):
            for extra, use in _of_stage(recipe, stage):
                uses.setdefault(extra, use)
    if report:
        uses |= of_report(recipe)
        if not any(stage.name.startswith("evaluate/") for stage in chosen):
            uses.pop("study", None)  # the page of a sweep has no study
    return uses


def of_report(recipe: Recipe) -> dict[str, str]:
    """The extras that a run's report uses, as ``wanted`` gives them."""
    return {"report": "the report"} | ({"study": "report.study"} if recipe.report.study else {})


def _of_stage(recipe: Recipe, stage: AnyStage) -> Iterator[tuple[str, str]]:
    if "evaluate/" in stage.name or work_of(stage.name) == label.NAME:
        yield "render", "rendering and scoring images"
    for key, name in stage.outside.items():
        if not is_file(key):
            yield from _of_model(key, name)
        elif name.startswith(HUB):
            yield "hub", f"reading {name}"
    for key in recipe.servers:
        if key in recipe.other_rewriters:
            of_benchmark = stage.name.startswith("benchmarks/") and stage.name.endswith(f"/{_writes(key)}")
            if stage.name == _writes(key) or of_benchmark:  # not in a later round, which has a rewriter of its own
                yield "endpoint", "a rewriter behind a URL"
        elif _asks(stage.name, key) or (key == "atoms.model" and _answers(recipe, stage.name)):
            yield "endpoint", f"{key}, which is behind a URL,"
    if isinstance(stage, ModelStage) and stage.name != sft.NAME and recipe.train.lora is not None:
        yield "lora", "train.lora"
    if recipe.engine == "ray" and isinstance(stage, TableStage) and stage.pool is not None:
        yield "ray", "engine: ray"


def _writes(key: str) -> str:
    """The stage that another rewriter writes for, from its key in the recipe."""
    method = key.removeprefix("evaluate.rewriters.")
    own = {"candidates.rewriter": candidates.NAME, "atoms.lm": atoms.NAME}
    return own[key] if method == key else f"evaluate/{method}/images"


def _asks(stage: str, key: str) -> bool:
    """Whether a stage asks a server for images or scores, from the server's key in the recipe."""
    if key.startswith("label."):
        return work_of(stage) == label.NAME
    last = stage.rpartition("/")[2]
    return "evaluate/" in stage and last == (
        "images" if key == "evaluate.renderer" else key.removeprefix("evaluate.metrics.")
    )


def _answers(recipe: Recipe, stage: str) -> bool:
    """Whether a stage asks the server behind ``atoms.model``."""
    labels = work_of(stage) == label.NAME and recipe.label.fidelity == ATOMS
    return labels or ("evaluate/" in stage and stage.endswith("/atoms"))


def _of_model(key: str, name: str) -> Iterator[tuple[str, str]]:
    """The extras that a model's files need, with their uses; empty for a model that is not downloaded yet."""
    from semdpo.models.adapters import is_adapters  # here, since they import torch
    from semdpo.models.sentence_folder import is_sentence_model

    try:
        place = resolve(name)
    except ModelError:
        return  # reported elsewhere, with a better message
    if not place.local:
        return
    if is_adapters(place.folder()):
        yield "lora", f"{key}, which holds adapters,"
    if key == "drift.encoder" and is_sentence_model(place.folder()):
        yield "sentence", "drift.encoder"
