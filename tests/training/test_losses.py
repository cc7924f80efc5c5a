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
from semdpo.training.losses import losses_of
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
    rows = losses_of([pairs], str(policy), str(reference), 0.3, CONFIG, tmp_path)(pairs, silent)
    assert [(row.pair_id, row.distance) for row in rows] == [("1", 0.2), ("2", 0.7)]
    for row, pair in zip(rows, pairs, strict=True):
        gains = [_logp(policy, pair.prompt, t) - _logp(reference, pair.prompt, t) for t in (pair.chosen, pair.rejected)]
        assert row.loss == pytest.approx(math.log1p(math.exp(-0.3 * (gains[0] - gains[1]))), abs=1e-4)
    assert len({round(row.loss, 4) for row in rows} | {round(math.log(2), 4)}) == 3


def test_an_untrained_policy_loses_ln_2(models: tuple[Path, Path], tmp_path: Path) -> None:
    pair = Pair("1", "a red cat", "a cat, art", "dog", 1.0, 0.0, 0.2)
    [row] = losses_of([[pair]], str(models[0]), str(models[0]), 0.05, CONFIG, tmp_path)([pair], silent)
    assert row.loss == pytest.approx(math.log(2), abs=1e-6)


def test_a_pair_without_distance_is_named(models: tuple[Path, Path], tmp_path: Path) -> None:
    pair = Pair("unweighed", "a red cat", "a cat, art", "dog", 1.0, 0.0)
    with pytest.raises(DataError, match="pair unweighed has distance None"):
        losses_of([[pair]], str(models[0]), str(models[0]), 0.05, CONFIG, tmp_path)([pair], silent)


def _many() -> list[Pair]:
    texts = [(f"a red cat {k}", f"a cat{', art' * (k % 4)}", f"dog {k}") for k in range(20)]
    return [Pair(str(k), *each, 1.0, 0.0, k / 40) for k, each in enumerate(texts)]


def test_parts_have_the_losses_of_the_whole(models: tuple[Path, Path], tmp_path: Path) -> None:
    reference, policy = map(str, models)
    pairs = _many()
    parts = [pairs[:7], pairs[7:8], pairs[8:]]
    whole = losses_of([pairs], policy, reference, 0.3, CONFIG, tmp_path)(pairs, silent)
    of_part = losses_of(iter(parts), policy, reference, 0.3, CONFIG, tmp_path)
    found = [row for part in parts for row in of_part(part, silent)]
    assert [row.pair_id for row in found] == [row.pair_id for row in whole]
    assert [row.loss for row in found] == pytest.approx([row.loss for row in whole], abs=1e-5)
    assert of_part(parts[1], silent) == [found[7]], "a part's losses do not depend on what was computed before"


def test_a_cache_is_read_once_and_not_written(
    models: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference, policy = map(str, models)
    pairs, read, known = _many(), list[Path](), dict[str, float]()
    monkeypatch.setattr("semdpo.training.losses.read_cache", lambda file: read.append(file) or known)
    of_part = losses_of([pairs], policy, reference, 0.3, CONFIG, tmp_path)
    before = [row for part in (pairs[:10], pairs[10:]) for row in of_part(part, silent)]
    assert len(known) == 40, "both sides of twenty pairs"
    first = min(known)
    known[first] += 100.0  # what is known is not computed again
    after = of_part(pairs, silent)
    assert sum(abs(row.loss - was.loss) > 0.5 for row, was in zip(after, before, strict=True)) == 1
    assert len(read) == 1
    assert list(tmp_path.iterdir()) == []
