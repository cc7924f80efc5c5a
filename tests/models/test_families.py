"""Families of renderers: each from a folder to labelled and evaluated images, and the defaults of each."""

from __future__ import annotations

import hashlib
import inspect
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

from semdpo.data.records import Candidate, Prompt, content_id
from semdpo.errors import ModelError
from semdpo.models import scoring
from semdpo.models.catalogue import PUBLISHED
from semdpo.models.families import _OF_CLASS, FAMILIES, Family, family_of
from semdpo.models.loading import quiet
from semdpo.models.renderer import DiffusionRenderer, load_renderer
from semdpo.models.scorers.registry import load_scorer
from semdpo.recipe import defaults
from semdpo.recipe.label import LabelConfig
from semdpo.recipe.models import RendererConfig
from semdpo.stages import evaluate
from semdpo.stages.label import label
from tests import stand_ins, tiny_models, tiny_pipelines

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Case:
    """A tiny pipeline, how it is called, and what it reads.

    Attributes:
        family: the name of the family that it is taken for.
        fits: the characters of one word that are read as a whole, with all that the pipeline puts around them.
        around: the characters after which none of the word is read; they are more, where a template ends after it.
        side: the side of its images.
        call: further arguments.
        build: the arguments of its builder.
    """

    family: str
    fits: int
    around: int
    side: int = 16
    call: dict[str, Any] = field(default_factory=dict)
    build: dict[str, Any] = field(default_factory=dict)


_CHAT = 6, 12  # tokens of the chat's template before and after the prompt, one a character beside the special ones
PLAIN = {"use_resolution_binning": False}  # so that a small image is asked for, and not scaled down from a large one
CASES = {
    "sdxl": Case("SDXL", tiny_pipelines.CLIP_READS - 2, tiny_pipelines.CLIP_READS - 2),
    "sd3": Case("Stable Diffusion 3", 254, 254),
    "flux": Case("FLUX.1 [dev]", 510, 510, build={"guidance_embeds": True}),
    "flux2_klein": Case(
        "FLUX.2 [klein]",
        512 - sum(_CHAT),
        512 - _CHAT[0],
        call={"text_encoder_out_layers": tiny_pipelines.FLUX2_LAYERS},
    ),
    "z_image": Case("Z-Image-Turbo", 512 - sum(_CHAT), 512 - _CHAT[0]),
    "pixart": Case("PixArt-Σ", 298, 298, call=PLAIN),
    # The instruction is read beside max_sequence_length tokens, of which two are taken off.
    "sana": Case("Sana", 298, 298, side=32, call=PLAIN | {"complex_human_instruction": ["Improve", "User Prompt: "]}),
}


def _saved(name: str, folder: Path) -> Path:
    torch.manual_seed(0)
    with quiet():
        getattr(tiny_pipelines, name)(**CASES[name].build if name in CASES else {}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Case, DiffusionRenderer]:
    named = CASES[request.param]
    folder = _saved(request.param, tmp_path_factory.mktemp("pipelines") / request.param)
    assert family_of(folder, request.param) == next(each for each in FAMILIES.values() if each.name == named.family)
    return named, load_renderer(str(folder), steps=1, height=named.side, width=named.side, call=named.call)


@pytest.fixture(scope="module")
def scorer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return load_scorer(str(tiny_models.clip(tmp_path_factory.mktemp("scorer") / "clip", "clip-score")))


def _pixels(image: Any) -> np.ndarray:
    return np.asarray(image, np.int16)


def _read(renderer: DiffusionRenderer, prompt: str) -> list[torch.Tensor]:
    """What the denoiser is given of a prompt, when the pipeline renders it."""
    seen: list[torch.Tensor] = []

    class Stop(BaseException):
        pass

    def note(_module: Any, given: Any, named: dict[str, Any]) -> None:
        for value in (*given, *named.values()):
            seen.extend(
                each.clone() for each in (value if isinstance(value, list) else [value]) if torch.is_tensor(each)
            )
        raise Stop

    pipeline = renderer._pipeline
    network = getattr(pipeline, "unet", None) or pipeline.transformer
    handle = network.register_forward_pre_hook(note, with_kwargs=True)
    try:
        with pytest.raises(Stop):
            renderer.render([prompt], [1])
    finally:
        handle.remove()
    return seen


def _equal(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return len(one) == len(other) > 0 and all(map(torch.equal, one, other))


def test_flags_are_the_pipelines_own_truncation(case: tuple[Case, DiffusionRenderer]) -> None:
    named, renderer = case
    assert renderer.too_long(["a" * named.fits, "a" * (named.fits + 1), "a"]).tolist() == [False, True, False]
    last = [_read(renderer, "a" * (named.fits - 1) + end) for end in "bc"]
    assert not _equal(*last), "the last character of a prompt that fits is read"
    beyond = [_read(renderer, "a" * named.around + end) for end in "bc"]
    assert _equal(*beyond), "one more is not"


def test_labelling_and_evaluating(case: tuple[Case, DiffusionRenderer], scorer: Any) -> None:
    named, renderer = case
    prompts = [Prompt.of(text, "test", "test") for text in ("a red ball", "a cat")]
    rewrites = [[prompt.prompt, f"{prompt.prompt} in a long forest" + "x" * named.fits] for prompt in prompts]
    candidates = [
        Candidate(content_id(prompt.prompt_id, str(n)), prompt.prompt_id, prompt.prompt, rewrite, n, 0, False)
        for prompt, both in zip(prompts, rewrites, strict=True)
        for n, rewrite in enumerate(both)
    ]
    config = LabelConfig(renderer=RendererConfig(model="m"), scorer="judge")
    rows = label(candidates, renderer, {"judge": scorer}, config)
    assert [row.error for row in rows] == [None] * 4
    assert [row.truncated for row in rows] == [False, True] * 2
    texts = [both[0] for both in rewrites]
    images = evaluate.render("human", prompts, texts, renderer, stand_ins.Encoder(), [0, 1], 3, lambda t: [1] * len(t))
    assert [row.truncated for row in images] == [False] * 4
    scores = scoring.score_images(images, scorer, "clip")
    assert all(np.isfinite(row.score or np.nan) for row in scores)


def test_an_image_is_the_same_whatever_the_batch(case: tuple[Case, DiffusionRenderer]) -> None:
    _, renderer = case
    rows = [("a red ball", 1), ("a cat", 2), ("a very long house near a tree and a dog", 3)]
    together = renderer.render([text for text, _ in rows], [seed for _, seed in rows])
    for (text, seed), image in zip(rows, together, strict=True):
        alone = renderer.render([text], [seed])[0]
        assert np.abs(_pixels(alone) - _pixels(image)).max() <= 1
    assert (_pixels(together[0]) != _pixels(renderer.render(["a red ball"], [2])[0])).any()


def test_qwen_image_is_guided_by_default(tmp_path: Path, scorer: Any) -> None:
    """Its guidance is ``true_cfg_scale`` and needs a negative prompt; masks keep the rows of a batch apart."""
    folder = str(_saved("qwen_image", tmp_path / "qwen"))
    renderer = load_renderer(folder, steps=2, height=16, width=16)
    assert renderer._call == {
        "num_inference_steps": 2, "true_cfg_scale": 4.0, "negative_prompt": " ", "height": 16, "width": 16,
    }  # fmt: skip
    assert dict(renderer.shown_settings) == {"Steps": 2, "Sampler": "Euler", "CFG scale": 4.0}
    texts = ["a red ball", "a cat", "a very long house near a tree and a dog"]
    guided = renderer.render(texts, [1, 1, 1])
    for text, image in zip(texts, guided, strict=True):
        assert np.abs(_pixels(renderer.render([text], [1])[0]) - _pixels(image)).max() <= 1
    free = load_renderer(folder, steps=2, guidance=1.0, height=16, width=16).render(texts, [1, 1, 1])
    assert (_pixels(guided[0]) != _pixels(free[0])).any()
    ugly = load_renderer(folder, steps=2, height=16, width=16, call={"negative_prompt": "ugly"})
    assert (_pixels(guided[0]) != _pixels(ugly.render(texts, [1, 1, 1])[0])).any()
    assert np.isfinite(scorer.score(guided, texts).values).all()


def test_a_size_that_the_pipeline_rounds_is_refused(tmp_path: Path) -> None:
    renderer = load_renderer(str(_saved("flux", tmp_path / "flux")), steps=1, height=17, width=16)
    with pytest.raises(ModelError, match="FluxPipeline rendered 16x16 pixels where 16x17 were asked for"):
        renderer.render(["a cat"], [1])


# -------------------------------------------------------------------------------------------------- which one it is


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
        ("qwen-image-2.1", "QwenImage21Pipeline", {}, {}, {}),
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
    assert (defaults.RENDERER_FAMILIES, hashlib.sha256(said.encode()).hexdigest()[:12]) == (1, "9635835e6030")


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
