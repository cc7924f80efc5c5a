"""Losses of pairs under a trained rewriter, against log-probabilities from transformers."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from semdpo.data.records import Pair
from semdpo.errors import DataError
from semdpo.progress import silent
from semdpo.recipe.objectives import DPOSettings
from semdpo.recipe.schema import TrainConfig
from semdpo.training.losses import pair_losses
from tests import tiny_models

CONFIG = TrainConfig(methods={"dpo": DPOSettings(name="dpo")}, precision="float32")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A reference, and a policy that is moved a little from it."""
    folder = tmp_path_factory.mktemp("models")
    reference, policy = tiny_models.gpt2(folder / "reference"), folder / "policy"
    shutil.copytree(reference, policy)
    model = AutoModelForCausalLM.from_pretrained(reference)
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.05 * torch.randn_like(weight)
    model.save_pretrained(policy)
    return reference, policy


def _logp(folder: Path, prompt: str, text: str) -> float:
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    read = tokenizer(f"{prompt} Rephrase:")["input_ids"]
    learnt = [*tokenizer(f" {text}", add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    with torch.no_grad():
        logits = model(torch.tensor([read + learnt])).logits[0, len(read) - 1 : -1].log_softmax(-1)
    return float(logits[torch.arange(len(learnt)), learnt].sum())


def test_a_loss_is_the_papers_formula(models: tuple[Path, Path], tmp_path: Path) -> None:
    reference, policy = models
    pairs = [
        Pair("1", "a red cat", "a cat, art", "dog", 1.0, 0.0, 0.2),
        Pair("2", "a dog", "a blue dog", "a cat", 1.0, 0.0, 0.7),
    ]
    rows = pair_losses(pairs, str(policy), str(reference), 0.3, CONFIG, tmp_path, silent)
    assert [(row.pair_id, row.distance) for row in rows] == [("1", 0.2), ("2", 0.7)]
    for row, pair in zip(rows, pairs, strict=True):
        gains = [_logp(policy, pair.prompt, t) - _logp(reference, pair.prompt, t) for t in (pair.chosen, pair.rejected)]
        assert row.loss == pytest.approx(math.log1p(math.exp(-0.3 * (gains[0] - gains[1]))), abs=1e-4)
    assert len({round(row.loss, 4) for row in rows} | {round(math.log(2), 4)}) == 3


def test_an_untrained_policy_loses_ln_2(models: tuple[Path, Path], tmp_path: Path) -> None:
    pair = Pair("1", "a red cat", "a cat, art", "dog", 1.0, 0.0, 0.2)
    [row] = pair_losses([pair], str(models[0]), str(models[0]), 0.05, CONFIG, tmp_path, silent)
    assert row.loss == pytest.approx(math.log(2), abs=1e-6)


def test_a_pair_without_distance_is_named(models: tuple[Path, Path], tmp_path: Path) -> None:
    pair = Pair("unweighed", "a red cat", "a cat, art", "dog", 1.0, 0.0)
    with pytest.raises(DataError, match="pair unweighed has distance None"):
        pair_losses([pair], str(models[0]), str(models[0]), 0.05, CONFIG, tmp_path, silent)
