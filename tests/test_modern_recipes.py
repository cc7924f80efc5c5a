"""The recipes with renderers of today: what they ask for, and one from end to end with small random models."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from semdpo import pipeline
from semdpo.data.records import Pair
from semdpo.engine import store
from semdpo.models.catalogue import PUBLISHED
from semdpo.models.families import FAMILIES
from semdpo.models.loading import quiet
from semdpo.models.registry import resolve
from semdpo.preflight import doctor, renderers
from semdpo.recipe.load import RECIPES, load_recipe
from tests import tiny_pipelines
from tests.published import OTHERS, write_prompts
from tests.training.test_chat import _qwen3 as qwen3

NAMES = sorted(path.stem for path in (RECIPES / "modern").glob("*.yaml"))
SMALL = [
    *("prompts.limit=6", "prompts.test_sets.coco.limit=2", "prompts.test_sets.diffusiondb.limit=2", "sft.steps=2"),
    *("sft.batch_size=4", "sft.micro_batch_size=2", "candidates.n=2", "candidates.max_new_tokens=6"),
    *("evaluate.rewrite.max_new_tokens=6", "drift.encoder=clip-vit-large-patch14", "label.reuse_images=false"),
    *(f"{stage}.renderer.{side}=16" for stage in ("label", "evaluate") for side in ("height", "width")),
]


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_says_what_its_familys_defaults_say(name: str) -> None:
    recipe = load_recipe(f"modern/{name}")
    config, published = recipe.label.renderer, PUBLISHED[recipe.label.renderer.model]
    family = FAMILIES[published.family]
    assert recipe.evaluate.renderer == config
    assert (config.steps, config.guidance) == (family.steps, family.guidance)
    assert (config.height, config.width) == (family.pixels, family.pixels)
    assert recipe.candidates.max_new_tokens < family.reads
    assert (recipe.sft.template, recipe.train.template) == ("chat", "chat")
    assert recipe.sft.system == recipe.train.system


@pytest.mark.parametrize("name", NAMES)
def test_the_doctor_knows_it(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    recipe = load_recipe(f"modern/{name}")
    found = {each.what: each for each in doctor.needs(recipe, tmp_path / "run")}
    renderer = found[recipe.label.renderer.model]
    assert renderer.level == "error"
    assert "not downloaded, about" in renderer.found
    assert "'transformer/*.safetensors'" in renderer.cure
    assert resolve(recipe.label.renderer.model).path == PUBLISHED[recipe.label.renderer.model].repository


def _build(folder: Path) -> Path:
    torch.manual_seed(0)
    with quiet():
        tiny_pipelines.flux().save_pretrained(folder / "flux.1-schnell")
    for name in ("image-reward", "hpsv2.1", "pickscore", "clip-vit-large-patch14", "blip-itm-base-coco"):
        OTHERS[name](folder / name)
    qwen3(folder / "qwen3-0.6b")
    return folder


@pytest.mark.slow
def test_flux_schnell_runs_from_end_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEMDPO_MODELS", str(_build(tmp_path / "models")))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    write_prompts(tmp_path / "data")
    recipe = load_recipe("modern/flux-schnell", SMALL)
    assert {each.level for each in renderers.fitting(recipe)} == {"ok"}
    run = pipeline.run(recipe, tmp_path / "run")
    assert store.read_rows(run / "drift", Pair)
    assert (run / "report/index.html").is_file()
