"""The memory that a run is refused for: that of the weights as they are loaded, where they are loaded."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from semdpo.preflight import resources
from semdpo.recipe.load import load_recipe
from semdpo.recipe.models import RendererConfig
from tests import tiny_models

GB = 10**9


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU of 24 GB with bfloat16, of which this asks only what it says of itself."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (24 * GB, 24 * GB))


def _memory(*settings: str) -> tuple[str, str]:
    recipe = load_recipe("tiny", list(settings))
    (found,) = (each for each in resources.resources(recipe, Path("run")) if each.what == "memory")
    return found.level, found.found


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize(
    ("setting", "precision", "half", "whole"),
    [
        ("label.scorer=hpsv3", "scoring.precision", "17 GB for rendering and scoring", "33 GB"),
        ("evaluate.metrics.hps=hpsv3", "scoring.precision", "17 GB for evaluation", "33 GB"),
        ("candidates.rewriter={model: hpsv3}", "candidates.precision", "17 GB for rewriting", "33 GB"),
        ("atoms={maker: lm, lm: {model: hpsv3}}", "atoms.lm.precision", "17 GB for writing atoms", "33 GB"),
    ],
)
def test_weights_take_as_much_as_their_precision(setting: str, precision: str, half: str, whole: str) -> None:
    assert _memory(setting, f"{precision}=auto") == ("ok", f"about {half}, 24 GB of the GPU's memory free")
    level, found = _memory(setting, f"{precision}=float32")
    assert (level, whole in found) == ("error", True)


@pytest.mark.usefixtures("gpu")
def test_what_a_clusters_workers_load_is_not_looked_for_here() -> None:
    assert _memory("label.scorer=hpsv3")[0] == "error"
    level, found = _memory("label.scorer=hpsv3", "engine=ray")
    assert (level, "for training" in found) == ("ok", True)


@pytest.mark.usefixtures("gpu")
def test_of_an_offloaded_pipeline_its_largest_part_counts_wherever_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, revision = "stable-diffusion-v1-4", "0" * 40
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    offloaded = RendererConfig(model=name, offload="model", precision="bfloat16")
    assert resources.renderer_bytes(offloaded) == 0  # not downloaded yet: nobody knows how large its parts are
    assert resources.renderer_bytes(offloaded.model_copy(update={"offload": None})) > 2 * GB
    repository = tmp_path / "models--CompVis--stable-diffusion-v1-4"
    folder = tiny_models.stable_diffusion(repository / "snapshots" / revision)
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text(revision)
    whole = resources.renderer_bytes(RendererConfig(model=str(folder), precision="bfloat16"))
    assert 0 < resources.renderer_bytes(offloaded) < whole


def test_copies_of_the_weights_count_once(tmp_path: Path) -> None:
    """A whole repository of a pipeline also has its parts in one file, and in half precision."""
    folder = tiny_models.stable_diffusion(tmp_path / "sd")
    before = resources.parameters(str(folder))
    unet = folder / "unet/diffusion_pytorch_model.safetensors"
    shutil.copy(unet, folder / "sd-v1-4.safetensors")
    shutil.copy(unet, unet.with_name("diffusion_pytorch_model.fp16.safetensors"))
    assert resources.parameters(str(folder)) == before > 0
