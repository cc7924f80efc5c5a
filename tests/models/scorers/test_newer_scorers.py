"""HPSv3, MPS, UnifiedReward and the aesthetic predictors, loaded from tiny random models of the real classes."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText, CLIPModel, Qwen2VLConfig, Qwen2VLModel
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from semdpo.engine import fingerprint
from semdpo.engine.providers import refuse_blind_fidelity
from semdpo.errors import DataError, ModelError
from semdpo.models.catalogue import PUBLISHED
from semdpo.models.device import Compute, moved
from semdpo.models.pickled_module import read_module
from semdpo.models.registry import reads_prompt, resolve
from semdpo.models.scorers import aesthetic, hpsv3, mps, unified_reward
from semdpo.models.scorers.registry import _kind, load_scorer
from semdpo.protocols import UnscoredError
from semdpo.recipe.load import load_recipe
from tests import tiny_models, tiny_preferences

PROMPTS = ["a red ball", "two cats on a very old and very red sofa", ""]
LONG = "a very long prompt " * 8

BUILDERS: dict[str, Callable[[Path], Path]] = {
    "laion-aesthetic": tiny_preferences.laion,
    "mps": tiny_preferences.mps_folder,
    "hpsv3": tiny_preferences.hpsv3_folder,
    "unified-reward": tiny_preferences.unified,
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {kind: build(tmp_path_factory.mktemp("newer") / "model") for kind, build in BUILDERS.items()}


@pytest.fixture(scope="module")
def images() -> list[Image.Image]:
    return [tiny_models.image(seed, *size) for seed, size in enumerate([(64, 64), (90, 50), (48, 80)])]


@pytest.mark.parametrize("kind", BUILDERS)
def test_a_score_does_not_depend_on_its_neighbours(
    kind: str, folders: dict[str, Path], images: list[Image.Image], capfd: pytest.CaptureFixture[str]
) -> None:
    assert _kind(resolve(str(folders[kind]))).kind == kind
    scorer = load_scorer(str(folders[kind]), batch_size=3)
    found = scorer.score(images, PROMPTS)
    assert np.isfinite(found.values).all()
    assert not found.truncated.any()
    if kind != "unified-reward":
        assert np.ptp(found.values) > 1e-3
    alone = [scorer.score([image], [prompt]).values[0] for image, prompt in zip(images, PROMPTS, strict=True)]
    np.testing.assert_allclose(found.values, alone, atol=2e-5)
    turned = scorer.score([images[2], images[0]], [PROMPTS[2], PROMPTS[0]]).values
    np.testing.assert_allclose(turned, [found.values[2], found.values[0]], atol=2e-5)
    assert scorer.score([], []).values.shape == (0,)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("kind", BUILDERS)
def test_every_prompt_is_read_or_flagged(kind: str, folders: dict[str, Path], images: list[Image.Image]) -> None:
    found = load_scorer(str(folders[kind])).score([images[0]] * 2, [LONG, LONG + "of a house"])
    assert found.truncated.tolist() == [kind == "mps"] * 2
    if kind == "hpsv3":
        assert abs(found.values[0] - found.values[1]) > 1e-6
    elif kind != "unified-reward":
        assert found.values[0] == pytest.approx(found.values[1], abs=1e-6)


@pytest.mark.parametrize("kind", ["hpsv3", "unified-reward"])
def test_control_tokens_in_a_prompt_are_refused(kind: str, folders: dict[str, Path]) -> None:
    scorer = load_scorer(str(folders[kind]))
    specials = ["<|im_end|>", "<|image_pad|>", *([hpsv3.REWARD] if kind == "hpsv3" else [])]
    for special in specials:
        with pytest.raises(DataError, match="takes for a control token"):
            scorer.score([tiny_models.image(1)], [f"a cat {special} dog"])


def test_a_special_token_in_a_prompt_is_text_for_mps(folders: dict[str, Path]) -> None:
    scorer, image = load_scorer(str(folders["mps"])), tiny_models.image(1)
    special = "<|endoftext|>"
    found = scorer.score([image] * 3, [f"a {special} cat", f"a {special} dog", f"a {special.swapcase()} cat"]).values
    assert found[0] == pytest.approx(found[2], abs=1e-6)
    assert abs(found[0] - found[1]) > 1e-6


# --------------------------------------------------------------------------------------------------- half precision

HALF = Compute(torch.device("cpu"), torch.bfloat16)


def test_hpsv3_in_half_precision_keeps_its_head_and_its_constants(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    place, load, loaded = resolve(str(folders["hpsv3"])), hpsv3.load_hpsv3, list[hpsv3.HPSv3Model]()

    def kept(folder: Path, token: int) -> hpsv3.HPSv3Model:
        loaded.append(load(folder, token))
        return loaded[0]

    monkeypatch.setattr(hpsv3, "load_hpsv3", kept)
    hpsv3.hpsv3(place, HALF)
    half, whole = loaded[0], load(place.folder(), loaded[0].reward_token)
    assert {weight.dtype for weight in half.model.parameters()} == {torch.bfloat16}
    for part in ("rm_head.", "model.language_model.rotary_emb.", "model.visual.rotary_pos_emb."):
        wanted = {
            name: value for name, value in (*whole.named_parameters(), *whole.named_buffers()) if name.startswith(part)
        }
        assert wanted, part
        found = dict((*half.named_parameters(), *half.named_buffers()))
        for name, value in wanted.items():
            torch.testing.assert_close(found[name], value, rtol=0, atol=0)


def test_mps_in_half_precision_turns_by_exact_angles() -> None:
    layer, values = mps._ReadsImage(8, 2, 8), torch.ones(1, 257, 2, 8)  # CLIP-H has 257 places
    exact = layer._turned(values)
    half = moved(layer, HALF)._turned(values.bfloat16())
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), exact, rtol=0, atol=0.03)


# -------------------------------------------------------------------------------------------------------- aesthetic


@pytest.mark.parametrize("file", [*aesthetic.SECOND, *aesthetic.FIRST])
def test_an_aesthetic_rating_is_the_heads_of_clips_unit_vector(file: str, tmp_path: Path) -> None:
    folder, image = tiny_preferences.laion(tmp_path / "model", file), tiny_models.image(5)
    values = np.asarray(image, np.float32) / 255
    mean, std = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
    pixels = torch.tensor(((values - mean) / std).transpose(2, 0, 1), dtype=torch.float32)[None]
    with torch.no_grad():
        vector = CLIPModel.from_pretrained(folder).eval().get_image_features(pixels).pooler_output[0]
        rating = vector / vector.norm()
        state = list(torch.load(folder / file).values())
        for weight, bias in zip(state[::2], state[1::2], strict=True):
            rating = weight @ rating + bias
    found = load_scorer(str(folder)).score([image, image], ["a cat", "something else"]).values
    np.testing.assert_allclose(found, [rating.item()] * 2, atol=1e-5)


def test_what_does_not_read_the_prompt_is_no_fidelity(folders: dict[str, Path]) -> None:
    folder = str(folders["laion-aesthetic"])
    assert not load_scorer(folder).reads_prompt
    assert load_scorer(str(folders["mps"])).reads_prompt
    for name in ("laion-aesthetic", "trl-lib/ddpo-aesthetic-predictor", folder):
        assert not reads_prompt(name)
        with pytest.raises(ModelError, match=r"label\.fidelity: .* does not read the prompt"):
            refuse_blind_fidelity(load_recipe("tiny", [f"label.fidelity={name}"]))
    tiny = load_recipe("tiny")
    looks = "evaluate.metrics.looks=laion-aesthetic"
    preferred, shown = [*tiny.report.preference, "looks"], [*tiny.report.fidelity, "looks"]
    refuse_blind_fidelity(load_recipe("tiny", [looks, f"report.preference=[{','.join(preferred)}]"]))
    with pytest.raises(ModelError, match=r"report\.fidelity looks: 'laion-aesthetic'"):
        refuse_blind_fidelity(load_recipe("tiny", [looks, f"report.fidelity=[{','.join(shown)}]"]))


def test_a_head_and_its_base_are_one_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEMDPO_MODELS", str(tmp_path))
    whole = tiny_preferences.laion(tmp_path / "whole")
    (tmp_path / "laion-aesthetic").mkdir()
    shutil.move(whole / aesthetic.SECOND[0], tmp_path / "laion-aesthetic")
    whole.rename(tmp_path / "clip-vit-large-patch14")
    place = resolve("laion-aesthetic")
    assert place.separate_base() == "clip-vit-large-patch14"
    before = fingerprint.model("laion-aesthetic")
    rating = load_scorer("laion-aesthetic").score([tiny_models.image(1)], [""]).values[0]
    shutil.rmtree(tmp_path / "clip-vit-large-patch14")
    tiny_models.clip(tmp_path / "clip-vit-large-patch14", seed=9)
    assert fingerprint.model("laion-aesthetic") != before
    assert load_scorer("laion-aesthetic").score([tiny_models.image(1)], [""]).values[0] != rating
    # the same file in a folder of the user's own
    assert resolve(str(tmp_path / "laion-aesthetic")).separate_base() == "clip-vit-large-patch14"


def test_two_predictors_in_one_folder_are_refused(tmp_path: Path) -> None:
    folder = tiny_preferences.laion(tmp_path / "model")
    shutil.copy(folder / aesthetic.SECOND[0], folder / aesthetic.SECOND[2])
    with pytest.raises(ModelError, match=r"must hold one aesthetic predictor and has aesthetic-model\.pth, ava\+logos"):
        load_scorer(str(folder))


# -------------------------------------------------------------------------------------------------------------- MPS


class Thief:
    """Runs code where the usual reader of pickles reads it."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def test_a_pickled_module_is_read_without_running_its_code(
    folders: dict[str, Path], images: list[Image.Image], tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(folders["mps"], folder)
    state = load_file(folder / mps.CHECKPOINTS[0])
    whole = torch.nn.Module()  # the tree of modules that the published file is
    for name, value in state.items():
        *path, last = name.split(".")
        inner = whole
        for part in path:
            if not hasattr(inner, part):
                inner.add_module(part, torch.nn.Module())
            inner = getattr(inner, part)
        inner.register_parameter(last, torch.nn.Parameter(value)) if last != "bias" else inner.register_buffer(
            last, value
        )
    whole.note = Thief(shutil.copy, str(folder / "config.json"), str(tmp_path / "stolen"))
    whole.config = Qwen2VLConfig  # classes of other libraries, by name
    torch.save(whole, folder / mps.PICKLED)
    shutil.rmtree(folder / "MPS_overall_checkpoint")
    weights = read_module(folder / mps.PICKLED)
    assert weights.keys() == state.keys()
    assert all(torch.equal(weights[name], state[name]) for name in state)
    assert not (tmp_path / "stolen").exists()
    one, other = (load_scorer(str(place)).score(images, PROMPTS).values for place in (folder, folders["mps"]))
    np.testing.assert_array_equal(one, other)
    for call in ((os.mkdir, str(tmp_path / "stolen")), (Path.touch, tmp_path / "stolen")):
        whole.note = Thief(*call)
        torch.save(whole, folder / mps.PICKLED)
        with pytest.raises(ModelError, match="is not a readable checkpoint of a model"):
            read_module(folder / mps.PICKLED)
        assert not (tmp_path / "stolen").exists()
    torch.save({"a": 1}, folder / mps.PICKLED)
    with pytest.raises(ModelError, match="does not hold a whole model"):
        load_scorer(str(folder))
    (folder / mps.PICKLED).write_bytes(b"PK\x03\x04broken")
    with pytest.raises(ModelError, match=r"\(10 bytes\) is not a readable checkpoint"):
        load_scorer(str(folder))


@pytest.mark.parametrize(("kind", "file"), [("mps", mps.CHECKPOINTS[0]), ("hpsv3", hpsv3.CHECKPOINT)])
def test_a_checkpoint_that_does_not_fit_is_refused_by_name(
    kind: str, file: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(folders[kind], folder)
    state = load_file(folder / file)
    name = next(name for name in state if name.endswith("to_q.weight" if kind == "mps" else "rm_head.3.weight"))
    state["another"] = state.pop(name)
    save_file(state, folder / file)
    with pytest.raises(ModelError, match=r"1 missing: \S+weight; 1 unknown: another; give the published file"):
        load_scorer(str(folder))


# ------------------------------------------------------------------------------------------------------------ HPSv3


def test_hpsv3_reads_upstreams_text_and_size(folders: dict[str, Path], images: list[Image.Image]) -> None:
    """The inputs by hand, and transformers' own model, told to number the image's tokens like words."""
    folder = folders["hpsv3"]
    tokenizer = tiny_preferences.qwen_tokenizer()
    reward = len(tokenizer)
    processor = Qwen2VLImageProcessorPil(size={"shortest_edge": 200_704, "longest_edge": 200_704})
    seen = processor(images=images[1], return_tensors="pt")
    count = int(seen["image_grid_thw"].prod()) // 4
    text = (
        "<|im_start|>user\n<|vision_start|>" + "<|image_pad|>" * count + "<|vision_end|>"
        + hpsv3.question("a cat").partition(hpsv3.REWARD)[0]
    )  # fmt: skip
    ids = torch.tensor([[*tokenizer(text)["input_ids"], reward]])
    model = Qwen2VLModel(Qwen2VLConfig.from_pretrained(folder)).eval()
    state = hpsv3.to_parts(load_file(folder / hpsv3.CHECKPOINT))
    model.load_state_dict({name.removeprefix("model."): v for name, v in state.items() if name.startswith("model.")})
    with torch.no_grad():
        hidden = model(
            input_ids=ids, position_ids=torch.arange(ids.shape[1]).expand(3, 1, -1), use_cache=False, **seen
        ).last_hidden_state[0, -1]
        for layer in ("0", "3", "5"):
            hidden = state[f"rm_head.{layer}.weight"] @ hidden + state[f"rm_head.{layer}.bias"]
            hidden = hidden if layer == "5" else hidden.relu()
    found = load_scorer(str(folder)).score([images[1]], ["a cat"]).values[0]
    assert found == pytest.approx(hidden[0].item(), abs=1e-5)


def test_an_image_that_qwen_does_not_read_is_named(folders: dict[str, Path]) -> None:
    with pytest.raises(DataError, match="reads no image of 804 x 4 pixels"):
        load_scorer(str(folders["hpsv3"])).score([tiny_models.image(0, 804, 4)], ["a"])


def test_a_folder_without_a_chat_template_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(folders["hpsv3"], folder)
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(ModelError, match="has no chat template"):
        load_scorer(str(folder))
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": tiny_preferences.TEMPLATE}))
    assert load_scorer(str(folder)).score([], []).values.shape == (0,)


# ---------------------------------------------------------------------------------------------------- UnifiedReward


def _greedy(folder: Path, image: Image.Image, prompt: str, patch: int) -> str:
    """What the model writes, by whole passes over everything before each token."""
    model = AutoModelForImageTextToText.from_pretrained(folder).eval()
    tokenizer = tiny_preferences.qwen_tokenizer()
    size = {"shortest_edge": 4 * patch**2, "longest_edge": 64 * patch**2}
    seen = Qwen2VLImageProcessorPil(size=size, patch_size=patch)(images=image, return_tensors="pt")
    pads = "<|image_pad|>" * (int(seen["image_grid_thw"].prod()) // 4)
    question = unified_reward.INSTRUCTION.format(prompt)
    text = f"<|im_start|>user\n<|vision_start|>{pads}<|vision_end|>{question}<|im_end|>\n<|im_start|>assistant\n"
    ids = tokenizer(text)["input_ids"]
    start = len(ids)
    while len(ids) - start < 8 and (start == len(ids) or ids[-1] != tokenizer.eos_token_id):
        tokens = torch.tensor([ids])
        kinds = (tokens == model.config.image_token_id).int()
        with torch.no_grad():
            logits = model(input_ids=tokens, mm_token_type_ids=kinds, **seen).logits
        ids.append(int(logits[0, -1].argmax()))
    answer: str = tokenizer.decode(ids[start:], skip_special_tokens=True)
    return answer


@pytest.mark.parametrize(("family", "patch"), [("qwen2_5_vl", 14), ("qwen3_vl", 16)])
def test_unified_reward_is_the_score_that_the_model_writes(family: str, patch: int, tmp_path: Path) -> None:
    folder = tiny_preferences.unified(tmp_path / "model", family)
    images = tiny_preferences.unlike()
    found = load_scorer(str(folder)).score(images, ["a cat", "a cat"]).values
    assert found.tolist() == [4.5, 2.0]
    for value, image in zip(found, images, strict=True):
        assert _greedy(folder, image, "a cat", patch) == f"Final Score: {value:g}"


def test_an_answer_without_a_score_is_no_score(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unified_reward, "NEW_TOKENS", 5)
    scorer = load_scorer(str(tiny_preferences.unified(tmp_path / "model", answers=False)))
    with pytest.raises(UnscoredError, match="no 'Final Score:' in the answer"):
        scorer.score([tiny_models.image(0)], ["a cat"])


@pytest.mark.parametrize(
    ("answer", "score"),
    [
        ("cat (animal): 1\nFinal Score: 4", 4.0),
        ("Final Score:3.25", 3.25),
        ("**Final Score: 5**", 5.0),
        ("Final Score:\n 1", 1.0),
        ("Final Score: 4.5/5", 4.5),
        ("Final Score: 2.", 2.0),
        ("Final Score: 3\nFinal Score: 3", 3.0),
    ],
)
def test_a_score_is_read_as_upstream_reads_it(answer: str, score: float) -> None:
    assert unified_reward.final_score(answer) == score


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("a lovely cat", "no 'Final Score:'"),  # upstream: 0
        ("Final Score: good", "no 'Final Score:'"),  # upstream: 0
        ("Final Score: 0", "is not between 1 and 5"),  # upstream: 0
        ("Final Score: 10", "is not between 1 and 5"),  # upstream: 1
        ("Final Score: 5.5", "is not between 1 and 5"),  # upstream: 5.5
        ("Final Score: 4/10", "is not between 1 and 5"),  # upstream: 4
        ("Final Score: 2. Final Score: 3", "more than one 'Final Score:'"),  # upstream: 2
    ],
)
def test_what_is_no_score_is_never_a_number(answer: str, reason: str) -> None:
    with pytest.raises(UnscoredError, match=reason):
        unified_reward.final_score(answer)


def test_the_llava_release_of_unified_reward_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llava", "architectures": ["LlavaQwenForCausalLM"]}')
    (tmp_path / "scorer.json").write_text('{"kind": "unified-reward"}')
    with pytest.raises(ModelError, match=r"\(llava\) is not a UnifiedReward .* such as unified-reward-qwen-7b"):
        load_scorer(str(tmp_path))


# ------------------------------------------------------------------------------------------------------------ names


def test_a_repository_gives_the_same_kind_as_its_short_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its repository PickScore would be a plain CLIP, and UnifiedReward a model that answers yes or no."""
    monkeypatch.setenv("SEMDPO_MODELS", str(tmp_path))
    for short in ("pickscore", *unified_reward.NAMES):
        (tmp_path / short).mkdir()
        kinds = {_kind(resolve(name)).kind for name in (short, PUBLISHED[short].repository)}
        assert kinds == {"pickscore" if short == "pickscore" else "unified-reward"}
