from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import BlipTextConfig, BlipVisionConfig

from semdpo.errors import ModelError
from semdpo.models.scorers.image_reward import ImageRewardModel
from tests import tiny_models


@pytest.fixture
def model() -> ImageRewardModel:
    torch.manual_seed(0)
    return ImageRewardModel(
        tiny_models._blip_vision(), tiny_models._blip_text(), (32, 24, 16, 8, 4, 1), mean=0.25, std=2.0
    ).eval()


@pytest.fixture
def inputs() -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    mask = torch.ones(3, 9, dtype=torch.long)
    mask[1, 5:] = 0
    return {
        "pixel_values": torch.randn(3, 3, 32, 32),
        "input_ids": torch.randint(5, 60, (3, 9)),
        "attention_mask": mask,
    }


def test_the_head_has_upstreams_keys(model: ImageRewardModel) -> None:
    keys = {key for key in model.state_dict() if key.startswith("mlp.")}
    assert keys == {f"mlp.{i}.{kind}" for i in (0, 2, 4, 6, 7) for kind in ("weight", "bias")}


def test_saved_and_loaded_it_scores_the_same(
    model: ImageRewardModel, inputs: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    model.save_pretrained(tmp_path)
    again = ImageRewardModel.from_pretrained(tmp_path)
    assert not again.training
    with torch.no_grad():
        assert torch.equal(again(**inputs), model(**inputs))
    assert sorted(each.name for each in tmp_path.iterdir()) == ["config.json", "model.safetensors"]


def test_half_precision_is_loaded_in_single(model: ImageRewardModel, tmp_path: Path) -> None:
    model.half().save_pretrained(tmp_path)
    assert {each.dtype for each in ImageRewardModel.from_pretrained(tmp_path).parameters()} == {torch.float32}


def test_mean_and_std_normalise_the_score(model: ImageRewardModel, inputs: dict[str, torch.Tensor]) -> None:
    with torch.no_grad():
        normalised = model(**inputs)
        model.mean, model.std = 0.0, 1.0
        torch.testing.assert_close(normalised, (model(**inputs) - 0.25) / 2)


def test_the_first_word_sees_the_last(model: ImageRewardModel, inputs: dict[str, torch.Tensor]) -> None:
    changed = inputs | {"input_ids": inputs["input_ids"].clone()}
    changed["input_ids"][0, -1] += 1
    changed["input_ids"][1, -1] += 1  # padding: must not count
    with torch.no_grad():
        before, after = model(**inputs), model(**changed)
    assert before[0] != after[0]
    assert before[1] == after[1]


def test_the_text_sees_the_image(model: ImageRewardModel, inputs: dict[str, torch.Tensor]) -> None:
    with torch.no_grad():
        assert (model(**inputs) != model(**(inputs | {"pixel_values": inputs["pixel_values"].flip(0)})))[0]


def test_sizes_that_do_not_fit_are_refused() -> None:
    vision, text = tiny_models._blip_vision(), tiny_models._blip_text()
    with pytest.raises(ModelError, match="head_sizes must run from 32 to 1"):
        ImageRewardModel(vision, text, (16, 1))
    with pytest.raises(ModelError, match="must be the image tower's width 48"):
        ImageRewardModel(BlipVisionConfig(hidden_size=48), text, (32, 1))
    with pytest.raises(ModelError, match="is_decoder=True"):
        ImageRewardModel(vision, BlipTextConfig(is_decoder=False), (768, 1))
    with pytest.raises(ModelError, match="std must be positive"):
        ImageRewardModel(vision, text, (32, 1), std=0.0)


def test_a_folder_that_is_none_is_refused(model: ImageRewardModel, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="does not hold an ImageReward model"):
        ImageRewardModel.from_pretrained(tmp_path)
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"head_sizes": [32, 16, 8, 4, 1]}))
    with pytest.raises(ModelError, match="does not hold an ImageReward model"):
        ImageRewardModel.from_pretrained(tmp_path)
