"""What a pipeline is called with: only what its signature takes, and never two settings for one argument."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import pytest

from semdpo.errors import ConfigError, ModelError
from semdpo.models.families import FAMILIES
from semdpo.models.pipeline_call import arguments, for_rows, guidance_argument, pipeline_class
from semdpo.recipe import defaults
from semdpo.recipe.load import load_recipe
from semdpo.recipe.models import RendererConfig

FLUX, QWEN, QWEN_21 = diffusers.FluxPipeline, diffusers.QwenImagePipeline, diffusers.QwenImage21Pipeline
SD, SPRINT = diffusers.StableDiffusionPipeline, diffusers.SanaSprintPipeline


def test_a_family_says_what_is_not_given() -> None:
    assert arguments(SD, FAMILIES["sd"]) == {"num_inference_steps": 50, "guidance_scale": 7.5}
    assert arguments(SD, FAMILIES["sd"], 20, 3.0, (64, None)) == {
        "num_inference_steps": 20, "guidance_scale": 3.0, "height": 64,
    }  # fmt: skip
    assert arguments(FLUX, FAMILIES["flux-schnell"]) == {"num_inference_steps": 4, "max_sequence_length": 256}
    assert arguments(FLUX, FAMILIES["flux-schnell"], call={"max_sequence_length": 128})["max_sequence_length"] == 128
    assert arguments(QWEN, FAMILIES["qwen-image"]) == {
        "num_inference_steps": 50, "true_cfg_scale": 4.0, "height": 1328, "width": 1328, "negative_prompt": " ",
    }  # fmt: skip


def test_qwen_image_2_1_is_not_asked_for_what_it_does_not_take() -> None:
    assert arguments(QWEN_21, FAMILIES["qwen-image-2.1"]) == {"num_inference_steps": 40, "true_cfg_scale": 1.0}
    assert arguments(QWEN_21, None, 2, 3.0) == {
        "num_inference_steps": 2, "true_cfg_scale": 3.0, "negative_prompt": " ",
    }  # fmt: skip


def test_an_unknown_class_keeps_its_own_defaults() -> None:
    assert arguments(diffusers.KandinskyPipeline, None) == {}
    assert [guidance_argument(kind, None) for kind in (SD, FLUX, QWEN, QWEN_21, diffusers.DDPMPipeline)] == [
        "guidance_scale", "guidance_scale", "true_cfg_scale", "true_cfg_scale", None,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "family", "more", "message"),
    [
        (FLUX, "flux-schnell", {"guidance": 3.5}, r"FLUX.1 \[schnell\] takes no guidance; remove renderer.guidance"),
        (diffusers.DDPMPipeline, None, {"guidance": 3.5}, "DDPMPipeline takes no guidance"),
        (diffusers.DDPMPipeline, None, {"size": (64, None)}, "DDPMPipeline takes no height; remove renderer.height"),
        (
            FLUX,
            "flux-dev",
            {"call": {"negative_promt": "x"}},
            "takes no 'negative_promt'; did you mean 'negative_prompt'",
        ),
        (
            SD,
            "sd",
            {"call": {"max_sequence_length": 9}},
            "StableDiffusionPipeline takes no 'max_sequence_length'; known",
        ),
        (QWEN, "qwen-image", {"guidance": 2.0, "call": {"true_cfg_scale": 3.0}}, "are the same argument; remove one"),
        (
            FLUX,
            "flux-dev",
            {"steps": 2, "call": {"sigmas": [1.0, 0.5]}},
            "sigmas has one entry a step; remove renderer.s",
        ),
        (
            SPRINT,
            "sana-sprint",
            {"steps": 1, "call": {"intermediate_timesteps": 1.3}},
            "is the time between two steps, and there are 1; remove it",
        ),
        (SPRINT, "sana-sprint", {"call": {"timesteps": [1.5, 0.0]}}, "timesteps cannot be used with this pipeline"),
        (QWEN_21, "qwen-image-2.1-turbo", {"steps": 4}, "has a schedule of its own, of 8 steps; remove renderer.steps"),
    ],
)
def test_what_does_not_fit_is_refused(kind: type, family: str | None, more: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        arguments(kind, None if family is None else FAMILIES[family], **more)


def test_sana_sprint_has_a_time_between_two_steps_and_none_otherwise() -> None:
    family = FAMILIES["sana-sprint"]
    assert arguments(SPRINT, family) == {"num_inference_steps": 2, "guidance_scale": 4.5}
    assert arguments(SPRINT, family, 1)["intermediate_timesteps"] is None
    assert arguments(SPRINT, family, 2, call={"intermediate_timesteps": 1.1})["intermediate_timesteps"] == 1.1
    assert arguments(SPRINT, None, 3)["intermediate_timesteps"] is None


def test_the_recipes_call_comes_first() -> None:
    called = arguments(QWEN, FAMILIES["qwen-image"], call={"true_cfg_scale": 2.5, "negative_prompt": "blurry"})
    assert (called["true_cfg_scale"], called["negative_prompt"]) == (2.5, "blurry")
    assert "num_inference_steps" not in arguments(FLUX, FAMILIES["flux-dev"], call={"sigmas": [1.0, 0.5]})
    assert arguments(FLUX, FAMILIES["flux-dev"], call={"true_cfg_scale": 4.0})["negative_prompt"] == " "


def test_a_negative_prompt_is_for_every_row() -> None:
    assert for_rows({"negative_prompt": "x", "negative_prompt_2": None, "eta": 1}, 2) == {
        "negative_prompt": ["x", "x"], "negative_prompt_2": None, "eta": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ('{"_class_name": "NoSuchPipeline"}', "is for NoSuchPipeline, which is no pipeline of diffusers"),
        ('{"_class_name": ["pipeline", "Own"]}', "Python code of its own"),
        ('{"_class_name": "DDPMPipeline"}', "DDPMPipeline takes no prompt, so it is no text-to-image pipeline"),
    ],
)
def test_other_pipelines_are_refused(index: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text(index)
    with pytest.raises(ModelError, match=message):
        pipeline_class(tmp_path)


# ------------------------------------------------------------------------------------------------------- in a recipe


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("{height: 64}", "height is set by semdpo; remove it: use renderer.height"),
        ("{num_inference_steps: 4}", "use renderer.steps"),
        ("{guidance_scale: 4}", "use renderer.guidance"),
        ("{prompt_2: x}", "every encoder reads the rewrite"),
        ("{caption_upsample_temperature: 0.15}", "the model would render another text than the rewrite"),
        ("{generator: 1}", "use label.seed or evaluate.image_seeds"),
        ("{prompt_embeds: [1]}", "prompt_embeds takes an object of Python"),
        ("{callback_on_step_end: x}", "takes an object of Python"),
        ("{eta: .nan}", "eta must be a number, a text"),
    ],
)
def test_a_recipe_refuses_what_semdpo_sets_itself(call: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_recipe("tiny", [f"label.renderer.call={call}"])


def test_images_depend_on_call_and_not_on_where_weights_wait() -> None:
    plain = RendererConfig(model="m", steps=2, guidance=1.0)
    assert plain.of_results().keys() == {
        "model", "steps", "guidance", "height", "width", "batch_size", "precision", "safety_checker", "scheduler",
        "tiny_vae", "channels_last", "compiled",
    }  # fmt: skip
    assert plain.model_copy(update={"offload": "model"}).of_results() == plain.of_results()
    for change in ({"call": {"eta": 1}}, {"vae_tiling": True}, {"vae_slicing": True}, {"quantization": "fp8"}):
        assert plain.model_copy(update=change).of_results() != plain.of_results()
    assert "family_defaults" in RendererConfig(model="m", steps=2).of_results()


def test_other_defaults_of_families_are_other_results(monkeypatch: pytest.MonkeyPatch) -> None:
    named = RendererConfig(model="m", steps=2, guidance=1.0)
    before = [config.of_results() for config in (named, RendererConfig(model="m"))]
    monkeypatch.setattr(defaults, "RENDERER_FAMILIES", 2)
    assert all(now not in before for now in (named.of_results(), RendererConfig(model="m").of_results()))


def test_sequential_offload_moves_no_quantised_layers() -> None:
    with pytest.raises(ConfigError, match="sequential offload cannot move quantised layers; use offload: model"):
        load_recipe("tiny", ["label.renderer.offload=sequential", "label.renderer.quantization=4bit"])
