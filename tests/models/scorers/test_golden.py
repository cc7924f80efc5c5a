"""ImageReward and HPSv2.1 against numbers of upstream's code, and against their full-size names and shapes."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import BlipTextConfig, BlipVisionConfig, CLIPConfig, CLIPModel

from semdpo.errors import ModelError
from semdpo.models.checkpoint import load_strictly
from semdpo.models.loading import no_weights
from semdpo.models.scorers import hps, image_reward
from semdpo.models.scorers.image_reward import ImageRewardModel

GOLDEN = Path(os.environ.get("SEMDPO_GOLDEN") or Path(__file__).parents[2] / "golden")
Settings = dict[str, Any]


def _json(name: str) -> Any:
    return json.loads((GOLDEN / name).read_text())


# ---------------------------------------------------------------------------------------------------- ImageReward


def _reward_settings() -> Settings:
    """The fixture's sizes in transformers' words."""
    known = _json("imagereward/config.json")
    vision, text = known["vision"], known["text"]
    return {
        "vision": {
            "hidden_size": vision["width"],
            "intermediate_size": vision["width"] * vision["mlp_ratio"],
            "num_hidden_layers": vision["depth"],
            "num_attention_heads": vision["heads"],
            "image_size": known["image_size"],
            "patch_size": known["patch_size"],
            "hidden_act": vision["act"],
            "layer_norm_eps": vision["layer_norm_eps"],
        },
        "text": {
            "vocab_size": text["vocab_size"],
            "hidden_size": text["hidden_size"],
            "encoder_hidden_size": text["encoder_width"],
            "intermediate_size": text["intermediate_size"],
            "num_hidden_layers": text["layers"],
            "num_attention_heads": text["heads"],
            "max_position_embeddings": text["max_position_embeddings"],
            "hidden_act": text["act"],
            "layer_norm_eps": text["layer_norm_eps"],
            "is_decoder": True,
            "pad_token_id": text["pad_token_id"],
        },
        "head": tuple(known["mlp"]["widths"]),
        "mean": known["score_mean"],
        "std": known["score_std"],
    }


def _reward(settings: Settings) -> ImageRewardModel:
    model = ImageRewardModel(
        BlipVisionConfig(**settings["vision"]),
        BlipTextConfig(**settings["text"]),
        settings["head"],
        settings["mean"],
        settings["std"],
    )
    state = load_file(GOLDEN / "imagereward/state.safetensors")
    load_strictly(model, image_reward.to_parts(state), "the fixture")
    return model.eval()


def _rewards(model: ImageRewardModel, dtype: torch.dtype, **changes: torch.Tensor) -> torch.Tensor:
    inputs = load_file(GOLDEN / "imagereward/inputs.safetensors") | changes
    with torch.no_grad():
        return model.to(dtype)(inputs["pixel_values"].to(dtype), inputs["input_ids"], inputs["attention_mask"])


def _wanted(name: str) -> torch.Tensor:
    return torch.tensor(_json("imagereward/expected.json")[name], dtype=torch.float64)


def test_imagereward_gives_upstreams_scores() -> None:
    model = _reward(_reward_settings())
    torch.testing.assert_close(_rewards(model, torch.float32).double(), _wanted("scores"), rtol=0, atol=5e-5)
    torch.testing.assert_close(_rewards(model, torch.float64), _wanted("scores"), rtol=0, atol=1e-9)


def _set(part: str, **values: Any) -> Callable[[Settings], None]:
    return lambda settings: settings[part].update(values)


@pytest.mark.parametrize(
    "trap",
    [
        _set("text", num_attention_heads=8),  # transformers' default
        _set("text", num_attention_heads=12),
        _set("vision", num_attention_heads=8),
        _set("vision", layer_norm_eps=1e-5),  # transformers' default
        _set("text", layer_norm_eps=1e-6),
        _set("vision", hidden_act="quick_gelu"),
        _set("text", hidden_act="quick_gelu"),
        _set("vision", hidden_act="gelu_pytorch_tanh"),
        _set("text", hidden_act="gelu_pytorch_tanh"),
        lambda settings: settings.update(mean=0.0),
        lambda settings: settings.update(std=1.0),
    ],
)
def test_imagereward_with_a_wrong_setting_gives_other_scores(trap: Callable[[Settings], None]) -> None:
    settings = copy.deepcopy(_reward_settings())
    trap(settings)
    off = (_rewards(_reward(settings), torch.float64) - _wanted("scores")).abs().max()
    assert off > 1e-4


def test_imagereward_without_the_padding_mask_or_with_pooled_vision_gives_other_scores() -> None:
    model = _reward(_reward_settings())
    mask = torch.ones_like(load_file(GOLDEN / "imagereward/inputs.safetensors")["attention_mask"])
    assert (_rewards(model, torch.float64, attention_mask=mask) - _wanted("scores")).abs().max() > 1e-2
    model.mlp.insert(1, torch.nn.ReLU())
    assert (_rewards(model, torch.float64) - _wanted("scores")).abs().max() > 1e-1


def test_full_size_imagereward_has_upstreams_names_and_shapes() -> None:
    shapes = _json("imagereward/full_keys.json")
    state = image_reward.to_parts({name: torch.empty(shape, device="meta") for name, shape in shapes.items()})
    assert len(shapes) == 625
    with no_weights():
        model = image_reward.published()
    assert {name: tuple(each.shape) for name, each in model.state_dict().items()} == {
        name: tuple(each.shape) for name, each in state.items()
    }
    assert len(state) + len(image_reward.UNUSED) == len(shapes)


# -------------------------------------------------------------------------------------------------------- HPSv2.1


def _hps_settings() -> Settings:
    known = _json("hpsv2/config.json")
    vision, text = known["vision"], known["text"]
    return {
        "projection_dim": known["embed_dim"],
        "text_config": {
            "vocab_size": text["vocab_size"],
            "hidden_size": text["width"],
            "intermediate_size": text["width"] * text["mlp_ratio"],
            "projection_dim": known["embed_dim"],
            "num_hidden_layers": text["layers"],
            "num_attention_heads": text["heads"],
            "max_position_embeddings": text["context_length"],
            "hidden_act": known["act"],
            "layer_norm_eps": text["layer_norm_eps"],
            "bos_token_id": text["sot_token_id"],
            "eos_token_id": text["eot_token_id"],
            "pad_token_id": text["pad_token_id"],
        },
        "vision_config": {
            "hidden_size": vision["width"],
            "intermediate_size": vision["width"] * vision["mlp_ratio"],
            "projection_dim": known["embed_dim"],
            "num_hidden_layers": vision["layers"],
            "num_attention_heads": vision["heads"],
            "image_size": vision["image_size"],
            "patch_size": vision["patch_size"],
            "hidden_act": known["act"],
            "layer_norm_eps": vision["layer_norm_eps"],
        },
    }


def _cosines(settings: Settings, dtype: torch.dtype) -> torch.Tensor:
    model = CLIPModel(CLIPConfig(**settings))
    load_strictly(model, hps.to_clip(load_file(GOLDEN / "hpsv2/state.safetensors")), "the fixture")
    model = model.to(dtype).eval()
    inputs = load_file(GOLDEN / "hpsv2/inputs.safetensors")
    with torch.no_grad():
        seen = model.get_image_features(inputs["pixel_values"].to(dtype)).pooler_output
        read = model.get_text_features(inputs["input_ids"]).pooler_output
    return torch.nn.functional.cosine_similarity(seen, read)


def test_hps_gives_upstreams_cosines() -> None:
    wanted = torch.tensor(_json("hpsv2/expected.json")["cosine"], dtype=torch.float64)
    settings = _hps_settings()
    torch.testing.assert_close(_cosines(settings, torch.float32).double(), wanted, rtol=0, atol=5e-6)
    torch.testing.assert_close(_cosines(settings, torch.float64), wanted, rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    "trap",
    [
        _set("vision_config", hidden_act="quick_gelu"),  # transformers' default
        _set("text_config", hidden_act="quick_gelu"),
        _set("text_config", hidden_act="gelu_pytorch_tanh"),
        _set("vision_config", layer_norm_eps=1e-6),
        _set("vision_config", num_attention_heads=8),
        _set("text_config", num_attention_heads=8),
        _set("text_config", eos_token_id=49407),  # transformers' default: it then pools the first token
    ],
)
def test_hps_with_a_wrong_setting_gives_other_cosines(trap: Callable[[Settings], None]) -> None:
    settings = copy.deepcopy(_hps_settings())
    trap(settings)
    wanted = torch.tensor(_json("hpsv2/expected.json")["cosine"], dtype=torch.float64)
    assert (_cosines(settings, torch.float64) - wanted).abs().max() > 2e-5


def test_full_size_hps_has_upstreams_names_and_shapes() -> None:
    shapes = _json("hpsv2/full_keys.json")
    state = hps.to_clip({name: torch.empty(shape, device="meta") for name, shape in shapes.items()})
    with no_weights():
        model = CLIPModel(CLIPConfig(**hps.CONFIG))
    wanted = {name: tuple(each.shape) for name, each in model.state_dict().items()}
    assert {name: tuple(each.shape) for name, each in state.items()} == wanted
    assert sum(each.numel() for each in model.parameters()) == 986_109_441


# --------------------------------------------------------------------------------------------------- strict names


def test_missing_unknown_and_misshaped_names_are_listed() -> None:
    model = torch.nn.Linear(2, 3)
    state = {"weight": torch.zeros(2, 3), "blas": torch.zeros(3)}
    with pytest.raises(ModelError) as found:
        load_strictly(model, state, "some.pt")
    for told in ("'some.pt'", "1 missing: bias", "1 unknown: blas", "weight (2, 3) instead of (3, 2)"):
        assert told in str(found.value)


@pytest.mark.parametrize("scorer", ["imagereward", "hpsv2"])
def test_an_upstream_checkpoint_with_a_strange_name_is_refused(scorer: str) -> None:
    state = load_file(GOLDEN / scorer / "state.safetensors")
    extra = "mlp.layers.9.weight" if scorer == "imagereward" else "visual.transformer.resblocks.0.attn.qkv.weight"
    state[extra] = torch.zeros(1)
    with no_weights():
        if scorer == "imagereward":
            model: torch.nn.Module = image_reward.published()
        else:
            model = CLIPModel(CLIPConfig(**hps.CONFIG))
    renamed = image_reward.to_parts(state) if scorer == "imagereward" else hps.to_clip(state)
    with pytest.raises(ModelError, match=r"unknown: .*(mlp\.9\.weight|attn\.qkv\.weight)"):
        load_strictly(model, renamed, "strange.pt")
