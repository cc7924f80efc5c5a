"""A server of images and scores on loopback, and runs that ask it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from semdpo import pipeline
from semdpo.engine.providers import Models, own_models
from semdpo.protocols import Renderer, Scorer
from semdpo.recipe.models import RendererConfig, ScoringConfig
from semdpo.recipe.schema import Recipe
from tests import stand_ins
from tests.loopback import Asked, Reply, drawn, told

KEY = "sk-secret-1234567890"


def remote_renderer(config: RendererConfig) -> Renderer:
    return own_models().renderer(config)


def any_scorer(name: str, config: ScoringConfig) -> Scorer:
    return own_models().scorer(name, config) if name.startswith("http") else stand_ins.Scorer()


def models_of_servers() -> Models:
    """Stand-ins, and real clients of servers; other processes can have them too."""
    return replace(stand_ins.models(), renderer=remote_renderer, scorer=any_scorer)


def answer(asked: Asked) -> Reply:
    """Renders as the stand-in does, and is the surer of an image the brighter it is."""
    if "generations" in asked.path:
        return drawn(stand_ins.Renderer(0.0).render([asked.body["prompt"]], [asked.body["seed"]])[0])
    return told(("Yes", -1.0 - len(asked.body["messages"][0]["content"][0]["image_url"]["url"]) / 1000))


def recipe_of(folder: Path, url: str, *overrides: str) -> Recipe:
    asked = f"{{model: '{url}', endpoint: {{model_name: m, retries: 0}}, steps: 4, guidance: 3.5}}"
    settings = [
        f"label.renderer={asked}",
        f"evaluate.renderer={asked}",
        f"label.fidelity={url}",
        f"evaluate.metrics={{clip: 'tiny:clip', vlm: '{url}'}}",
        "report.fidelity=[clip, vlm]",
        "report.preference=[]",
        "sweep=null",
        "candidates.n=2",
        f"scoring.endpoints={{'{url}': {{model_name: m, retries: 0}}}}",
    ]
    return stand_ins.recipe_of(folder, *settings, *overrides)


def run_stages(recipe: Recipe, run: Path, *stages: str, workers: int | None = None) -> None:
    for stage in stages:
        pipeline.run(recipe, run, only=stage, models=models_of_servers(), workers=workers)


FIRST = ("prompts", "sft", "candidates")
