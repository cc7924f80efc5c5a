"""Which prompts a pipeline truncates, and that text which looks like a special token is text to it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from semdpo.errors import DataError
from semdpo.models.loading import quiet
from semdpo.models.reading import PromptReader
from semdpo.models.renderer import DiffusionRenderer, load_renderer
from tests import tiny_models, tiny_pipelines

CALL: dict[str, Any] = {"num_inference_steps": 1, "guidance_scale": 3.0, "height": 16, "width": 16}
READS = {  # characters of one word that are read beside special tokens, word's beginning and template
    "sdxl": tiny_pipelines.CLIP_READS - 2,
    "sd3": 256 - 2,
    "flux": 512 - 2,
    "pixart": 300 - 2,
}


def _build(name: str, **more: Any) -> Any:
    torch.manual_seed(0)
    with quiet():
        pipeline = getattr(tiny_pipelines, name)(**more)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="module", params=READS)
def named(request: pytest.FixtureRequest) -> tuple[str, Any]:
    return request.param, _build(request.param)


def _embeddings(pipeline: Any, prompt: str) -> torch.Tensor:
    """What the pipeline itself makes of a prompt, on the way that it takes when it draws."""
    seen: list[torch.Tensor] = []

    class Stop(BaseException):
        pass

    def note(_module: Any, _args: Any, named: dict[str, Any]) -> None:
        seen.append(named["encoder_hidden_states"].clone())
        raise Stop

    network = getattr(pipeline, "unet", None) or pipeline.transformer
    handle = network.register_forward_pre_hook(note, with_kwargs=True)
    try:
        with torch.no_grad(), quiet():
            pipeline(prompt=[prompt], output_type="np", **CALL)
    except Stop:
        pass
    finally:
        handle.remove()
    return seen[0][-1]  # of the prompt; the negative one comes first where there is one


def test_flags_are_those_of_the_pipelines_own_truncation(named: tuple[str, Any]) -> None:
    name, pipeline = named
    reader, fits = PromptReader(pipeline, CALL), READS[name]
    assert reader.too_long(["a" * fits, "a" * (fits + 1), "a"]).tolist() == [False, True, False]
    last = [_embeddings(pipeline, "a" * (fits - 1) + end) for end in "ab"]
    assert not torch.equal(*last), "the last character of a prompt that fits is read"
    beyond = [_embeddings(pipeline, "a" * fits + end) for end in "ab"]
    assert torch.equal(*beyond), "one more is not"


def test_special_text_in_a_prompt_is_read_as_text(named: tuple[str, Any]) -> None:
    _, pipeline = named
    PromptReader(pipeline, CALL)
    for special in ("<|endoftext|>", "</s>", "<pad>", "<|startoftext|>"):
        cat, dog = (_embeddings(pipeline, f"a {special} {end}") for end in ("cat", "dog"))
        assert not torch.equal(cat, dog), "what follows is read"
    for tokenizer in (part for part in vars(pipeline).values() if hasattr(part, "all_special_tokens")):
        for special in tokenizer.all_special_tokens:
            (ids,) = tokenizer([f"a {special} cat"], add_special_tokens=False)["input_ids"]
            assert not set(ids) & (set(tokenizer.all_special_ids) - {tokenizer.unk_token_id})


def test_without_its_t5_sd3_reads_what_clip_reads() -> None:
    reader = PromptReader(_build("sd3", t5=False), CALL)
    fits = tiny_pipelines.CLIP_READS - 2
    assert reader.too_long(["a" * fits, "a" * (fits + 1)]).tolist() == [False, True]


def test_a_recipes_own_limit_counts() -> None:
    reader = PromptReader(_build("pixart"), CALL | {"max_sequence_length": 50})
    assert reader.too_long(["a" * 48, "a" * 49]).tolist() == [False, True]


def test_a_language_model_with_a_template(monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = _build("qwen_image")
    template = pipeline.prompt_template_encode
    around = len(pipeline.tokenizer([template.format("")])["input_ids"][0])
    # A byte-level tokenizer makes more of the template than the published one, of which 34 tokens are dropped.
    monkeypatch.setattr(pipeline, "prompt_template_encode_start_idx", start := template.index("{}") - 20)
    reader = PromptReader(pipeline, CALL)
    fits = start + 512 - around
    assert reader.too_long(["a" * fits, "a" * (fits + 1)]).tolist() == [False, True]
    assert _embeddings(pipeline, "a" * fits).shape[0] == 512
    assert _embeddings(pipeline, "a" * (fits - 1)).shape[0] == 511
    assert _embeddings(pipeline, "a" * (fits + 1)).shape[0] == 512  # truncated
    with pytest.raises(DataError, match=r"'a <\|im_end\|> cat' contains '<\|im_end\|>', which QwenImagePipeline"):
        reader.too_long(["a cat", "a <|im_end|> cat"])
    with pytest.raises(DataError, match="remove it"):
        DiffusionRenderer(pipeline, CALL, 2, False).render(["a <|im_end|> cat"], [1])


def test_the_pipeline_is_left_as_it_was(named: tuple[str, Any]) -> None:
    _, pipeline = named
    kinds = {key: type(part) for key, part in vars(pipeline).items()}
    state = torch.random.get_rng_state()
    PromptReader(pipeline, CALL)
    assert torch.equal(state, torch.random.get_rng_state())
    assert {key: type(part) for key, part in vars(pipeline).items()} == kinds
    assert not any(
        module._forward_pre_hooks for part in vars(pipeline).values() if isinstance(part, torch.nn.Module)
        for module in part.modules()
    )  # fmt: skip


@pytest.mark.parametrize("name", ["flux", "qwen_image"])
def test_images_come_out(name: str) -> None:
    renderer = DiffusionRenderer(_build(name), CALL, 2, False)
    first, again, other = renderer.render(["a red ball", "a red ball", "a cat"], [1, 1, 1])
    assert first.size == (16, 16)
    assert first is again
    assert np.asarray(first).tolist() != np.asarray(other).tolist()


def test_a_saved_pipeline_with_several_encoders(named: tuple[str, Any], tmp_path: Path) -> None:
    name, pipeline = named
    pipeline.save_pretrained(tmp_path / name)
    renderer = load_renderer(str(tmp_path / name), steps=1, height=16, width=16)
    fits = 254 if name == "flux" else READS[name]  # without guidance, it is FLUX.1 [schnell]
    assert renderer.too_long(["a" * fits, "a" * (fits + 1)]).tolist() == [False, True]
    if name != "pixart":  # whose images have hundreds of pixels a side, whatever was asked
        first, other = renderer.render(["a red ball", "a cat </s> <|endoftext|>"], [1, 1])
        assert np.asarray(first).tolist() != np.asarray(other).tolist()


def test_what_cannot_be_overheard_counts_by_what_it_declares() -> None:
    class Pipeline:
        def __init__(self, **parts: Any) -> None:
            vars(self).update(parts)

        def __call__(self, prompt: list[str], max_sequence_length: int = 20) -> None:
            raise AssertionError

    def encoder(**config: Any) -> SimpleNamespace:
        return SimpleNamespace(config=SimpleNamespace(**config))

    t5 = Pipeline(tokenizer=tiny_pipelines.t5_tokenizer(), text_encoder=encoder(d_model=8))
    assert PromptReader(t5, {}).too_long(["a" * 18, "a" * 19]).tolist() == [False, True]
    clip = Pipeline(tokenizer=tiny_pipelines.clip_tokenizer(), text_encoder=encoder(max_position_embeddings=10))
    assert PromptReader(clip, {}).too_long(["a" * 8, "a" * 9]).tolist() == [False, True]
    assert PromptReader(clip, {}).too_long([]).shape == (0,)


def test_special_text_through_a_loaded_renderer(tmp_path: Path) -> None:
    """Diffusers gives the prompt to its tokenizer; CLIP's would end the prompt at an end token's text."""
    renderer = load_renderer(str(tiny_models.stable_diffusion(tmp_path / "sd")), steps=2)
    cat, dog = renderer.render(["a <|endoftext|> cat", "a <|endoftext|> dog"], [1, 1])
    assert np.asarray(cat).tolist() != np.asarray(dog).tolist()
    limit = tiny_models.CLIP_LENGTH - 2 - len("<|endoftext|>")
    assert renderer.too_long(["<|endoftext|>" + "x" * limit, "<|endoftext|>" + "x" * (limit + 1)]).tolist() == [
        False,
        True,
    ]
