from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from semdpo.errors import ModelError
from semdpo.models.renderer import load_renderer
from semdpo.protocols import CheckingRenderer, Renderer
from tests import tiny_models


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.stable_diffusion(tmp_path_factory.mktemp("sd") / "model")


def _distance(a: Image.Image, b: Image.Image) -> int:
    return int(np.abs(np.asarray(a, np.int16) - np.asarray(b, np.int16)).max())


def test_a_image_depends_on_prompt_and_seed_only(
    folder: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    renderer = load_renderer(str(folder), steps=3, batch_size=3)
    assert isinstance(renderer, Renderer)
    rows = [("a red ball", 1), ("a cat", 1), ("a red ball", 2), ("a house", 2**62), ("a red ball", 1)]
    images = renderer.render([prompt for prompt, _ in rows], [seed for _, seed in rows])
    assert [(image.mode, image.size) for image in images] == [("RGB", (16, 16))] * 5
    for (prompt, seed), image in zip(rows, images, strict=True):
        assert _distance(renderer.render([prompt], [seed])[0], image) <= 1
    assert images[0] is images[4]  # drawn once
    assert _distance(images[0], images[2]) > 1  # the seed matters
    assert _distance(images[0], renderer.render(["a cat"], [2])[0]) > 1
    assert capfd.readouterr() == ("", "")
    assert caplog.messages == []


def test_the_prompt_matters(folder: Path) -> None:
    renderer = load_renderer(str(folder), steps=3)
    assert _distance(*renderer.render(["a red ball", "zzz"], [1, 1])) > 0


def test_ddim_does_not_clip_latents(folder: Path) -> None:
    assert type(load_renderer(str(folder))._pipeline.scheduler).__name__ == "PNDMScheduler"  # its own
    scheduler = load_renderer(str(folder), scheduler="ddim")._pipeline.scheduler
    assert type(scheduler).__name__ == "DDIMScheduler"
    assert scheduler.config.clip_sample is False
    assert scheduler.config.beta_schedule == "scaled_linear"


def test_prompts_beyond_the_text_encoder_are_told(
    folder: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    renderer = load_renderer(str(folder), steps=1)
    fits = "x" * (tiny_models.CLIP_LENGTH - 2)
    assert renderer.too_long([fits, fits + "x"]).tolist() == [False, True]
    assert renderer.too_long([]).shape == (0,)
    renderer.render([fits + "x"], [0])
    assert capfd.readouterr() == ("", "")
    assert caplog.messages == []


def test_size_and_mixed_precision(folder: Path) -> None:
    single = load_renderer(str(folder), steps=2, height=24, width=32)
    mixed = load_renderer(str(folder), steps=2, height=24, width=32, precision="bfloat16")
    a, b = single.render(["a cat"], [3])[0], mixed.render(["a cat"], [3])[0]
    assert a.size == b.size == (32, 24)
    assert 0 < _distance(a, b) < 40


def test_bad_input_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="got 2 prompts and 1 seeds"):
        load_renderer(str(folder)).render(["a", "b"], [1])
    with pytest.raises(ModelError, match="steps must be at least 1"):
        load_renderer(str(folder), steps=0)
    with pytest.raises(ModelError, match="precision must be"):
        load_renderer(str(folder), precision="float64")  # type: ignore[arg-type]
    with pytest.raises(ModelError, match=r"no readable model_index\.json"):
        load_renderer(str(tmp_path))
    (tmp_path / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    with pytest.raises(ModelError, match=r"does not hold a readable diffusers pipeline"):
        load_renderer(str(tmp_path))


@pytest.mark.parametrize("part", ["unet/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors"])
def test_a_half_downloaded_part_is_refused(part: str, tmp_path: Path) -> None:
    folder = tiny_models.stable_diffusion(tmp_path / "sd")
    weights = folder / part
    weights.write_bytes(weights.read_bytes()[:-500])
    with pytest.raises(ModelError, match=r"does not hold a readable diffusers pipeline.*or download it again"):
        load_renderer(str(folder))


def test_a_safety_checker_that_is_not_there_cannot_be_asked_for(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="has no safety checker"):
        load_renderer(str(tiny_models.stable_diffusion(tmp_path / "sd")), safety_checker=True)


def test_a_safety_checker_blackens_what_it_refuses_only_when_asked_for(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tiny_models.stable_diffusion(tmp_path / "sd", strict_checker=True)
    capfd.readouterr()
    free = load_renderer(str(folder), steps=1).render(["a cat"], [0])[0]
    assert "the safety checker of sd is off" in capfd.readouterr().err
    checked = load_renderer(str(folder), steps=1, safety_checker=True).render(["a cat"], [0])[0]
    assert np.asarray(free).max() > 0
    assert np.asarray(checked).max() == 0


def test_what_the_safety_checker_says_goes_with_each_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = str(tiny_models.stable_diffusion(tmp_path / "sd", strict_checker=True))
    renderer = load_renderer(folder, steps=1, batch_size=2, safety_checker=True)
    assert isinstance(renderer, CheckingRenderer)
    checker, seen = renderer._pipeline.safety_checker.forward, []

    def every_second(clip_input: Any, images: Any) -> Any:
        black, flags = checker(clip_input=clip_input, images=images.clone())
        assert all(flags), "this checker refuses all"
        said = [(len(seen) + i) % 2 == 1 for i in range(len(images))]
        seen.extend(said)
        return torch.stack([b if flag else a for a, b, flag in zip(images, black, said, strict=True)]), said

    monkeypatch.setattr(renderer._pipeline.safety_checker, "forward", every_second)
    rows = [("a", 0), ("b", 0), ("c", 0), ("b", 0), ("d", 1)]
    found = renderer.render_checked([prompt for prompt, _ in rows], [seed for _, seed in rows])
    assert [flag for _, flag in found] == [False, True, False, True, True]
    assert [np.asarray(image).max() == 0 for image, _ in found] == [False, True, False, True, True]
    free = load_renderer(folder, steps=1).render_checked(["a"], [0])
    assert [flag for _, flag in free] == [False]
