"""What a training guards does not depend on how often it logs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainerCallback

from semdpo.errors import DataError
from semdpo.recipe.objectives import DPOSettings
from semdpo.training.arguments import training_arguments
from semdpo.training.trainer import ExampleTrainer
from tests.training.test_contract import _parts, _trainer

RARELY = {"logging_steps": 100, "save_strategy": "steps", "save_steps": 2}


class Stop(TrainerCallback):
    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        control.should_training_stop = state.global_step == 2


def test_beta_dpo_resumes_with_the_state_of_its_checkpoint(tmp_path: Path) -> None:
    whole = _trainer(tmp_path / "whole", "beta_dpo", **RARELY)
    whole.train()
    first = _trainer(tmp_path / "parts", "beta_dpo", **RARELY)
    first.add_callback(Stop())
    first.train()
    second = _trainer(tmp_path / "parts", "beta_dpo", **RARELY)
    second.train(resume_from_checkpoint=True)
    assert second._state == whole._state
    for one, other in zip(whole.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(one, other)


class Break(TrainerCallback):
    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        if state.global_step == 2:
            next(model.parameters()).grad.fill_(float("nan"))


def test_broken_weights_are_never_saved(tmp_path: Path) -> None:
    trainer = _trainer(tmp_path, **RARELY | {"save_steps": 1, "max_grad_norm": 0.0})
    trainer.add_callback(Break())
    with pytest.raises(DataError, match="some weights are not finite after update 3"):
        trainer.train()
    assert sorted(path.name for path in tmp_path.glob("checkpoint-*")) == ["checkpoint-1", "checkpoint-2"]


class StopAtOnce(TrainerCallback):
    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        control.should_training_stop = True


def test_a_step_whose_weights_are_all_0_changes_nothing(tmp_path: Path) -> None:
    unchanged = []
    for loud in (0, 1):  # one of them is in the first batch
        model, examples, _ = _parts("dpo", 2)
        silent = [replace(example, weight=0.0) for example in examples]
        rows = [examples[k] if k == loud else silent[k] for k in (0, 1)]
        settings = DPOSettings(name="dpo", normalize="mean")
        arguments = training_arguments(tmp_path / str(loud), learning_rate=1e-2)
        before = [parameter.clone() for parameter in model.parameters()]
        trainer = ExampleTrainer(model, arguments, rows, objective=settings, batch_size=1, can_pack=True)
        trainer.add_callback(StopAtOnce())
        trainer.train()
        assert trainer.evaluate(silent)["eval_loss"] == 0.0
        unchanged.append(all(torch.equal(one, other) for one, other in zip(before, model.parameters(), strict=True)))
    assert sorted(unchanged) == [False, True]


def test_the_delay_of_evaluation_is_in_epochs(tmp_path: Path) -> None:
    trainer = _trainer(tmp_path, held_out=2, eval_strategy="epoch", eval_delay=2)
    trainer.train()
    epochs = [entry["epoch"] for entry in trainer.state.log_history if "eval_loss" in entry]
    assert epochs == [2.0]
