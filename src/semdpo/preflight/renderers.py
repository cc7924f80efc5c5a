"""Whether a recipe's settings fit its text-to-image models, as far as their folders tell it without weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from semdpo.engine import store
from semdpo.engine.stage import AnyStage
from semdpo.errors import ModelError
from semdpo.models import catalogue, registry
from semdpo.models.hub import cached
from semdpo.preflight.resources import Finding
from semdpo.recipe.endpoints import is_url
from semdpo.recipe.models import RendererConfig
from semdpo.recipe.schema import Recipe
from semdpo.stages.flow import flow


def fitting(recipe: Recipe) -> list[Finding]:
    """Reports how each renderer will render, or the setting that does not fit it.

    Args:
        recipe: the validated recipe.
    """
    return [_finding(key, config) for key, config in _renderers(recipe).items() if _folder(config.model) is not None]


def refuse_unfit(recipe: Recipe, folder: Path, stages: Sequence[AnyStage] | None, *, fresh: bool = False) -> None:
    """Refuses settings of unfinished stages that do not fit their renderer.

    Args:
        recipe: the validated recipe.
        folder: the run's folder; its finished stages render nothing.
        stages: the stages to run; None is the whole recipe.
        fresh: whether finished stages may be made again.

    Raises:
        ModelError: a setting does not fit; the message names it.
    """
    chosen = flow(recipe) if stages is None else stages
    keys = {key for stage in chosen if fresh or not store.is_complete(folder / stage.name) for key in stage.outside}
    for key, config in _renderers(recipe).items():
        if f"{key}.model" in keys and (finding := _finding(key, config)).level == "error":
            raise ModelError(f"{key}: {finding.found}")


def _renderers(recipe: Recipe) -> Mapping[str, RendererConfig]:
    """The renderers of a recipe; whether the machines of a cluster have a GPU is not known here."""
    found = {"label.renderer": recipe.label.renderer, "evaluate.renderer": recipe.evaluate.renderer}
    if recipe.engine != "ray":
        return found
    elsewhere = {"offload": None, "quantization": None}
    return {key: config.model_copy(update=elsewhere) for key, config in found.items()}


def _folder(model: str) -> Path | None:
    """The folder of a renderer on this machine; None where it is elsewhere, or unknown, which is reported elsewhere."""
    if is_url(model):
        return None
    try:
        place = registry.resolve(model)
    except ModelError:
        return None
    folder = Path(place.path) if place.local else None
    if folder is None and cached(place.path, place.files, catalogue.SKIPPED):
        folder = place.folder()
    return folder if folder is not None and (folder / "model_index.json").is_file() else None


def _finding(key: str, config: RendererConfig) -> Finding:
    from semdpo.models.fit import described, refuse_unfit_renderer

    folder = _folder(config.model)
    if folder is None:
        return Finding("ok", key, "not checked before it is here")
    try:
        refuse_unfit_renderer(config, folder)
        return Finding("ok", key, described(config, folder))
    except ModelError as error:
        return Finding("error", key, str(error), "see Renderers in the documentation of models")
