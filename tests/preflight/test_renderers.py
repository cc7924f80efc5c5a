"""Settings that do not fit a renderer are refused before any work, from its folder's small files alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from semdpo.errors import ModelError
from semdpo.preflight import renderers, resources
from semdpo.recipe.load import load_recipe
from semdpo.recipe.models import RendererConfig
from semdpo.recipe.schema import Recipe


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """What a folder of FLUX.1 [schnell] says of itself; it has no weights."""
    folder = tmp_path / "flux"
    for name, content in (
        ("model_index.json", {"_class_name": "FluxPipeline", "scheduler": ["diffusers", "FlowMatchEulerDiscreteS…"]}),
        ("scheduler/scheduler_config.json", {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 1.0}),
        ("transformer/config.json", {"guidance_embeds": False}),
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(content))
    return folder


def _recipe(model: Path, **settings: Any) -> Recipe:
    # Settings of ``tiny`` that are FLUX's own defaults, so that each test changes one thing.
    plain = {"model": str(model), "steps": None, "guidance": None, "scheduler": "own"}
    values = [f"label.renderer.{name}={json.dumps(value)}" for name, value in (plain | settings).items()]
    return load_recipe("tiny", values)


def test_what_a_renderer_will_do_is_said(model: Path) -> None:
    found = {each.what: each for each in renderers.fitting(_recipe(model))}
    assert (found["label.renderer"].level, found["label.renderer"].found) == (
        "ok",
        "FLUX.1 [schnell], 4 steps, no guidance, its own sampler, reads 256 tokens",
    )
    assert found["evaluate.renderer"].found == "tiny:sd, 10 steps, guidance 3.5 (guidance_scale), ddim, reads 77 tokens"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"guidance": 3.5}, r"FLUX.1 \[schnell\] takes no guidance; remove renderer.guidance"),
        ({"call": {"max_sequence_lenght": 9}}, "takes no 'max_sequence_lenght'; did you mean 'max_sequence_length'"),
        ({"scheduler": "ddim"}, "own flow, FlowMatchEulerDiscreteScheduler, cannot be replaced by ddim; set scheduler"),
        ({"offload": "model"}, "renderer.offload moves weights .* has no GPU"),
        ({"quantization": "4bit"}, "renderer.quantization needs a GPU"),
    ],
)
def test_what_does_not_fit_is_refused(
    settings: dict[str, Any], message: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    recipe = _recipe(model, **settings)
    with pytest.raises(ModelError, match=f"label.renderer: .*{message}"):
        renderers.refuse_unfit(recipe, tmp_path / "run", None)
    assert [each.level for each in renderers.fitting(recipe)] == ["error", "ok"]
    (tmp_path / "run/label").mkdir(parents=True)
    (tmp_path / "run/label/manifest.json").write_text("{}")
    renderers.refuse_unfit(recipe, tmp_path / "run", None)  # it renders nothing any more


def test_other_renderers_are_not_looked_at(tmp_path: Path) -> None:
    """A name that a program brings a model for, and one that must be downloaded first."""
    for name in ("mine", "flux.1-schnell"):
        recipe = _recipe(Path(name), guidance=3.5)
        assert [each.what for each in renderers.fitting(recipe)] == ["evaluate.renderer"]
        renderers.refuse_unfit(recipe, tmp_path / "run", None)


def test_memory_follows_precision_offloading_and_quantisation(monkeypatch: pytest.MonkeyPatch) -> None:
    def needed(**settings: Any) -> float:
        return resources.renderer_bytes(RendererConfig(model="flux.1-dev", **settings)) / 1e9

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert needed() == pytest.approx(67.5, abs=0.1)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert needed(precision="float32") == pytest.approx(67.5, abs=0.1)
    assert needed(precision="bfloat16") == pytest.approx(33.7, abs=0.1)
    assert needed(precision="bfloat16", quantization="4bit") < 11
    assert needed(precision="bfloat16", offload="sequential") == 0
    whole = resources.renderer_bytes(RendererConfig(model="tiny:sd", precision="bfloat16"))
    part = resources.renderer_bytes(RendererConfig(model="tiny:sd", precision="bfloat16", offload="model"))
    assert 0.5 * whole < part < whole
