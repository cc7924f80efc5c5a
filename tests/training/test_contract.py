"""ExampleTrainer keeps transformers' contract, and leaves the program that uses it as it was."""

from __future__ import annotations

import logging
import random
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import TrainerCallback

from semdpo.cli import run as run_commands
from semdpo.cli import train as train_command
from semdpo.errors import DataError
from semdpo.recipe.schema import TrainConfig
from semdpo.training import memory
from semdpo.training.arguments import training_arguments
from semdpo.training.batches import Example
from semdpo.training.packing import Group
from semdpo.training.prepare import prepare
from semdpo.training.reference import reference_logps
from semdpo.training.trainer import ExampleTrainer
from tests.training import architectures
from tests.training.test_guard import WITH_REFERENCE, _groups

ALL = [*WITH_REFERENCE, "orpo", "simpo", "sft"]
METRICS = {"loss", "reward_accuracy", "runtime", "samples_per_second"}


def _parts(objective: str = "dpo", examples: int = 6) -> tuple[Any, list[Example], Any]:
    model = architectures.model(architectures.config("llama"))
    groups = _groups(examples)
    known = reference_logps(model, groups, prepare(model))
    settings = {"name": objective, **WITH_REFERENCE.get(objective, {})}
    goal = TrainConfig.model_validate({"methods": {"m": settings}}).methods["m"]
    scores = {"scores": (1.0, 0.0), "fidelities": (0.5, 0.0)}
    return model, [Example(str(k), *each, **scores) for k, each in enumerate(zip(groups, known, strict=True))], goal


def _trainer(folder: Path, objective: str = "dpo", held_out: int = 0, **more: Any) -> ExampleTrainer:
    model, examples, goal = _parts(objective, 6 + held_out)
    arguments = training_arguments(folder, learning_rate=1e-2, **more)
    return ExampleTrainer(
        model, arguments, examples[:6], objective=goal, batch_size=3, epochs=2, held_out=examples[6:], can_pack=True
    )


class _Adds(TrainerCallback):  # type: ignore[misc]
    """Logs a number of its own, as users' callbacks and subclasses do."""

    def __init__(self) -> None:
        self.trainer: ExampleTrainer | None = None
        self.logged: list[dict[str, float]] = []

    def on_step_begin(self, _args: Any, _state: Any, _control: Any, **_: Any) -> None:
        assert self.trainer is not None
        self.trainer.log({"images_seen": 7.0})

    def on_log(self, _args: Any, _state: Any, _control: Any, logs: dict[str, float], **_: Any) -> None:
        self.logged.append(dict(logs))


def test_what_others_log_is_passed_on_as_it_is(tmp_path: Path) -> None:
    trainer, adds = _trainer(tmp_path), _Adds()
    adds.trainer = trainer
    trainer.add_callback(adds)
    trainer.train()
    own = [logs for logs in adds.logged if "images_seen" in logs]
    assert [set(logs) - {"epoch"} for logs in own] == [{"images_seen"}] * 4
    steps = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert [entry["step"] for entry in steps] == [1, 2, 3, 4]
    assert all("reward_margin" in entry for entry in steps), "our own numbers are logged with the step's"
    assert [c.step for c in trainer.curves if c.name == "loss"] == [0, 1, 2, 3]


def test_logging_every_second_step_logs_the_mean(tmp_path: Path) -> None:
    every, second = _trainer(tmp_path / "1"), _trainer(tmp_path / "2", logging_steps=2, logging_first_step=False)
    every.train()
    second.train()
    for name in ("loss", "reward_margin", "mean_weight"):
        each = [c.value for c in every.curves if c.name == name]
        mean = [c.value for c in second.curves if c.name == name]
        assert mean == pytest.approx([(each[0] + each[1]) / 2, (each[2] + each[3]) / 2], abs=1e-6)


def test_evaluate_evaluates_what_it_is_given(tmp_path: Path) -> None:
    trainer = _trainer(tmp_path, held_out=4)
    own = trainer.evaluate()
    mirrored = [
        Example(e.name, Group(e.group.prompt, e.group.completions[::-1]), e.reference[::-1])
        for e in trainer.eval_dataset[0].examples
    ]
    trainer.train()
    learnt, other = trainer.evaluate(), trainer.evaluate(mirrored, metric_key_prefix="mirrored")
    assert {name.removeprefix("eval_") for name in own} - {"epoch"} == METRICS
    assert {name.removeprefix("mirrored_") for name in other} - {"epoch"} == METRICS
    assert learnt["eval_loss"] != pytest.approx(own["eval_loss"], abs=1e-3)
    assert other["mirrored_loss"] != pytest.approx(learnt["eval_loss"], abs=1e-3)
    both = trainer.evaluate({"one": mirrored, "two": mirrored[:2]})
    assert both["eval_one_loss"] == pytest.approx(other["mirrored_loss"], abs=1e-6)
    assert set(both) - {"epoch"} == {f"eval_{name}_{what}" for name in ("one", "two") for what in METRICS}


@pytest.mark.parametrize("objective", ALL)
def test_no_metric_is_reported_that_the_objective_does_not_have(objective: str, tmp_path: Path) -> None:
    trainer = _trainer(tmp_path, objective, held_out=2, eval_strategy="steps", eval_steps=1)
    trainer.train()
    has_rewards = objective != "sft"
    assert ("eval_reward_accuracy" in trainer.evaluate()) is has_rewards
    names = {name for entry in trainer.state.log_history for name in entry}
    assert ("eval_reward_accuracy" in names) is has_rewards
    assert ("reward_margin" in names) is has_rewards


def test_evaluating_nothing_is_refused(tmp_path: Path) -> None:
    for nothing in (None, []):
        with pytest.raises(DataError, match="no examples to evaluate"):
            _trainer(tmp_path).evaluate(nothing)


@pytest.mark.parametrize("objective", ALL)
def test_the_programs_own_random_numbers_go_on(objective: str, tmp_path: Path) -> None:
    def states() -> list[Any]:
        return [torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()]

    model, examples, goal = _parts(objective)
    random.seed(1)
    np.random.seed(2)
    torch.manual_seed(3)
    before = states()
    arguments = training_arguments(tmp_path, learning_rate=1e-2, seed=11)
    trainer = ExampleTrainer(model, arguments, examples, objective=goal, batch_size=3, can_pack=True)
    assert states() == before
    trainer.train()
    assert states() == before


def test_dropout_of_fine_tuning_follows_the_seed(tmp_path: Path) -> None:
    def losses(seed: int) -> list[float]:
        model = architectures.model(architectures.config("llama", attention_dropout=0.5))
        goal = TrainConfig.model_validate({"methods": {"m": {"name": "sft"}}}).methods["m"]
        arguments = training_arguments(tmp_path, learning_rate=1e-3, seed=seed)
        torch.manual_seed(seed + 100)
        examples = [Example(str(k), group) for k, group in enumerate(_groups())]
        trainer = ExampleTrainer(model, arguments, examples, objective=goal, batch_size=3)
        torch.rand(7)  # what a program draws between the two changes nothing
        trainer.train()
        return [c.value for c in trainer.curves if c.name == "loss"]

    assert losses(1) == losses(1)
    assert losses(1) != losses(2)


def test_a_trainer_changes_nothing_for_its_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never() -> None:
        raise AssertionError("malloc is for commands to set")

    monkeypatch.setattr(memory, "keep_freed_memory", never)
    filters, levels = (
        list(warnings.filters),
        {n: logging.getLogger(n).level for n in ("", "transformers", "accelerate")},
    )
    threads = torch.get_num_threads()
    _trainer(tmp_path).train()
    assert warnings.filters == filters
    assert {name: logging.getLogger(name).level for name in levels} == levels
    assert torch.get_num_threads() == threads


def test_a_users_warnings_stay_on(tmp_path: Path) -> None:
    trainer = _trainer(tmp_path)

    class Warns(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *_: Any, **__: Any) -> None:
            warnings.warn("mine", UserWarning, stacklevel=1)

    trainer.add_callback(Warns())
    with pytest.warns(UserWarning, match="mine"):
        trainer.train()


@pytest.mark.parametrize("command", ["run", "train", "sweep"])
def test_commands_that_train_keep_freed_memory(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[str] = []
    monkeypatch.setattr(memory, "keep_freed_memory", lambda: called.append("kept"))
    monkeypatch.setattr("semdpo.pipeline.run", lambda *_, **__: called.append("run"))
    monkeypatch.setattr("semdpo.cli.run.run_closing", lambda *_: "")
    monkeypatch.setattr("semdpo.pipeline.sweep", lambda *_, **__: called.append("run"))
    monkeypatch.setattr("semdpo.cli.train.train_file", lambda *_, **__: called.append("run"))
    if command == "run":
        run_commands.run("tiny")
    elif command == "sweep":
        run_commands.sweep("tiny")
    else:
        train_command.train("pairs.jsonl", "tiny:gpt2", Path("out"))
    assert called == ["kept", "run"]
