"""``PreferenceTrainer`` is the train stage, takes what TRL's users bring, and obeys transformers' arguments."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file
from transformers import TrainerCallback

from semdpo.data.records import Pair
from semdpo.errors import ConfigError, DataError, ModelError
from semdpo.models.rewriter import load_causal
from semdpo.progress import silent
from semdpo.prompt_optimizer import PromptOptimizer
from semdpo.protocols import Embeddings
from semdpo.recipe.objectives import SemDPOSettings
from semdpo.recipe.schema import TrainConfig
from semdpo.training import user_pairs
from semdpo.training.preference import train
from semdpo.training.preference_trainer import PreferenceTrainer
from tests import tiny_models
from tests.training.seven_pairs import ROWS, settings_for

pytestmark = pytest.mark.usefixtures("cache")


def _losses(trainer: PreferenceTrainer) -> list[float]:
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def test_it_is_the_train_stage_to_the_bit(base: Path, tmp_path: Path) -> None:
    pairs = user_pairs.read(ROWS)
    settings = {"batch_size": 3, "learning_rate": 1e-3, "epochs": 2, "precision": "float32", "warmup_ratio": 0.0}
    config = TrainConfig.model_validate({"methods": {"m": {"name": "sem_dpo"}}, **settings})
    curves = train(pairs, str(base), SemDPOSettings(name="sem_dpo"), config, tmp_path / "a", tmp_path / "c", silent)
    trainer = PreferenceTrainer(str(base), settings_for(tmp_path, num_train_epochs=2, warmup_steps=0, seed=0), ROWS)
    trainer.train()
    trainer.save_model(str(tmp_path / "b"))
    assert _losses(trainer) == [curve.value for curve in curves if curve.name == "loss"]
    one, other = load_file(tmp_path / "a/model.safetensors"), load_file(tmp_path / "b/model.safetensors")
    assert all(torch.equal(one[name], other[name]) for name in one)
    kept = json.loads((tmp_path / "b/semdpo.json").read_text())
    assert kept == json.loads((tmp_path / "a/semdpo.json").read_text())


def test_every_kind_of_rows_gives_the_same_training(base: Path, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    messages = [
        {
            "prompt": [{"role": "user", "content": row["prompt"]}],
            **{side: [{"role": "assistant", "content": row[side]}] for side in ("chosen", "rejected")},
            "distance": row["distance"],
        }
        for row in ROWS
    ]
    losses = []
    for rows in (ROWS, messages, Dataset.from_list(ROWS), tmp_path / "rows.jsonl"):
        trainer = PreferenceTrainer(base, settings_for(tmp_path), rows)
        trainer.train()
        losses.append(_losses(trainer))
    assert len(losses[0]) == 3
    assert losses[1:] == losses[:1] * 3


class Letters:
    """An encoder of a user's own: how often each of four letters stands in a text."""

    def encode(self, texts: Any) -> Embeddings:
        counts = torch.tensor([[1.0 + text.count(letter) for letter in "aeio"] for text in texts])
        vectors = torch.nn.functional.normalize(counts).numpy()
        return Embeddings(vectors, torch.zeros(len(texts), dtype=torch.bool).numpy())


def test_drift_is_measured_where_it_is_missing(base: Path, tmp_path: Path) -> None:
    rows = [{name: row[name] for name in ("prompt", "chosen", "rejected")} for row in ROWS]
    with pytest.raises(DataError, match="7 of 7 rows of train_dataset have no distance; give encoder="):
        PreferenceTrainer(str(base), settings_for(tmp_path), rows)
    trainer = PreferenceTrainer(str(base), settings_for(tmp_path, alpha=3), rows, encoder=Letters())
    trainer.train()
    measured = user_pairs.measure_drift(rows, Letters(), alpha=3)
    assert measured[0].keys() >= {"prompt", "distance", "rejected_distance", "weight"}
    weights = [entry["mean_weight"] for entry in trainer.state.log_history if "mean_weight" in entry]
    assert 0 < min(weights) < 1
    assert measured[3]["weight"] == pytest.approx(math.exp(-3 * measured[3]["distance"]))
    with pytest.raises(DataError, match=r"is exp\(-3 \* distance\) already, and this objective would apply"):
        PreferenceTrainer(str(base), settings_for(tmp_path), measured)
    more = [row | {"weight": None} if k == 0 else row for k, row in enumerate(measured)]
    with pytest.raises(DataError, match=r"is exp\(-3 \* distance\) already"):  # also if a row without one was added
        PreferenceTrainer(str(base), settings_for(tmp_path), more)
    PreferenceTrainer(str(base), settings_for(tmp_path, objective="dpo"), measured)


def test_a_model_and_its_tokenizer_may_be_given(base: Path, tmp_path: Path) -> None:
    model, tokenizer = load_causal(base)
    with pytest.raises(ConfigError, match="give processing_class"):
        PreferenceTrainer(model, settings_for(tmp_path), ROWS)
    trainer = PreferenceTrainer(model, settings_for(tmp_path), ROWS, processing_class=tokenizer)
    trainer.train()
    named = PreferenceTrainer(str(base), settings_for(tmp_path), ROWS)
    named.train()
    assert _losses(trainer) == _losses(named)


def test_evaluation_saving_and_epochs_are_those_of_transformers(base: Path, tmp_path: Path) -> None:
    seen: list[float] = []

    class Watch(TrainerCallback):
        def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            seen.append(state.epoch)

    def metrics(found: Any) -> dict[str, float]:
        assert found.predictions.shape == (len(found.label_ids), 2)
        return {"margin": float((found.predictions[:, 0] - found.predictions[:, 1]).mean())}

    config = settings_for(tmp_path, num_train_epochs=2, eval_strategy="epoch", save_strategy="epoch")
    trainer = PreferenceTrainer(
        str(base), config, ROWS, eval_dataset={"some": ROWS[:2], "others": ROWS[2:]}, compute_metrics=metrics,
        callbacks=[Watch()],
    )  # fmt: skip
    trainer.train()
    assert seen == [1.0, 1.0, 2.0, 2.0]
    assert sorted(path.name for path in tmp_path.glob("checkpoint-*")) == ["checkpoint-3", "checkpoint-6"]
    found = trainer.evaluate()
    assert {"eval_some_loss", "eval_some_margin", "eval_others_reward_accuracy"} <= found.keys()
    assert found["eval_some_margin"] > 0
    assert trainer.evaluate(ROWS[:2])["eval_loss"] == pytest.approx(found["eval_some_loss"])


def test_an_interrupted_training_goes_on_to_the_same_weights(base: Path, tmp_path: Path) -> None:
    class Stop(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            control.should_training_stop = state.global_step == 2

    def trainer(name: str, *callbacks: Any) -> PreferenceTrainer:
        config = settings_for(tmp_path / name, num_train_epochs=2, save_strategy="steps", save_steps=2)
        return PreferenceTrainer(str(base), config, ROWS, callbacks=list(callbacks))

    whole, first, second = trainer("whole"), trainer("parts", Stop()), trainer("parts")
    whole.train()
    first.train()
    second.train(resume_from_checkpoint=True)
    assert second.state.global_step == whole.state.global_step == 6
    for one, other in zip(whole.model.parameters(), second.model.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("more", "steps"),
    [({"max_steps": 5}, 5), ({"num_train_epochs": 0.5}, 2), ({"gradient_accumulation_steps": 2}, 2), ({}, 3)],
)
def test_the_number_of_updates(base: Path, tmp_path: Path, more: dict[str, Any], steps: int) -> None:
    trainer = PreferenceTrainer(str(base), settings_for(tmp_path, **more), ROWS)
    trainer.train()
    assert trainer.state.global_step == steps


def test_adapters_are_saved_and_used(base: Path, tmp_path: Path) -> None:
    from peft import LoraConfig

    trainer = PreferenceTrainer(
        str(base),
        settings_for(tmp_path),
        ROWS,
        peft_config=LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["c_attn"]),
    )
    trainer.train()
    trainer.save_model(str(tmp_path / "adapters"))
    assert not (tmp_path / "adapters/model.safetensors").exists()
    tiny = tiny_models.clip(tmp_path / "encoder")
    assert PromptOptimizer.from_pretrained(tmp_path / "adapters", str(tiny)).optimize("a red cat").prompt == "a red cat"
    with pytest.raises(ConfigError, match="holds adapters already; leave peft_config out"):
        PreferenceTrainer(str(tmp_path / "adapters"), settings_for(tmp_path), ROWS, peft_config=LoraConfig(r=4))


def test_the_reference_is_asked_once_and_kept(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    PreferenceTrainer(str(base), settings_for(tmp_path), ROWS)

    def never(*_: object) -> None:
        raise AssertionError("the reference was asked again")

    monkeypatch.setattr("semdpo.training.reference.group_logps", never)
    PreferenceTrainer(str(base), settings_for(tmp_path, objective="dpo"), ROWS)
    monkeypatch.setenv("SEMDPO_CACHE", str(tmp_path / "other"))
    with pytest.raises(AssertionError, match="asked again"):
        PreferenceTrainer(str(base), settings_for(tmp_path, objective="dpo"), ROWS)


@pytest.mark.parametrize("objective", ["dpo", "kto"])
def test_new_pairs_are_compared_with_the_model_before_training(base: Path, tmp_path: Path, objective: str) -> None:
    def trainer(name: str) -> PreferenceTrainer:
        return PreferenceTrainer(
            str(base), settings_for(tmp_path, objective=objective, num_train_epochs=3), ROWS[:4],
            eval_dataset=ROWS[4:], cache=tmp_path / name,
        )  # fmt: skip

    expected, late = trainer("one"), PreferenceTrainer(
        str(base), settings_for(tmp_path, objective=objective, num_train_epochs=3), ROWS[:4], cache=tmp_path / "two"
    )  # fmt: skip
    for each in (expected, late):
        each.train()
    found = late.evaluate(ROWS[4:])
    assert found["eval_loss"] == pytest.approx(expected.evaluate()["eval_loss"], rel=1e-5)
    start = 0.5 if objective == "kto" else math.log(2)
    assert abs(found["eval_loss"] - start) > 1e-3  # a trained reference would give the loss of the start
    again = trainer("two")  # reads the cache that the evaluation wrote
    assert again.evaluate()["eval_loss"] == pytest.approx(start, abs=1e-4)


def test_a_trained_object_is_not_the_reference_of_new_pairs(base: Path, tmp_path: Path) -> None:
    model, tokenizer = load_causal(base)
    trainer = PreferenceTrainer(model, settings_for(tmp_path), ROWS[:4], processing_class=tokenizer)
    assert trainer.evaluate(ROWS[4:])["eval_reward_accuracy"] == 0.0
    trainer.train()
    with pytest.raises(ConfigError, match="give eval_dataset when the trainer is made"):
        trainer.evaluate(ROWS[4:])
    fine_tuned = PreferenceTrainer(model, settings_for(tmp_path, objective="orpo"), ROWS, processing_class=tokenizer)
    fine_tuned.train()
    assert fine_tuned.evaluate(ROWS[4:])["eval_loss"] > 0  # without a reference


def test_a_changed_folder_is_not_the_reference_of_new_pairs(base: Path, tmp_path: Path) -> None:
    shutil.copytree(base, tmp_path / "model")
    trainer = PreferenceTrainer(str(tmp_path / "model"), settings_for(tmp_path), ROWS[:4])
    trainer.train()
    trainer.save_model(str(tmp_path / "model"))
    with pytest.raises(ModelError, match="have changed since the trainer was made; give eval_dataset"):
        trainer.evaluate(ROWS[4:])


def test_distances_of_two_encoders_are_refused(base: Path, tmp_path: Path) -> None:
    rows, others = (
        [{**row, "encoder": name, "encoder_fingerprint": name} for row in ROWS] for name in ("one", "other")
    )
    with pytest.raises(DataError, match="the distances are from one and other, and cannot be compared"):
        PreferenceTrainer(str(base), settings_for(tmp_path), rows, eval_dataset=others)
    trainer = PreferenceTrainer(str(base), settings_for(tmp_path), rows, eval_dataset=rows[:2])
    with pytest.raises(DataError, match="the distances are from one and other, and cannot be compared"):
        trainer.evaluate(others)


def test_a_model_object_keeps_the_template_of_its_folder(base: Path, tmp_path: Path) -> None:
    PreferenceTrainer(str(base), settings_for(tmp_path, template="{prompt} In full:"), ROWS).save_model(
        str(tmp_path / "a")
    )
    model, tokenizer = load_causal(tmp_path / "a")
    PreferenceTrainer(model, settings_for(tmp_path), ROWS, processing_class=tokenizer).save_model(str(tmp_path / "b"))
    assert json.loads((tmp_path / "b/semdpo.json").read_text())["template"] == "{prompt} In full:"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"objective": "semdpo"}, "is 'semdpo'; did you mean 'sem_dpo'?"),
        ({"objective": "dpo", "alpha": 4}, "alpha belongs to sem_dpo, not to dpo"),
        ({"alpha": -1}, "alpha"),
        ({"beta": 0.0}, "beta is 0.0; it must be a number > 0"),
        ({"objective_settings": {"nll_coeff": 1}}, "did you mean 'nll_coef'"),
        ({"template": "no place"}, "template: it must contain {prompt} exactly once"),
    ],
)
def test_settings_are_refused_in_one_sentence(settings: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refusal:
        settings_for(tmp_path, **settings)
    assert said in str(refusal.value)


def test_rows_are_refused_in_one_sentence(base: Path, tmp_path: Path) -> None:
    for rows, said in (
        ([], "the pairs are empty|train_dataset are empty"),
        ([{"prompt": "a", "chosen": "b"}], "no column 'rejected'"),
        ([*ROWS, {**ROWS[0], "chosen": ""}], "row 8: 'chosen' is empty"),
        (["a cat"], "row 1 is a str; give rows as mappings"),
        ([{**ROWS[0], "distance": 3.0}], "row 1: 'distance' is 3"),
    ):
        with pytest.raises(DataError, match=said):
            PreferenceTrainer(str(base), settings_for(tmp_path), rows)
    with pytest.raises(ConfigError, match="needs its whole batch at once"):
        PreferenceTrainer(str(base), settings_for(tmp_path, objective="kto", gradient_accumulation_steps=2), ROWS)


def test_a_pair_of_the_stages_is_taken_as_it_is() -> None:
    pairs = [Pair("id", "a", "b", "c", 1.0, 0.0, distance=0.5)]
    assert user_pairs.read(pairs) == pairs


def test_an_audit_measures_what_is_missing() -> None:
    rows = [{name: row[name] for name in ("prompt", "chosen", "rejected")} for row in ROWS]
    with pytest.raises(DataError, match="give encoder="):
        user_pairs.audit(rows)
    found = user_pairs.audit(rows, encoder=Letters(), alpha=2.0, evaluation=["a red cat"])
    assert {check.name: check.count for check in found.checks}["leaks"] == 1
    assert 1 < found.effective <= len(rows)
