"""HPSv3, MPS and the aesthetic predictors against numbers of upstream's code on small weights.

How the numbers were made is in the README of ``tests/golden``'s folders ``hpsv3``, ``mps`` and ``aesthetic``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import CLIPConfig, Qwen2VLConfig

from semdpo.errors import ModelError
from semdpo.models.checkpoint import load_strictly
from semdpo.models.loading import no_weights
from semdpo.models.scorers import aesthetic, hpsv3, mps

GOLDEN = Path(__file__).parents[2] / "golden"  # not the shared fixtures of test_golden.py, which may be elsewhere


def _expected(name: str) -> Any:
    return json.loads((GOLDEN / name / "expected.json").read_text())


def _wanted(name: str, key: str) -> torch.Tensor:
    return torch.tensor(_expected(name)[key], dtype=torch.float64)


# ------------------------------------------------------------------------------------------------------------ MPS


@pytest.fixture(scope="module")
def of_mps() -> mps.MPSModel:
    sizes = _expected("mps")["config"]
    model = mps.MPSModel(CLIPConfig(**sizes["clip"]), sizes["layers"], sizes["heads"], sizes["head_size"])
    load_strictly(model, mps.to_parts(load_file(GOLDEN / "mps/state.safetensors")), "the fixture")
    return model.eval()


def _mps_scores(model: mps.MPSModel, dtype: torch.dtype) -> torch.Tensor:
    inputs = load_file(GOLDEN / "mps/inputs.safetensors")
    model = model.to(dtype)
    with torch.no_grad():
        condition = model.texts(inputs["condition_ids"])[0][0]
        return model(inputs["pixel_values"].to(dtype), inputs["input_ids"], condition)


def test_mps_gives_upstreams_scores(of_mps: mps.MPSModel) -> None:
    torch.testing.assert_close(_mps_scores(of_mps, torch.float32).double(), _wanted("mps", "scores"), rtol=0, atol=5e-5)
    torch.testing.assert_close(_mps_scores(of_mps, torch.float64), _wanted("mps", "scores"), rtol=0, atol=1e-9)


def test_the_threshold_of_upstreams_other_example_gives_other_scores(
    of_mps: mps.MPSModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mps, "NEAR", 0.01)
    scores = _mps_scores(of_mps, torch.float64)
    torch.testing.assert_close(scores, _wanted("mps", "scores_at_001"), rtol=0, atol=1e-9)
    assert (scores - _wanted("mps", "scores")).abs().max() > 1e-3


@pytest.mark.parametrize("trap", ["quick_gelu", "post-norm", "no positions", "half the heads"])
def test_mps_with_a_wrong_setting_gives_other_scores(trap: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = _expected("mps")["config"]
    if trap == "quick_gelu":
        sizes["clip"]["vision_config"]["hidden_act"] = "quick_gelu"
    model = mps.MPSModel(CLIPConfig(**sizes["clip"]), sizes["layers"], sizes["heads"], sizes["head_size"])
    load_strictly(model, mps.to_parts(load_file(GOLDEN / "mps/state.safetensors")), "the fixture")
    for layer in model.layers:
        if trap == "no positions":
            layer["reads_image"].rotary_emb.inv_freq.zero_()
        if trap == "half the heads":
            layer["reads_words"].heads = 1
    if trap == "post-norm":
        vision, norm = model.clip.vision_model, model.clip.vision_model.post_layernorm
        monkeypatch.setattr(vision.encoder, "forward", _normed(vision.encoder.forward, norm))
    if trap == "half the heads":
        with pytest.raises(RuntimeError):  # one head of keys is as wide as a query head
            _mps_scores(model.eval(), torch.float64)
        return
    assert (_mps_scores(model.eval(), torch.float64) - _wanted("mps", "scores")).abs().max() > 1e-3


def _normed(encode: Any, norm: Any) -> Any:
    def encoded(*given: Any, **named: Any) -> Any:
        output = encode(*given, **named)
        output.last_hidden_state = norm(output.last_hidden_state)
        return output

    return encoded


def test_the_full_size_of_mps() -> None:
    with no_weights():
        model = mps.MPSModel(CLIPConfig(**mps.CONFIG), **mps.SIZES)
    names = {name: tuple(weight.shape) for name, weight in model.state_dict().items()}
    assert names["layers.3.reads_image.fused_attn_ff_proj.weight"] == (1024 + 64 + 64 + 8192, 1024)
    assert names["layers.0.reads_words.to_kv.weight"] == (128, 1024)
    small = mps.to_parts(load_file(GOLDEN / "mps/state.safetensors"))
    pattern = {name for name in names if "layers.0." in name or "layers" not in name}
    assert pattern == {name for name in small if "layers.0." in name or "layers" not in name}


# ---------------------------------------------------------------------------------------------------------- HPSv3


@pytest.fixture(scope="module")
def of_hpsv3() -> hpsv3.HPSv3Model:
    expected = _expected("hpsv3")
    model = hpsv3.HPSv3Model(Qwen2VLConfig(**expected["config"]), expected["reward_token"])
    load_strictly(model, hpsv3.to_parts(load_file(GOLDEN / "hpsv3/state.safetensors")), "the fixture")
    return model.eval()


def _outputs(model: hpsv3.HPSv3Model, dtype: torch.dtype, **changes: torch.Tensor) -> torch.Tensor:
    inputs = load_file(GOLDEN / "hpsv3/inputs.safetensors") | changes
    inputs["pixel_values"] = inputs["pixel_values"].to(dtype)
    with torch.no_grad():
        return model.to(dtype)(**inputs)


def test_hpsv3_gives_upstreams_outputs(of_hpsv3: hpsv3.HPSv3Model) -> None:
    for dtype, near in ((torch.float32, 5e-5), (torch.float64, 2e-6)):  # rotary angles stay in float32
        found = _outputs(of_hpsv3, dtype).double()
        torch.testing.assert_close(found, _wanted("hpsv3", "outputs"), rtol=0, atol=near)


def test_qwens_own_positions_of_an_image_give_other_outputs(of_hpsv3: hpsv3.HPSv3Model) -> None:
    inputs = load_file(GOLDEN / "hpsv3/inputs.safetensors")
    model = of_hpsv3.float()
    kinds = (inputs["input_ids"] == model.model.config.image_token_id).int()
    with torch.no_grad():
        hidden = model.model(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            pixel_values=inputs["pixel_values"].float(),
            image_grid_thw=inputs["image_grid_thw"],
            mm_token_type_ids=kinds,
        ).last_hidden_state
        other = model.rm_head(hidden[inputs["input_ids"] == model.reward_token])
    assert (other.double() - _wanted("hpsv3", "outputs")).abs().max() > 1e-3


@pytest.mark.parametrize("trap", ["another token", "no ReLU", "tanh GELU"])
def test_hpsv3_with_a_wrong_setting_gives_other_outputs(trap: str) -> None:
    expected = _expected("hpsv3")
    if trap == "tanh GELU":
        expected["config"]["vision_config"]["hidden_act"] = "gelu_pytorch_tanh"
    model = hpsv3.HPSv3Model(Qwen2VLConfig(**expected["config"]), expected["reward_token"])
    load_strictly(model, hpsv3.to_parts(load_file(GOLDEN / "hpsv3/state.safetensors")), "the fixture")
    if trap == "another token":
        model.reward_token = 3  # the last one of a row
    if trap == "no ReLU":
        model.rm_head[1] = torch.nn.Identity()
    assert (_outputs(model.eval(), torch.float64) - _wanted("hpsv3", "outputs")).abs().max() > 1e-3


def test_names_of_old_and_new_transformers_are_read() -> None:
    old = load_file(GOLDEN / "hpsv3/state.safetensors")
    new = {}
    for name, value in old.items():
        head, _, rest = name.partition(".")
        at = {"visual": "model.visual.", "model": "model.language_model."}.get(head, f"{head}.")
        new[f"{at}{rest}"] = value
    assert set(new) != set(old)
    assert hpsv3.to_parts(new).keys() == hpsv3.to_parts(old).keys()


def test_the_full_size_of_hpsv3() -> None:
    with no_weights():
        model = hpsv3.HPSv3Model(Qwen2VLConfig(**hpsv3.CONFIG), 151_657)
    shapes = {name: tuple(weight.shape) for name, weight in model.state_dict().items()}
    assert shapes["model.language_model.embed_tokens.weight"] == (151_658, 3584)
    assert shapes["model.visual.merger.mlp.2.weight"] == (3584, 5120)
    assert shapes["rm_head.5.weight"] == (2, 16)
    # Qwen2-VL-7B-Instruct has 8,291,375,616 parameters, with 152,064 tokens in two tables.
    head = 3584 * 1024 + 1024 + 1024 * 16 + 16 + 16 * 2 + 2
    wanted = 8_291_375_616 - 152_064 * 3584 - (152_064 - 151_658) * 3584 + head
    assert sum(weight.numel() for weight in model.parameters()) == wanted


# ------------------------------------------------------------------------------------------------------- aesthetic


def _weight(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """The weights of the fixture: a formula of the name, because 150,000 numbers would be a large file."""
    places = np.arange(np.prod(shape)) + len(name) + sum(map(ord, name))
    scale = 3.0 / (shape[-1] ** 0.5 if len(shape) > 1 else 2)
    values = ((places * 0.6180339887498949) % 1 - 0.5) * scale
    return torch.tensor(values, dtype=torch.float32).reshape(shape)


@pytest.mark.parametrize(("file", "key"), [(aesthetic.SECOND[1], "second"), (aesthetic.FIRST[0], "first")])
def test_aesthetic_gives_upstreams_ratings(file: str, key: str, tmp_path: Path) -> None:
    empty: torch.nn.Module = torch.nn.Linear(16, 1) if key == "first" else aesthetic.second_head(16)
    before = "" if key == "first" else "layers."
    state = {before + name: _weight(before + name, tuple(w.shape)) for name, w in empty.state_dict().items()}
    torch.save(state, tmp_path / file)
    head = aesthetic.load_head(tmp_path / file, 16)
    vectors = torch.nn.functional.normalize(_wanted("aesthetic", "embeddings"), dim=-1)
    with torch.no_grad():
        single, double = head(vectors.float()).squeeze(-1), head.double()(vectors).squeeze(-1)
    torch.testing.assert_close(single.double(), _wanted("aesthetic", key), rtol=0, atol=5e-6)
    torch.testing.assert_close(double, _wanted("aesthetic", key), rtol=0, atol=1e-10)
    with torch.no_grad():
        longer = head(2 * vectors).squeeze(-1)
    assert (longer - _wanted("aesthetic", key)).abs().max() > 1e-3, "vectors must have unit length"


def test_the_published_heads_have_these_names_and_shapes(tmp_path: Path) -> None:
    for file, shapes in _expected("aesthetic")["published_shapes"].items():
        torch.save({name: torch.zeros(shape) for name, shape in shapes.items()}, tmp_path / file)
        aesthetic.load_head(tmp_path / file, 768)
        with pytest.raises(ModelError, match=r"of another shape: 0?\.?weight \(.*, 768\) instead of \(.*, 512\)"):
            aesthetic.load_head(tmp_path / file, 512)
