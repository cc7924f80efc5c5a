"""What a training keeps belongs to the content of its model and its data, never to a name or a place."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, GPT2Tokenizer

from semdpo.data.records import Curve, Pair, content_id
from semdpo.engine import fingerprint
from semdpo.models.loading import quiet
from semdpo.models.rewriter import load_causal
from semdpo.progress import silent
from semdpo.recipe.objectives import DPOSettings
from semdpo.recipe.schema import TrainConfig
from semdpo.training import checkpoints
from semdpo.training.losses import losses_of
from semdpo.training.packing import Group
from semdpo.training.preference import train
from semdpo.training.reference import cache_file, reference_logps
from tests import tiny_models

DPO = DPOSettings(name="dpo")
TEXTS = [
    ("a red cat", "a red cat, art", "a dog"),
    ("a hut", "a hut at dusk", "a house"),
    ("a bee", "a bee, oil", "an ant"),
]
PAIRS = [Pair(content_id(*each), *each, 1.0, 0.0, 0.1) for each in TEXTS]
CONFIG = TrainConfig.model_validate(
    {"methods": {"dpo": DPO}, "precision": "float32", "epochs": 1, "batch_size": 3, "learning_rate": 1e-3}
)


def _large(folder: Path) -> Path:
    """12 MB, of which the first and the last belong to no MLP."""
    tiny_models.gpt2(folder)
    tokenizer = GPT2Tokenizer.from_pretrained(folder)
    torch.manual_seed(0)
    ends = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    config = GPT2Config(vocab_size=len(tokenizer), n_positions=128, n_embd=256, n_layer=4, n_head=4, **ends)
    GPT2LMHeadModel(config).save_pretrained(folder)
    return folder


def _retrain_mlps(folder: Path) -> None:
    """Other weights in every MLP; names, sizes and everything else in the folder stay."""
    model = GPT2LMHeadModel.from_pretrained(folder)
    torch.manual_seed(1)
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if ".mlp." in name:
                weights.add_(torch.randn_like(weights) * 0.1)
    model.save_pretrained(folder)


def _train(model: Path, output: Path, cache: Path, pairs: Sequence[Pair] = PAIRS) -> list[Curve]:
    return train(pairs, str(model), DPO, CONFIG, output, cache, silent)


def _first(curves: Sequence[Curve], name: str) -> float:
    return next(curve.value for curve in curves if curve.name == name and curve.step == 0)


def _starts_at_itself(curves: Sequence[Curve]) -> None:
    assert _first(curves, "loss") == pytest.approx(math.log(2), abs=1e-5)
    assert _first(curves, "chosen_logp_change") == pytest.approx(0, abs=1e-3)


def _card_hash(folder: Path) -> str:
    return next(line for line in (folder / "README.md").read_text().splitlines() if "starting model" in line)


@pytest.mark.parametrize("same_path", [False, True])
def test_another_models_reference_is_never_used(tmp_path: Path, same_path: bool) -> None:
    """trl#3985, #2423: two large models that differ in the middle, one after the other in one process."""
    first = _large(tmp_path / "a")
    _starts_at_itself(_train(first, tmp_path / "one", tmp_path / "cache"))
    second = first if same_path else Path(shutil.copytree(first, tmp_path / "b"))
    size = (first / "model.safetensors").stat().st_size
    _retrain_mlps(second)
    assert (second / "model.safetensors").stat().st_size == size > 12e6
    _starts_at_itself(_train(second, tmp_path / "two", tmp_path / "cache"))
    assert _card_hash(tmp_path / "one") != _card_hash(tmp_path / "two")
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_the_measured_losses_follow_their_reference(tmp_path: Path) -> None:
    model = tiny_models.gpt2(tmp_path / "model")
    shutil.copytree(model, tmp_path / "policy")
    _retrain_mlps(tmp_path / "policy")
    before = losses_of([PAIRS], str(tmp_path / "policy"), str(model), 0.1, CONFIG, tmp_path / "cache")(PAIRS, silent)
    _retrain_mlps(model)
    after = losses_of([PAIRS], str(tmp_path / "policy"), str(model), 0.1, CONFIG, tmp_path / "cache")(PAIRS, silent)
    assert max(abs(row.loss - math.log(2)) for row in before) > 1e-3
    assert [row.loss for row in after] == pytest.approx([math.log(2)] * 3, abs=1e-5)


def test_adapters_have_no_reference_of_another_base(tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    base = tiny_models.gpt2(tmp_path / "base")
    model, _ = load_causal(base)
    with quiet():
        get_peft_model(model, LoraConfig(r=2, fan_in_fan_out=True)).save_pretrained(tmp_path / "adapters")
    setting = (model, tiny_models.TEMPLATE, 96, "float32", False)
    before = cache_file(tmp_path, tmp_path / "adapters", *setting)
    _retrain_mlps(base)
    assert cache_file(tmp_path, tmp_path / "adapters", *setting) != before


def test_the_key_has_all_that_the_numbers_depend_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tiny_models.gpt2(tmp_path / "model")
    model, _ = load_causal(folder)

    def key(template: str = "{prompt}:", length: int = 96, precision: str = "float32", can_pack: bool = False) -> str:
        return cache_file(tmp_path, folder, model, template, length, precision, can_pack).name

    found = [key(), key("{prompt} ->"), key(length=97), key(precision="bfloat16"), key(can_pack=True)]
    model.set_attn_implementation("eager")
    found.append(key())
    model.to(torch.float64)
    found.append(key())
    monkeypatch.setattr("semdpo.engine.store.versions", lambda: {"torch": "another"})
    found.append(key())
    assert len(set(found)) == len(found)


def test_a_damaged_cache_is_computed_again(tmp_path: Path) -> None:
    model, _ = load_causal(tiny_models.gpt2(tmp_path / "model"))
    groups, cache = [Group((1, 2), ((3,), (4, 5)))], tmp_path / "cache" / "key.parquet"
    live = reference_logps(model, groups, False, cache)
    whole = cache.read_bytes()
    for damaged in (b"", b"nothing", whole[: len(whole) // 2]):
        cache.write_bytes(damaged)
        assert reference_logps(model, groups, False, cache) == live
        assert cache.read_bytes() == whole
    assert [each.name for each in cache.parent.iterdir()] == ["key.parquet"]


def test_trainings_side_by_side_keep_each_others_numbers(tmp_path: Path) -> None:
    model, _ = load_causal(tiny_models.gpt2(tmp_path / "model"))
    one, other, cache = [Group((1,), ((2,),))], [Group((3,), ((4,),))], tmp_path / "key.parquet"

    def meanwhile(*_: object) -> None:  # another process writes while this one computes
        if not cache.exists():
            reference_logps(model, other, False, cache)

    reference_logps(model, one, False, cache, meanwhile)

    def refuses(*_: object, **__: object) -> None:
        raise AssertionError("the model was asked")

    model.forward = refuses
    reference_logps(model, [*one, *other], False, cache)


def test_checkpoints_are_of_one_model_and_one_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_models.gpt2(tmp_path / "model")
    identities: list[bytes] = []
    opened = checkpoints.opened

    def noted(folder: Path, identity: dict[str, object]) -> Path | None:
        found = opened(folder, identity)
        identities.append((folder / checkpoints.IDENTITY).read_bytes())
        return found

    monkeypatch.setattr(checkpoints, "opened", noted)
    _train(model, tmp_path / "out", tmp_path / "cache")
    _train(model, tmp_path / "again", tmp_path / "cache")
    same_id = [replace(PAIRS[0], rejected="a log"), *PAIRS[1:]]
    _train(model, tmp_path / "data", tmp_path / "cache", same_id)
    _retrain_mlps(model)
    _train(model, tmp_path / "model-changed", tmp_path / "cache")
    assert identities[0] == identities[1]
    assert len(set(identities)) == 3


def test_a_model_that_is_written_while_it_is_loaded_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_models.gpt2(tmp_path / "model")

    def slow(folder: Path, *more: object) -> object:
        loaded = load_causal(folder)
        _retrain_mlps(folder)
        return loaded

    monkeypatch.setattr("semdpo.training.preference.load_causal", slow)
    with pytest.raises(fingerprint.ModelError, match="was changed while it was read"):
        _train(model, tmp_path / "out", tmp_path / "cache")
