"""``PreferenceTrainer`` uses every setting that it accepts, and refuses the others early and in one sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from datasets import Dataset, DatasetDict
from peft import LoraConfig, PromptTuningConfig, get_peft_model

from semdpo.errors import ConfigError, DataError
from semdpo.models.loading import quiet
from semdpo.models.rewriter import load_causal
from semdpo.training.preference_trainer import PreferenceTrainer
from semdpo.training.starting_model import move
from tests.training.seven_pairs import ROWS, settings_for

pytestmark = pytest.mark.usefixtures("cache")


def test_settings_may_be_changed_until_the_trainer_is_made(base: Path, tmp_path: Path) -> None:
    args = settings_for(tmp_path)
    args.objective, args.objective_settings, args.beta = "ipo", {"nll_coef": 0.5}, 0.2
    trainer = PreferenceTrainer(str(base), args, ROWS)
    assert (trainer.objective.name, trainer.objective.nll_coef, trainer.criterion.beta) == ("ipo", 0.5, 0.2)
    args.max_length = 1
    with pytest.raises(ConfigError, match="max_length is 1; it must be a whole number > 1"):
        PreferenceTrainer(str(base), args, ROWS)


def test_two_trainers_may_have_the_same_settings(base: Path, tmp_path: Path) -> None:
    args = settings_for(tmp_path, warmup_steps=0.5, save_strategy="epoch")
    before = args.to_dict()
    small = PreferenceTrainer(str(base), args, ROWS[:3])
    assert args.to_dict() == before
    large = PreferenceTrainer(str(base), args, ROWS)
    assert (small.args.max_steps, large.args.max_steps) == (1, 3)


def test_weights_in_half_precision_are_refused(base: Path, tmp_path: Path) -> None:
    model, tokenizer = load_causal(base)
    with pytest.raises(ConfigError, match=r"to be trained are bfloat16 .*; load the model with dtype=torch.float32"):
        PreferenceTrainer(model.to(torch.bfloat16), settings_for(tmp_path), ROWS, processing_class=tokenizer)
    adapters = LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["c_attn"], fan_in_fan_out=True)
    trainer = PreferenceTrainer(model, settings_for(tmp_path), ROWS, processing_class=tokenizer, peft_config=adapters)
    trained = {weight.dtype for weight in trainer.model.parameters() if weight.requires_grad}
    assert trained == {torch.float32}  # those of the adapters


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"objective": "simpo", "beta": 0.1}, "beta has no effect on simpo, which uses no reference; remove it"),
        (
            {"objective_settings": {"beta": 0.1}},
            "objective_settings contains beta; give it as PreferenceConfig(beta=…)",
        ),
        ({"objective_settings": {"learning_rate": 0.1}}, "give it as PreferenceConfig(learning_rate=…)"),
        ({"objective_settings": {"name": "dpo"}}, "give it as PreferenceConfig(objective=…)"),
        ({"objective_settings": "nll_coef"}, "objective_settings must be a mapping of names to values, not str"),
        ({"data_seed": 3}, "data_seed has no effect on a preference training"),
        ({"train_sampling_strategy": "group_by_length"}, "train_sampling_strategy has no effect"),
        ({"dataloader_drop_last": True}, "dataloader_drop_last has no effect"),
        ({"label_smoothing_factor": 0.1}, "label_smoothing_factor has no effect"),
        ({"neftune_noise_alpha": 5.0}, "neftune_noise_alpha has no effect"),
        ({"per_device_eval_batch_size": 2}, "per_device_eval_batch_size has no effect"),
        ({"bf16_full_eval": True}, "bf16_full_eval has no effect"),
        ({"bf16": None, "fp16": True}, "float16 is not supported; set bf16=True"),
        ({"auto_find_batch_size": True}, "lower per_device_train_batch_size and raise gradient_accumulation_steps"),
        ({"num_train_epochs": 0}, "num_train_epochs is 0; it must be a number > 0"),
        ({"num_train_epochs": "two"}, "num_train_epochs is 'two'; it must be a number > 0"),
        ({"per_device_train_batch_size": 0}, "per_device_train_batch_size is 0; it must be a whole number > 0"),
        ({"max_length": 1.5}, "max_length is 1.5; it must be a whole number > 1"),
        ({"beta": "0.1"}, "beta is '0.1'; it must be a number > 0"),
    ],
)
def test_settings_without_effect_are_refused(settings: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refusal:
        settings_for(tmp_path, **settings)
    assert said in str(refusal.value)


@pytest.mark.parametrize(("settings", "row"), [({}, "| beta | 0.05 |"), ({"objective": "simpo"}, None)])
def test_the_model_card_has_the_beta_that_is_used(
    base: Path, tmp_path: Path, settings: dict[str, Any], row: str | None
) -> None:
    PreferenceTrainer(str(base), settings_for(tmp_path, **settings), ROWS).create_model_card()
    card = (tmp_path / "README.md").read_text()
    rows = [line for line in card.splitlines() if line.startswith("| beta")]
    assert rows == ([] if row is None else [row])
    assert "None" not in card
    assert "| learning_rate | 0.001 |" in card


@pytest.mark.parametrize("settings", [{"eval_strategy": "epoch"}, {"eval_on_start": True}])
def test_evaluations_without_pairs_are_refused(base: Path, tmp_path: Path, settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(settings))} is .*; give eval_dataset="):
        PreferenceTrainer(str(base), settings_for(tmp_path, **settings), ROWS)
    PreferenceTrainer(str(base), settings_for(tmp_path, **settings), ROWS, eval_dataset=ROWS)


@pytest.mark.parametrize(
    ("adapters", "said"),
    [
        (PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2), "PromptTuningConfig trains virtual tokens"),
        (LoraConfig(r=4, target_modules=["nowhere"]), "peft_config does not fit GPT2LMHeadModel: .*nowhere"),
    ],
)
def test_adapters_that_do_not_fit_are_refused(base: Path, tmp_path: Path, adapters: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        PreferenceTrainer(str(base), settings_for(tmp_path), ROWS, peft_config=adapters)


def test_adapters_on_adapters_are_refused(base: Path, tmp_path: Path) -> None:
    model, tokenizer = load_causal(base)
    adapters = LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["c_attn"], fan_in_fan_out=True)
    with quiet():
        adapted = get_peft_model(model, adapters)
        virtual = get_peft_model(load_causal(base)[0], PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2))
    with pytest.raises(ConfigError, match="has adapters of PEFT already; leave peft_config out"):
        PreferenceTrainer(adapted, settings_for(tmp_path), ROWS, processing_class=tokenizer, peft_config=adapters)
    PreferenceTrainer(adapted, settings_for(tmp_path), ROWS, processing_class=tokenizer).train()
    with pytest.raises(ConfigError, match="PromptTuningConfig trains virtual tokens"):
        PreferenceTrainer(virtual, settings_for(tmp_path), ROWS, processing_class=tokenizer)


def test_a_model_that_is_spread_over_devices_is_not_moved(base: Path, tmp_path: Path) -> None:
    model = load_causal(base)[0].to("meta")
    model.hf_device_map = {"": "meta"}
    move(model, settings_for(tmp_path))
    del model.hf_device_map
    with pytest.raises(NotImplementedError, match="meta"):
        move(model, settings_for(tmp_path))


def test_a_trainer_trains_once(base: Path, tmp_path: Path) -> None:
    trainer = PreferenceTrainer(str(base), settings_for(tmp_path, save_strategy="epoch"), ROWS)
    trainer.train()
    with pytest.raises(ConfigError, match="this trainer has trained already; make a new one, or pass resume_from_chec"):
        trainer.train()
    trainer.train(resume_from_checkpoint=True)
    with pytest.raises(ConfigError, match="preference pairs have no predictions; use evaluate"):
        trainer.predict(ROWS)


def test_sources_of_pairs(base: Path, tmp_path: Path) -> None:
    trainer = PreferenceTrainer(str(base), settings_for(tmp_path), pd.DataFrame(ROWS))
    assert len(trainer.train_dataset) == 3
    splits = DatasetDict({"train": Dataset.from_list(ROWS), "test": Dataset.from_list(ROWS)})
    with pytest.raises(DataError, match=r"has the splits train, test; give one of them, such as dataset\['train'\]"):
        PreferenceTrainer(str(base), settings_for(tmp_path), splits)
    with pytest.raises(DataError, match="train_dataset is a dict; give a list of rows"):
        PreferenceTrainer(str(base), settings_for(tmp_path), {"prompt": ["a"], "chosen": ["b"], "rejected": ["c"]})


def test_a_tokenizer_without_end_token_is_refused(base: Path, tmp_path: Path) -> None:
    _, tokenizer = load_causal(base)
    tokenizer.eos_token = None
    with pytest.raises(ConfigError, match="processing_class has no end token"):
        PreferenceTrainer(str(base), settings_for(tmp_path), ROWS, processing_class=tokenizer)


def test_evaluations_are_named_and_timed_as_by_transformers(base: Path, tmp_path: Path) -> None:
    def metrics(_: Any) -> dict[str, float]:
        return {"eval_mine": 1.0, "other": 2.0}

    sets = {"one": ROWS[:2], "two": ROWS}
    trainer = PreferenceTrainer(str(base), settings_for(tmp_path), ROWS, eval_dataset=sets, compute_metrics=metrics)
    found = trainer.evaluate("one")
    assert found["eval_mine"] == 1.0
    assert found["eval_other"] == 2.0
    assert found["eval_samples_per_second"] == pytest.approx(2 / found["eval_runtime"], rel=0.5)
    assert trainer.evaluate().keys() >= {"eval_one_loss", "eval_two_runtime"}
    assert not [curve.name for curve in trainer.curves if "runtime" in curve.name or "per_second" in curve.name]
