"""Which family a folder is of, and the defaults of each."""

from __future__ import annotations

import hashlib
import inspect
import json
from pathlib import Path
from typing import Any

import diffusers
import pytest

from semdpo.models.catalogue import PUBLISHED
from semdpo.models.families import _OF_CLASS, FAMILIES, Family, family_of
from semdpo.recipe import defaults

ROOT = Path(__file__).parents[2]


def _folder(folder: Path, kind: str, scheduler: dict[str, Any], transformer: dict[str, Any], **index: Any) -> Path:
    for name, content in (
        ("model_index.json", {"_class_name": kind, **index}),
        ("scheduler/scheduler_config.json", scheduler),
        ("transformer/config.json", transformer),
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(content))
    return folder


TURBO = {"_class_name": "EulerAncestralDiscreteScheduler", "timestep_spacing": "trailing", "prediction_type": "epsilon"}


@pytest.mark.parametrize(
    ("key", "kind", "scheduler", "transformer", "more"),
    [
        ("sd", "StableDiffusionPipeline", {"timestep_spacing": "leading"}, {}, {}),
        ("sd", "StableDiffusionPipeline", TURBO | {"_class_name": "DDIMScheduler"}, {}, {}),
        ("sd", "StableDiffusionPipeline", TURBO | {"prediction_type": "v_prediction"}, {}, {}),
        ("sd-turbo", "StableDiffusionPipeline", TURBO | {"_class_name": "EulerDiscreteScheduler"}, {}, {}),
        ("tiny-sd", "StableDiffusionPipeline", {}, {}, {"name": "tiny:sd"}),
        ("sdxl", "StableDiffusionXLPipeline", {"timestep_spacing": "leading"}, {}, {}),
        ("sdxl-turbo", "StableDiffusionXLPipeline", TURBO, {}, {}),
        ("sd3", "StableDiffusion3Pipeline", {}, {"qk_norm": None}, {}),
        ("sd3.5-large", "StableDiffusion3Pipeline", {}, {"qk_norm": "rms_norm"}, {}),
        ("sd3.5-large-turbo", "StableDiffusion3Pipeline", {}, {"qk_norm": "rms_norm"}, {"name": "org/SD3.5-Turbo"}),
        ("sd3.5-large", "StableDiffusion3Pipeline", {}, {"qk_norm": "rms_norm"}, {"name": "/turbo/sd3.5/"}),
        (
            "sd3.5-large-turbo", "StableDiffusion3Pipeline", {}, {"qk_norm": "rms_norm"},
            {"name": "/cache/models--org--sd3.5-turbo/snapshots/0ab1"},
        ),
        (
            "sd3.5-medium", "StableDiffusion3Pipeline", {}, {"qk_norm": "rms_norm", "dual_attention_layers": [0, 1]},
            {},
        ),
        ("flux-dev", "FluxPipeline", {}, {"guidance_embeds": True}, {}),
        ("flux-schnell", "FluxPipeline", {}, {"guidance_embeds": False}, {}),
        ("flux2", "Flux2Pipeline", {}, {}, {}),
        ("flux2-klein", "Flux2KleinPipeline", {}, {}, {"is_distilled": True}),
        ("flux2-klein-base", "Flux2KleinPipeline", {}, {}, {"is_distilled": False}),
        ("qwen-image", "QwenImagePipeline", {}, {}, {}),
        ("qwen-image-2.1", "QwenImage21Pipeline", {}, {}, {"sample_sigmas": None}),
        ("qwen-image-2.1-turbo", "QwenImage21Pipeline", {}, {}, {"sample_sigmas": [0.5] * 8}),
        ("z-image", "ZImagePipeline", {"shift": 6.0}, {}, {}),
        ("z-image-turbo", "ZImagePipeline", {"shift": 3.0}, {}, {}),
        ("sana", "SanaPipeline", {}, {}, {}),
        ("sana-sprint", "SanaSprintPipeline", {}, {}, {}),
        ("pixart-sigma", "PixArtSigmaPipeline", {}, {}, {}),
    ],
)  # fmt: skip
def test_a_family_is_told_from_a_folder(
    key: str, kind: str, scheduler: dict[str, Any], transformer: dict[str, Any], more: dict[str, Any], tmp_path: Path
) -> None:
    name = more.pop("name", "my-model")
    assert family_of(_folder(tmp_path, kind, scheduler, transformer, **more), name) == FAMILIES[key]


def test_other_classes_have_no_family(tmp_path: Path) -> None:
    assert family_of(_folder(tmp_path, "KandinskyV22Pipeline", {}, {}), "m") is None


@pytest.mark.parametrize("kind", _OF_CLASS)
def test_defaults_are_those_of_the_signature_unless_another_source_is_named(kind: str) -> None:
    family = FAMILIES[_OF_CLASS[kind]]
    known = inspect.signature(getattr(diffusers, kind).__call__).parameters
    assert family.argument in known
    assert family.call.keys() <= known.keys()
    if family.source == "signature":
        assert (known["num_inference_steps"].default, known[family.argument].default) == (family.steps, family.guidance)
    if "max_sequence_length" in known:
        assert known["max_sequence_length"].default == family.reads


def test_changed_defaults_are_other_results() -> None:
    """Results under defaults are kept under their version; a change here needs another RENDERER_FAMILIES."""

    def values(family: Family) -> list[Any]:
        return [family.steps, family.guidance, family.argument, family.side, dict(family.call)]

    said = json.dumps([[key, values(family)] for key, family in sorted(FAMILIES.items())])
    assert (defaults.RENDERER_FAMILIES, hashlib.sha256(said.encode()).hexdigest()[:12]) == (1, "d76882400e27")


def test_published_renderers_name_their_family() -> None:
    named = {model.family for model in PUBLISHED.values() if model.family}
    assert named <= FAMILIES.keys()
    assert {"sdxl-turbo", "sd3.5-large", "flux-schnell", "flux-dev", "flux2", "qwen-image", "z-image-turbo"} <= named


def test_the_documentation_has_every_familys_defaults() -> None:
    rows = [line.split(" | ") for line in (ROOT / "docs/models.md").read_text().splitlines() if line.startswith("| ")]
    shown = {row[0].removeprefix("| "): row for row in rows if len(row) == 9}
    for key, family in FAMILIES.items():
        if key == "tiny-sd":
            continue
        _, name, steps, guidance, pixels, tokens, *_ = shown[family.name]
        wanted = "none" if family.guidance is None else f"{family.guidance:g}"
        assert (steps, guidance.split()[0], pixels) == (str(family.steps), wanted, str(family.pixels)), family.name
        assert tokens == (str(family.reads) if family.reads else "not known")
        if name.strip("` "):
            assert PUBLISHED[name.strip("`")].family == key or key == "sd"
