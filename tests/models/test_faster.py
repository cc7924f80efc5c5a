"""Faster rendering: other samplers, a small decoder, channels last, compiling."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderTiny

from semdpo.errors import ModelError
from semdpo.models.faster import ENCODERS, encode_once, set_scheduler
from semdpo.models.renderer import DiffusionRenderer, load_renderer
from semdpo.recipe.models import RendererConfig
from tests import tiny_models, tiny_pipelines


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

    set_scheduler(Pipeline, "own")
    assert isinstance(Pipeline.scheduler, FlowMatchEulerDiscreteScheduler)
    for name in ("ddim", "dpm++"):
        with pytest.raises(ModelError) as raised:
            set_scheduler(Pipeline, name)  # type: ignore[arg-type]
        assert str(raised.value) == (
            "the renderer's own flow, FlowMatchEulerDiscreteScheduler, cannot be replaced by "
            f"{name}; set scheduler to own"
        )


def test_a_flow_of_another_samplers_class_is_not_read_as_a_diffusion() -> None:
    """Sana has DPM-Solver++'s class with the settings of a flow, which DDIM has no notion of."""
    pipeline = type("Pipeline", (), {})()
    own = tiny_pipelines.sana().scheduler
    for name in ("ddim", "euler", "lcm"):
        pipeline.scheduler = own
        with pytest.raises(ModelError, match=f"own flow, DPMSolverMultistepScheduler, cannot be replaced by {name}"):
            set_scheduler(pipeline, name)  # type: ignore[arg-type]
    for name in ("dpm++", "unipc"):
        pipeline.scheduler = own
        set_scheduler(pipeline, name)  # type: ignore[arg-type]
        assert pipeline.scheduler.config.use_flow_sigmas


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


def _listened(part: torch.nn.Module, rows: list[int]) -> None:
    """Notes how many rows an encoder computes in each call."""
    forward = part.forward

    def noting(input_ids: torch.Tensor, **named: Any) -> Any:
        rows.append(len(input_ids))
        return forward(input_ids, **named)

    part.forward = noting


@pytest.mark.parametrize(
    "build",
    [tiny_pipelines.sdxl, tiny_pipelines.sd3, tiny_pipelines.flux],
    ids=lambda build: build.__name__,
)
def test_equal_texts_of_a_batch_are_encoded_once(build: Callable[[], Any]) -> None:
    torch.manual_seed(0)
    pipeline, rows = build(), []
    pipeline.set_progress_bar_config(disable=True)
    encoders = [part for part in vars(pipeline).values() if isinstance(part, ENCODERS)]
    for part in encoders:
        _listened(part, rows)

    def images(*texts: str) -> np.ndarray:
        rows.clear()
        generators = [torch.Generator().manual_seed(seed) for seed in range(len(texts))]
        with torch.inference_mode():
            return pipeline(prompt=list(texts), generator=generators, num_inference_steps=2, output_type="np").images

    texts = ("a cat", "a cat", "a red house", "a cat")
    before, all_rows = images(*texts), sum(rows)
    different = images("a cat", "a dog")
    encode_once(pipeline)
    after = images(*texts)
    negative = all_rows // len(texts) - len(encoders)  # calls with the negative prompt, which has one text
    assert sum(rows) == 2 * len(encoders) + negative
    np.testing.assert_allclose(after, before, rtol=0, atol=1e-4)
    assert np.abs(after[0] - after[1]).max() > 1e-3  # the seed still matters
    np.testing.assert_allclose(images("a cat", "a dog"), different, rtol=0, atol=1e-4)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_what_an_encoder_gives_stays_the_same(precision: torch.dtype) -> None:
    pipeline = tiny_pipelines.sdxl()
    cat, dog = [[1, *letters, *[3] * (19 - len(letters))] for letters in ([5, 6, 7], [8, 9, 10, 11])]
    ids = torch.tensor([cat, dog, cat])
    mask = torch.tensor([[1] * 20, [1] * 20, [1] * 10 + [0] * 10])
    for part in (pipeline.text_encoder, pipeline.text_encoder_2, tiny_pipelines.pixart().text_encoder):
        part.to(precision)
        rows: list[int] = []
        _listened(part, rows)
        holder = type("Holder", (), {})()
        holder.text_encoder = part
        with torch.inference_mode():
            plain = part(ids, output_hidden_states=True)
            masked = part(ids, attention_mask=mask)[0]
            encode_once(holder)
            once = part(ids, output_hidden_states=True)
            assert torch.equal(part(ids, attention_mask=mask)[0], masked)  # other masks, other rows
        assert rows == [3, 3, 2, 3]
        assert list(once.keys()) == list(plain.keys())
        assert len(once.hidden_states) == len(plain.hidden_states)
        assert torch.equal(once[0][0], once[0][2])
        for a, b in zip(once.hidden_states, plain.hidden_states, strict=True):
            torch.testing.assert_close(a, b)
        torch.testing.assert_close(once[0], plain[0])
