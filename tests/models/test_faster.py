"""Faster rendering: other samplers, a small decoder, channels last, compiling."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderTiny

from semdpo.errors import ModelError
from semdpo.models.faster import set_scheduler
from semdpo.models.renderer import DiffusionRenderer, load_renderer
from semdpo.recipe.models import RendererConfig
from tests import tiny_models


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.stable_diffusion(tmp_path_factory.mktemp("sd") / "model")


def _pixels(renderer: DiffusionRenderer) -> np.ndarray:
    return np.stack([np.asarray(image, np.int16) for image in renderer.render(["a red ball", "a cat"], [1, 2])])


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("ddim", "DDIMScheduler"),
        ("dpm++", "DPMSolverMultistepScheduler"),
        ("unipc", "UniPCMultistepScheduler"),
        ("euler", "EulerDiscreteScheduler"),
        ("lcm", "LCMScheduler"),
        ("own", "PNDMScheduler"),
    ],
)
def test_samplers(folder: Path, name: str, kind: str) -> None:
    renderer = load_renderer(
        str(folder), steps=4, **RendererConfig(model="m", scheduler=name).model_dump(include={"scheduler"})
    )  # type: ignore[arg-type]
    scheduler = renderer._pipeline.scheduler
    assert type(scheduler).__name__ == kind
    assert not getattr(scheduler.config, "clip_sample", False)
    assert scheduler.config.beta_schedule == "scaled_linear"
    images = _pixels(renderer)
    assert images.std() > 1
    assert (images == _pixels(renderer)).all()


def test_a_model_that_is_no_diffusion_keeps_its_own_sampler() -> None:
    from diffusers import FlowMatchEulerDiscreteScheduler

    class Pipeline:
        scheduler = FlowMatchEulerDiscreteScheduler()

    for name in ("ddim", "own"):
        set_scheduler(Pipeline, name)  # type: ignore[arg-type]
        assert isinstance(Pipeline.scheduler, FlowMatchEulerDiscreteScheduler)
    with pytest.raises(
        ModelError, match=r"FlowMatchEulerDiscreteScheduler, cannot be replaced by dpm\+\+; set scheduler to own"
    ):
        set_scheduler(Pipeline, "dpm++")


def _small(folder: Path, channels: int, levels: int) -> str:
    torch.manual_seed(0)
    blocks = (8,) * levels
    AutoencoderTiny(
        latent_channels=channels,
        encoder_block_out_channels=blocks,
        decoder_block_out_channels=blocks,
        num_encoder_blocks=(1,) * levels,
        num_decoder_blocks=(1,) * levels,
    ).save_pretrained(folder)
    return str(folder)


def test_a_small_decoder(folder: Path, tmp_path: Path) -> None:
    vae = load_renderer(str(folder))._pipeline.vae.config
    levels = len(vae.block_out_channels)
    small = _small(tmp_path / "small", vae.latent_channels, levels)
    renderer = load_renderer(str(folder), steps=3, tiny_vae=small)
    assert isinstance(renderer._pipeline.vae, AutoencoderTiny)
    assert _pixels(renderer).shape == _pixels(load_renderer(str(folder), steps=3)).shape
    for channels, many in ((vae.latent_channels + 1, levels), (vae.latent_channels, levels + 1)):
        other = _small(tmp_path / f"{channels}-{many}", channels, many)
        with pytest.raises(ModelError, match=rf"decodes latents of {channels} channels to {2 ** (many - 1)} times"):
            load_renderer(str(folder), tiny_vae=other)
    shutil.copy(Path(small) / "config.json", tmp_path / "config.json")
    with pytest.raises(ModelError, match="AutoencoderTiny"):
        load_renderer(str(folder), tiny_vae=str(tmp_path))


def test_channels_last_changes_no_image(folder: Path) -> None:
    renderer = load_renderer(str(folder), steps=3, channels_last=True)
    weight = renderer._pipeline.unet.conv_in.weight
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert not weight.is_contiguous()
    assert np.abs(_pixels(renderer) - _pixels(load_renderer(str(folder), steps=3))).max() <= 1


def test_compiling_reaches_the_model_and_the_decoder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[torch.nn.Module] = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda part: compiled.append(part))  # noqa: PLW0108 - a method
    pipeline = load_renderer(str(folder), compiled=True)._pipeline
    assert compiled == [pipeline.unet, pipeline.vae.decoder]


def test_the_small_decoder_is_an_input_of_the_stages() -> None:
    config = RendererConfig(model="a", tiny_vae="b")
    assert config.models("label.renderer") == {"label.renderer.model": "a", "label.renderer.tiny_vae": "b"}
    assert RendererConfig(model="a").models("x") == {"x.model": "a"}
