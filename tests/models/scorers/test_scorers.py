from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import BlipForImageTextRetrieval, CLIPModel

from semdpo.errors import DataError, ModelError
from semdpo.models.clip import load_towers
from semdpo.models.device import compute
from semdpo.models.registry import resolve
from semdpo.models.scorers.hps import fit_square
from semdpo.models.scorers.registry import load_scorer
from semdpo.protocols import Scorer
from tests import tiny_models, tiny_multimodal

PROMPTS = ["a red ball", "two cats", "", "a house on a hill", "blue"]
LONG = "a very long prompt " * 8

BUILDERS: dict[str, Callable[[Path], Path]] = {
    "clip-score": tiny_models.clip,
    "hpsv2.1": lambda folder: tiny_models.clip(folder, "hpsv2.1"),
    "pickscore": lambda folder: tiny_models.clip(folder, "pickscore"),
    "image-reward": tiny_models.image_reward,
    "blip-itm": tiny_models.blip_itm,
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {kind: build(tmp_path_factory.mktemp("scorer") / "model") for kind, build in BUILDERS.items()}


@pytest.fixture
def images() -> list[Image.Image]:
    return [tiny_models.image(seed) for seed in range(len(PROMPTS))]


@pytest.mark.parametrize("kind", BUILDERS)
def test_every_scorer_keeps_order_and_flags_long_prompts(
    kind: str,
    folders: dict[str, Path],
    images: list[Image.Image],
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    scorer = load_scorer(str(folders[kind]), batch_size=2)
    assert isinstance(scorer, Scorer)
    found = scorer.score(images, PROMPTS)
    assert found.values.shape == (5,)
    assert found.values.dtype == np.float32
    assert np.ptp(found.values) > 1e-3
    assert not found.truncated.any()
    alone = [scorer.score([image], [prompt]).values[0] for image, prompt in zip(images, PROMPTS, strict=True)]
    np.testing.assert_allclose(found.values, alone, atol=1e-5)
    long = scorer.score([*images[:2], images[0]], [PROMPTS[0], LONG, LONG])
    assert long.truncated.tolist() == [False, True, True]
    assert scorer.score([], []).values.shape == (0,)
    assert capfd.readouterr() == ("", "")
    assert caplog.messages == []


@pytest.mark.parametrize("kind", BUILDERS)
def test_the_score_depends_on_image_and_prompt(kind: str, folders: dict[str, Path], images: list[Image.Image]) -> None:
    values = load_scorer(str(folders[kind])).score([images[0], images[0], images[1]], ["a", "b c", "a"]).values
    assert values[0] != values[1]
    assert values[0] != values[2]


SPECIAL = {
    **dict.fromkeys(("clip-score", "hpsv2.1", "pickscore"), ("<|endoftext|>", "<|startoftext|>", "<|pad|>")),
    **dict.fromkeys(("image-reward", "blip-itm"), ("[SEP]", "[CLS]", "[MASK]")),
}


@pytest.mark.parametrize("kind", BUILDERS)
def test_special_tokens_in_a_prompt_are_text(kind: str, folders: dict[str, Path]) -> None:
    """These tokenizers ignore case, but look for special tokens before: in other case the same text is only text."""
    scorer, image = load_scorer(str(folders[kind])), tiny_models.image(1)
    for special in SPECIAL[kind]:
        prompts = [f"a {special} cat", f"a {special} dog", f"a {special.swapcase()} cat"]
        found = scorer.score([image] * 3, prompts)
        assert found.values[0] == pytest.approx(found.values[2], abs=1e-6)
        assert abs(found.values[0] - found.values[1]) > 1e-5, "what follows is read"
        assert not found.truncated.any()
    long = [special + "x" * (tiny_models.CLIP_LENGTH - len(special)) for special in SPECIAL[kind]]
    assert scorer.score([image] * 3, long).truncated.all(), "its characters count"


@pytest.mark.parametrize("text", ["a <image> cat", "a </s> cat", "<s>"])
def test_a_model_that_answers_questions_refuses_its_control_tokens(text: str, tmp_path: Path) -> None:
    scorer = load_scorer(str(tiny_multimodal.llava(tmp_path / "llava")))
    special = next(each for each in ("<image>", "</s>", "<s>") if each in text)
    with pytest.raises(DataError, match=f"the text '{text}' contains '{special}', which .*llava takes for"):
        scorer.score([tiny_models.image(1)] * 2, ["a cat", text])


@pytest.mark.parametrize("kind", ["blip-itm", "image-reward"])
def test_blip_reads_35_tokens_as_upstream_does(kind: str, folders: dict[str, Path]) -> None:
    scorer = load_scorer(str(folders[kind]))  # tokenizer and text tower would allow 40
    fits = "a" * 33  # a token a letter, beside the two that stand around the text
    found = scorer.score([tiny_models.image(1)] * 4, [fits, fits + "b", fits + "cd", fits[:-1] + "b"])
    assert found.truncated.tolist() == [False, True, True, False]
    np.testing.assert_allclose(found.values[1:3], found.values[0], atol=1e-6)
    assert abs(found.values[3] - found.values[0]) > 1e-5


def _features(folder: Path, image: Image.Image, prompt: str) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Features computed without any of our code's shortcuts."""
    model = CLIPModel.from_pretrained(folder).eval()
    tokenizer = tiny_models.clip_tokenizer()
    values = np.asarray(image.convert("RGB"), np.float32) / 255
    mean, std = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
    pixels = torch.tensor(((values - mean) / std).transpose(2, 0, 1), dtype=torch.float32)[None]
    with torch.no_grad():
        output = model(input_ids=tokenizer(prompt, return_tensors="pt")["input_ids"], pixel_values=pixels)
        return output.image_embeds[0], output.text_embeds[0], model.logit_scale.exp().item()


def test_clip_score_is_the_raw_cosine_and_pickscore_the_scaled_one(folders: dict[str, Path]) -> None:
    image = tiny_models.image(7)
    seen, read, scale = _features(folders["clip-score"], image, "a cat")
    cosine = torch.nn.functional.cosine_similarity(seen, read, dim=0).item()
    for kind, wanted in (("clip-score", cosine), ("hpsv2.1", cosine), ("pickscore", scale * cosine)):
        assert load_scorer(str(folders[kind])).score([image], ["a cat"]).values[0] == pytest.approx(wanted, abs=1e-4)


def test_blip_matching_is_the_probability_of_a_match(folders: dict[str, Path]) -> None:
    scorer = load_scorer(str(folders["blip-itm"]))
    values = scorer.score([tiny_models.image(1)], ["a cat"]).values
    model = BlipForImageTextRetrieval.from_pretrained(folders["blip-itm"]).eval()
    tokens = tiny_models.bert_tokenizer()("a cat", return_tensors="pt")
    pixels = tiny_models.image_processor()(images=tiny_models.image(1), return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        logits = model(input_ids=tokens["input_ids"], pixel_values=pixels).itm_score[0]
    assert values[0] == pytest.approx((logits[1].exp() / logits.exp().sum()).item(), abs=1e-5)
    assert 0 <= values[0] <= 1


def test_bert_width_with_the_default_heads_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    from transformers import BlipConfig

    config = BlipConfig(
        text_config={"num_hidden_layers": 1, "vocab_size": 100, "intermediate_size": 8, "bos_token_id": 2},
        vision_config={"num_hidden_layers": 1, "intermediate_size": 8, "image_size": 32},
    )
    BlipForImageTextRetrieval(config).save_pretrained(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json", "preprocessor_config.json"):
        shutil.copy(folders["blip-itm"] / name, tmp_path / name)
    with pytest.raises(ModelError, match=r"8 heads; set text_config\.num_attention_heads to 12"):
        load_scorer(str(tmp_path))


def test_hps_resizes_in_float_and_pads_with_black() -> None:
    wide = fit_square(tiny_models.image(0, width=64, height=20), 32)
    assert wide.shape == (3, 32, 32)
    assert (wide[:, :11] == 0).all()
    assert (wide[:, 21:] == 0).all()
    assert (wide[:, 11:21] != 0).any()
    # a ramp of grey levels would land on multiples of 1/255 if the image were resized as integers
    ramp = Image.fromarray(np.repeat(np.arange(64, dtype=np.uint8)[None, :, None] * 4, 64, 0).repeat(3, 2))
    levels = fit_square(ramp, 24) * 255
    assert (levels - levels.round()).abs().max() > 0.1
    square = tiny_models.image(3, 32, 32)
    np.testing.assert_array_equal(fit_square(square, 32).permute(1, 2, 0) * 255, np.asarray(square, np.float32))


def test_hps_pads_where_clip_crops(folders: dict[str, Path]) -> None:
    tall = tiny_models.image(5, width=20, height=60)
    one, other = (load_scorer(str(folders[k])).score([tall], ["a"]).values[0] for k in ("hpsv2.1", "clip-score"))
    assert one != pytest.approx(other, abs=1e-6)


def test_half_precision_weights_are_computed_in_single(tmp_path: Path) -> None:
    folder = tiny_models.clip(tmp_path / "half", half=True)
    assert load_file(folder / "model.safetensors")["logit_scale"].dtype == torch.float16
    model = load_towers(resolve(str(folder)), compute("float32")).model
    assert {each.dtype for each in model.parameters()} == {torch.float32}


def test_an_end_token_that_the_tokenizer_does_not_know_is_refused(tmp_path: Path) -> None:
    for end in (49407, 2):
        with pytest.raises(ModelError, match=f"eos_token_id {end}, but its tokenizer ends texts with 3"):
            load_scorer(str(tiny_models.clip(tmp_path, end=end)))


def test_missing_weights_are_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(folders["clip-score"], folder)
    weights = load_file(folder / "model.safetensors")
    del weights["text_projection.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks 1 of its model's weights, such as text_projection\.weight"):
        load_scorer(str(folder))


def test_a_score_that_is_not_finite_names_its_row(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(folders["pickscore"], folder)
    weights = load_file(folder / "model.safetensors")
    weights["logit_scale"] = torch.tensor(1e4)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"row 0 \(prompt 'a cat'\)"):
        load_scorer(str(folder)).score([tiny_models.image(0)], ["a cat"])


def test_rows_must_match(folders: dict[str, Path]) -> None:
    with pytest.raises(ModelError, match="got 1 images and 2 prompts"):
        load_scorer(str(folders["clip-score"])).score([tiny_models.image(0)], ["a", "b"])


def test_a_folder_that_is_no_scorer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="not a scorer of images"):
        load_scorer(str(tiny_models.gpt2(tmp_path / "gpt2")))
    with pytest.raises(ModelError, match=r"has no readable config\.json"):
        load_scorer(str(tmp_path))
    (tmp_path / "scorer.json").write_text(json.dumps({"kind": "beauty"}))
    with pytest.raises(
        ModelError, match=r"names the kind 'beauty'; known: laion-aesthetic, blip-itm, clip-score, hpsv2\.1"
    ):
        load_scorer(str(tmp_path))
    (tmp_path / "scorer.json").write_text("{")
    with pytest.raises(ModelError, match="not valid JSON"):
        load_scorer(str(tmp_path))


def test_batch_size_must_be_positive(folders: dict[str, Path]) -> None:
    with pytest.raises(ModelError, match="batch_size must be at least 1"):
        load_scorer(str(folders["clip-score"]), batch_size=0)
