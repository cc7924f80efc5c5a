"""Families of renderers: each from a folder to labelled and evaluated images."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.pipelines.flux2.system_messages import SYSTEM_MESSAGE

from semdpo.data.records import Candidate, Prompt, content_id
from semdpo.errors import DataError, ModelError
from semdpo.models import scoring
from semdpo.models.families import FAMILIES, Family, family_of
from semdpo.models.fit import refuse_unfit_renderer
from semdpo.models.loading import quiet
from semdpo.models.renderer import DiffusionRenderer, load_renderer
from semdpo.models.scorers.registry import load_scorer
from semdpo.recipe.label import LabelConfig
from semdpo.recipe.models import RendererConfig
from semdpo.stages import evaluate
from semdpo.stages.label import label
from tests import stand_ins, tiny_models, tiny_pipelines


@dataclass(frozen=True)
class Case:
    """A tiny pipeline, how it is called, and what it reads.

    Attributes:
        family: the name of the family that it is taken for.
        make: builds it.
        fits: the characters of one word that are read as a whole, with all that the pipeline puts around them.
        around: the characters after which none of the word is read; they are more, where a template ends after it.
        steps: its steps; more than one where the sampler adds noise after a step.
        side: the side of its images.
        call: further arguments.
        calls: the rows of each call of the denoiser for one image; two, where it gets the negative prompt as well.
    """

    family: str
    make: Callable[[], Any]
    fits: int
    around: int
    steps: int = 1
    side: int = 16
    call: dict[str, Any] = field(default_factory=dict)
    calls: tuple[int, ...] = (1,)


_CLIP = tiny_pipelines.CLIP_READS - 2
_CHAT = 6, 12  # tokens of the chat's template before and after the prompt, one a character beside the special ones
_OF_CHAT = 512 - sum(_CHAT), 512 - _CHAT[0]
_MISTRAL = len(SYSTEM_MESSAGE) + 4  # tokens before the prompt: the beginning, the system's turn, the user's begins
PLAIN = {"use_resolution_binning": False}  # so that a small image is asked for, and not scaled down from a large one
LAYERS = {"text_encoder_out_layers": tiny_pipelines.FLUX2_LAYERS}
# The instruction is read beside max_sequence_length tokens, of which two are taken off.
IMPROVED = PLAIN | {"complex_human_instruction": ["Improve", "User Prompt: "]}
XL_TURBO = partial(tiny_pipelines.sdxl, turbo=True)
LARGE = partial(tiny_pipelines.sd3, qk_norm="rms_norm")
MEDIUM = partial(LARGE, dual_attention_layers=(0,))
BASE = partial(tiny_pipelines.flux2_klein, distilled=False)
CASES = {
    "sd_turbo": Case("SD Turbo", tiny_pipelines.sd_turbo, _CLIP, _CLIP),
    "sdxl": Case("SDXL", tiny_pipelines.sdxl, _CLIP, _CLIP, calls=(2,)),
    "sdxl_turbo": Case("SDXL Turbo", XL_TURBO, _CLIP, _CLIP, steps=2, calls=(1, 1)),
    "sd3": Case("Stable Diffusion 3", tiny_pipelines.sd3, 254, 254, calls=(2,)),
    "sd35_large": Case("Stable Diffusion 3.5 Large", LARGE, 254, 254, calls=(2,)),
    "sd35_large_turbo": Case("Stable Diffusion 3.5 Large Turbo", LARGE, 254, 254),
    "sd35_medium": Case("Stable Diffusion 3.5 Medium", MEDIUM, 254, 254, calls=(2,)),
    "flux": Case("FLUX.1 [dev]", partial(tiny_pipelines.flux, guidance_embeds=True), 510, 510),
    "flux_schnell": Case("FLUX.1 [schnell]", tiny_pipelines.flux, 254, 254),
    "flux2": Case("FLUX.2 [dev]", tiny_pipelines.flux2, 512 - _MISTRAL - 1, 512 - _MISTRAL, call=LAYERS),
    "flux2_klein": Case("FLUX.2 [klein]", tiny_pipelines.flux2_klein, *_OF_CHAT, call=LAYERS),
    "flux2_klein_base": Case("FLUX.2 [klein] Base", BASE, *_OF_CHAT, call=LAYERS, calls=(1, 1)),
    "z_image": Case("Z-Image", partial(tiny_pipelines.z_image, shift=6.0), *_OF_CHAT, calls=(2,)),
    "z_image_turbo": Case("Z-Image-Turbo", tiny_pipelines.z_image, *_OF_CHAT),
    "pixart": Case("PixArt-Σ", tiny_pipelines.pixart, 298, 298, call=PLAIN, calls=(2,)),
    "sana": Case("Sana", tiny_pipelines.sana, 298, 298, side=32, call=IMPROVED, calls=(2,)),
    "sana_sprint": Case("Sana-Sprint", tiny_pipelines.sana_sprint, 298, 298, 2, 32, IMPROVED, calls=(1, 1)),
}
# What the published folders have in place of the processors of texts, which transformers makes with torchvision alone.
OWN = {"Flux2Pipeline": ("tokenizer", "PixtralProcessor"), "QwenImage21Pipeline": ("processor", "Qwen3VLProcessor")}


def _saved(make: Callable[[], Any], folder: Path) -> Path:
    torch.manual_seed(0)
    with quiet():
        make().save_pretrained(folder)
    index = json.loads((folder / "model_index.json").read_text())
    if index["_class_name"] in OWN:
        part, kind = OWN[index["_class_name"]]
        index[part] = ["transformers", kind]
        (folder / "model_index.json").write_text(json.dumps(index))
    return folder


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Case, DiffusionRenderer]:
    named = CASES[request.param]
    folder = _saved(named.make, tmp_path_factory.mktemp("pipelines") / request.param)
    assert family_of(folder, request.param) == next(each for each in FAMILIES.values() if each.name == named.family)
    return named, load_renderer(str(folder), steps=named.steps, height=named.side, width=named.side, call=named.call)


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
    _label_and_evaluate(renderer, scorer, "x" * named.fits)


def _label_and_evaluate(renderer: DiffusionRenderer, scorer: Any, beyond: str) -> None:
    """A text with ``beyond`` in it is longer than the renderer reads, unless it is empty."""
    prompts = [Prompt.of(text, "test", "test") for text in ("a red ball", "a cat")]
    rewrites = [[prompt.prompt, f"{prompt.prompt} in a long forest{beyond}"] for prompt in prompts]
    candidates = [
        Candidate(content_id(prompt.prompt_id, str(n)), prompt.prompt_id, prompt.prompt, rewrite, n, 0, False)
        for prompt, both in zip(prompts, rewrites, strict=True)
        for n, rewrite in enumerate(both)
    ]
    config = LabelConfig(renderer=RendererConfig(model="m"), scorer="judge")
    rows = label(candidates, renderer, {"judge": scorer}, config)
    assert [row.error for row in rows] == [None] * 4
    assert [row.truncated for row in rows] == [False, bool(beyond)] * 2
    texts = [both[0] for both in rewrites]
    images = evaluate.render("human", prompts, texts, renderer, stand_ins.Encoder(), [0, 1], 3, lambda t: [1] * len(t))
    assert [row.truncated for row in images] == [False] * 4
    scores = scoring.score_images(images, scorer, "clip")
    assert all(np.isfinite(row.score or np.nan) for row in scores)


def test_an_image_is_the_same_whatever_the_batch(case: tuple[Case, DiffusionRenderer]) -> None:
    _same_whatever_the_batch(case[1])


def _same_whatever_the_batch(renderer: DiffusionRenderer) -> None:
    rows = [("a red ball", 1), ("a cat", 2), ("a very long house near a tree and a dog", 3)]
    together = renderer.render([text for text, _ in rows], [seed for _, seed in rows])
    for (text, seed), image in zip(rows, together, strict=True):
        alone = renderer.render([text], [seed])[0]
        assert alone.mode == "RGB"
        assert np.abs(_pixels(alone) - _pixels(image)).max() <= 1
    assert (_pixels(together[0]) != _pixels(renderer.render(["a red ball"], [2])[0])).any()


def _rows(renderer: DiffusionRenderer) -> list[int]:
    """The rows of each call of the denoiser, when one image is rendered."""
    found: list[int] = []
    renderer.too_long([])  # to find out how it reads, it calls the pipeline once

    def note(_module: Any, given: Any, named: dict[str, Any]) -> None:
        found.append(len(given[0] if given else named["hidden_states"]))

    pipeline = renderer._pipeline
    network = getattr(pipeline, "unet", None) or pipeline.transformer
    handle = network.register_forward_pre_hook(note, with_kwargs=True)
    try:
        renderer.render(["a cat"], [1])
    finally:
        handle.remove()
    return found


def test_only_models_that_need_it_are_guided_by_a_negative_prompt(case: tuple[Case, DiffusionRenderer]) -> None:
    named, renderer = case
    assert _rows(renderer) == list(named.calls)


EMBEDDED = {"FLUX.1 [dev]": 3.5, "FLUX.2 [dev]": 4.0, "Sana-Sprint": 0.45}  # Sana-Sprint's weights expect a tenth


def test_guidance_that_is_embedded_reaches_the_denoiser(case: tuple[Case, DiffusionRenderer]) -> None:
    named, renderer = case
    numbers = [each.item() for each in _read(renderer, "a cat") if each.numel() == 1]
    if named.family in EMBEDDED:
        assert any(value == pytest.approx(EMBEDDED[named.family], rel=1e-3) for value in numbers)


def test_a_model_of_one_step_begins_at_the_last_time(tmp_path: Path) -> None:
    renderer = load_renderer(str(_saved(tiny_pipelines.sd_turbo, tmp_path / "sd-turbo")), height=16, width=16)
    assert renderer._call == {"num_inference_steps": 1, "guidance_scale": 0.0, "height": 16, "width": 16}
    assert [each.item() for each in _read(renderer, "a cat") if each.numel() == 1] == [999.0]


@pytest.mark.parametrize("steps", [1, 4])
def test_sana_sprint_takes_other_numbers_of_steps_than_two(steps: int, tmp_path: Path) -> None:
    folder = str(_saved(tiny_pipelines.sana_sprint, tmp_path / "sana-sprint"))
    renderer = load_renderer(folder, steps=steps, height=32, width=32, call=IMPROVED)
    assert renderer._call["intermediate_timesteps"] is None
    assert _rows(renderer) == [1] * steps


# ---------------------------------------------------------------------------------------------------- Qwen-Image


def test_qwen_image_is_guided_by_default(tmp_path: Path, scorer: Any) -> None:
    """Its guidance is ``true_cfg_scale`` and needs a negative prompt; masks keep the rows of a batch apart."""
    folder = str(_saved(tiny_pipelines.qwen_image, tmp_path / "qwen"))
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
    _label_and_evaluate(renderer, scorer, "")


TURBO_21 = [1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.3, 0.1]  # noise levels of its own, as the published model has


@pytest.fixture(scope="module", params=[None, TURBO_21], ids=["base", "turbo"])
def qwen_21(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Family, Path]:
    folder = tmp_path_factory.mktemp("pipelines") / "qwen-2.1"
    family = FAMILIES["qwen-image-2.1" if request.param is None else "qwen-image-2.1-turbo"]
    return family, _saved(partial(tiny_pipelines.qwen_image_21, request.param), folder)


def test_qwen_image_2_1(qwen_21: tuple[Family, Path], scorer: Any) -> None:
    """The image's place among the positions is behind the padding of its batch, so each is rendered by itself."""
    family, folder = qwen_21
    assert family_of(folder, str(folder)) == family
    steps = None if family.scheduled else 2
    renderer = load_renderer(str(folder), steps=steps, height=32, width=32, batch_size=4)
    assert _rows(renderer) == [1] * (steps or 8)
    _same_whatever_the_batch(renderer)
    rows = ["a cat", "a cat" + "x" * 200], [1, 1]
    alone = _pixels(renderer.render(["a cat"], [1])[0])
    assert (_pixels(renderer.render(*rows)[0]) == alone).all()
    together = DiffusionRenderer(renderer._pipeline, renderer._call, 2, False).render(*rows)[0]
    assert (_pixels(together) != alone).any(), "else batches could be rendered"
    _label_and_evaluate(renderer, scorer, "")


def test_qwen_image_2_1_reads_as_many_tokens_as_it_has_positions_for(qwen_21: tuple[Family, Path]) -> None:
    family, folder = qwen_21
    renderer = load_renderer(str(folder), height=32, width=32)
    pipeline = renderer._pipeline
    around = len("user\n") + 1 + 1 + len("\n") + 1 + len("assistant\n")
    fits = family.reads - around
    assert renderer.too_long(["a" * fits, "a" * (fits + 1), "a"]).tolist() == [False, True, False]
    # One position is the image's own; the last 1024 are of places left of an image's middle, or above it.
    assert pipeline.transformer.pos_embed.freqs[0].shape[0] == family.reads + 1 + 1024
    last = [_read(renderer, "a" * 700 + end) for end in "bc"]
    assert not _equal(*last), "nothing is truncated"
    with pytest.raises(DataError, match="for a control token"):
        renderer.render(["a <|im_end|> cat"], [1])


def test_qwen_image_2_1_is_guided_where_the_recipe_asks_for_it(tmp_path: Path) -> None:
    folder = str(_saved(tiny_pipelines.qwen_image_21, tmp_path / "qwen"))
    renderer = load_renderer(folder, steps=1, guidance=3.0, height=32, width=32)
    assert renderer._call["negative_prompt"] == " "
    assert _rows(renderer) == [1, 1]
    plain = load_renderer(folder, steps=1, height=32, width=32).render(["a cat"], [1])[0]
    assert (_pixels(renderer.render(["a cat"], [1])[0]) != _pixels(plain)).any()


def test_a_model_with_a_schedule_of_its_own_takes_no_other_number_of_steps(tmp_path: Path) -> None:
    """Diffusers would render with the model's schedule, whatever the number."""
    folder = str(_saved(partial(tiny_pipelines.qwen_image_21, TURBO_21), tmp_path / "qwen"))
    with pytest.raises(ModelError, match=r"Qwen-Image-2.1-Turbo has a schedule of its own, of 8 steps; remove rend"):
        load_renderer(folder, steps=4, height=32, width=32)
    with pytest.raises(ModelError, match=r"remove renderer\.steps"):
        refuse_unfit_renderer(RendererConfig(model=folder, steps=4), Path(folder))
    refuse_unfit_renderer(RendererConfig(model=folder), Path(folder))
    own = load_renderer(folder, height=32, width=32, call={"sigmas": [1.0, 0.5]})
    assert _rows(own) == [1, 1]


def test_transparency_becomes_white(tmp_path: Path) -> None:
    renderer = load_renderer(str(_saved(tiny_pipelines.qwen_image_21, tmp_path / "q")), steps=1, height=32, width=32)
    pipeline = renderer._pipeline
    real = pipeline.image_processor.postprocess

    def clear(image: torch.Tensor, **named: Any) -> Any:
        assert image.shape[1] == 4
        image[:, 3] = -1.0  # no opacity
        return real(image, **named)

    pipeline.image_processor.postprocess = clear
    assert renderer.render(["a cat"], [1])[0].getextrema() == ((255, 255), (255, 255), (255, 255))


def test_a_size_that_the_pipeline_rounds_is_refused(tmp_path: Path) -> None:
    renderer = load_renderer(str(_saved(tiny_pipelines.flux, tmp_path / "flux")), steps=1, height=17, width=16)
    with pytest.raises(ModelError, match="FluxPipeline rendered 16x16 pixels where 16x17 were asked for"):
        renderer.render(["a cat"], [1])
