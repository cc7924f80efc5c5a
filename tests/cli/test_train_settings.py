"""The settings of ``semdpo train``: from options, from the file of --config, or by default; options win."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest

from semdpo.cli.train import train
from semdpo.cli.train_settings import Training, collect, training_of
from semdpo.errors import ConfigError
from semdpo.recipe import defaults

OPTIONS: dict[str, Any] = {
    {"eval_": "eval"}.get(name, name): each.default
    for name, each in inspect.signature(train).parameters.items()
    if name not in ("pairs", "config", "set_", "context")
}


def _of(folder: Path, text: str, assigned: tuple[str, ...] = (), **typed: Any) -> Training:
    """The training of a file's text, with options that the user typed."""
    (folder / "mine.yaml").write_text(text)
    values = OPTIONS | {"model": "tiny:gpt2", "out": Path("m")} | typed
    return training_of(collect(values, typed.keys(), assigned, folder / "mine.yaml"))


def test_the_file_has_the_same_settings_as_the_options(tmp_path: Path) -> None:
    text = """
model: my/model
out: my/out
objective: sem_dpo
alpha: auto
set: {kept_share: 0.5, nll_coef: 0.1}
beta: 0.1
learning_rate: 1.0e-4
epochs: 3
batch_size: 16
micro_batch_size: 4
max_length: 64
warmup_ratio: 0
seed: 7
precision: float32
checkpoint_steps: 10
lora_rank: 8
template: chat
system: Be brief.
report_to: []
cache: my/cache
eval: held.jsonl
"""
    found = _of(tmp_path, text)
    assert (found.model, found.out, found.cache, found.held_out) == (
        "my/model", Path("my/out"), Path("my/cache"), "held.jsonl",
    )  # fmt: skip
    assert found.objective.model_dump(exclude_defaults=True) == {
        "name": "sem_dpo", "alpha": "auto", "kept_share": 0.5, "nll_coef": 0.1,
    }  # fmt: skip
    assert found.config.model_dump(exclude={"methods"}) == {
        "beta": 0.1, "learning_rate": 1e-4, "epochs": 3, "batch_size": 16, "micro_batch_size": 4, "max_length": 64,
        "warmup_ratio": 0.0, "seed": 7, "precision": "float32", "checkpoint_steps": 10, "template": "chat",
        "system": "Be brief.",
        "lora": {"rank": 8, "alpha": 32, "target_modules": None}, "report_to": [],
    }  # fmt: skip
    assert not found.own_template
    written = {line.split(":")[0] for line in text.split("\n") if line}
    assert written - {"set"} == OPTIONS.keys(), "every option is tried"


def test_options_win_over_the_file_and_defaults_fill_up(tmp_path: Path) -> None:
    found = _of(tmp_path, "beta: 0.1\nepochs: 3\nmodel: theirs\n", beta=0.3, model="mine")
    assert (found.config.beta, found.config.epochs, found.model) == (0.3, 3, "mine")
    assert found.config.batch_size == defaults.BATCH_SIZE
    assert found.objective.name == defaults.OBJECTIVE
    assert found.own_template


def test_an_option_at_its_default_still_wins(tmp_path: Path) -> None:
    assert _of(tmp_path, "beta: 0.1\n", beta=defaults.BETA).config.beta == defaults.BETA


def test_an_option_wins_over_the_other_name_of_its_setting(tmp_path: Path) -> None:
    assert _of(tmp_path, "set: {alpha: 2}\n", alpha="3").objective.model_dump()["alpha"] == 3.0
    assert _of(tmp_path, "alpha: 2\n", ("alpha=3",)).objective.model_dump()["alpha"] == 3.0
    assert _of(tmp_path, "set: {beta: 0.2}\n", beta=0.3).objective.beta is None
    assert _of(tmp_path, "set: {nll_coef: 0.2}\n", ("nll_coef=0.3",)).objective.nll_coef == 0.3


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("beta: 0.1\nbeat: 2\n", "{file}, line 2: unknown key 'beat'; did you mean 'beta'?"),
        ("batch-size: 2\n", "{file}, line 1: unknown key 'batch-size'; did you mean 'batch_size'?"),
        ("pairs: p.jsonl\n", "{file}, line 1: unknown key 'pairs'; known: "),
        ("\nbeta: -1\n", "{file}, line 2: 'beta' is -1; it must be greater than 0"),
        ("epochs: true\n", "{file}, line 1: 'epochs' is true; it must be a number, not true or false"),
        ("model: [a]\n", "{file}, line 1: 'model' is ['a']; it must be a valid string"),
        ("objective: dop\n", "{file}, line 1: 'objective.name' is 'dop'; did you mean 'dpo'?"),
        ("alpha: -1\n", "{file}, line 1: 'objective.alpha': it must be a number ≥ 0, or auto, not -1"),
        ("alpha: true\n", "{file}, line 1: 'objective.alpha' is true; it must be a number"),
        (
            "template: plain\n",
            "{file}, line 1: 'template': it must contain {{prompt}} exactly once, or be 'chat', not 'plain'",
        ),
        ("lora_rank: 0\n", "{file}, line 1: 'lora_rank' is 0; it must be greater than or equal to 1"),
        ("set:\n  foo: 1\n", "{file}, line 2: unknown key 'objective.foo'"),
        ("set: {nll_coef: -1}\n", "{file}, line 1: 'objective.nll_coef' is -1; it must be greater than or equal to 0"),
        ("set: {name: dpo}\n", "{file}, line 1: 'set.name' has no effect; name the objective with --objective"),
        ("objective: dpo\nalpha: 2\n", "{file}, line 2: 'alpha' has no effect on dpo; leave it out"),
        ("objective: orpo\nbeta: 2\n", "{file}, line 2: 'beta' has no effect on orpo"),
        ("alpha: 2\nset: {alpha: 3}\n", "{file}, line 1: 'alpha' and {file}, line 2: 'set.alpha' are the same setting"),
        ("set: {kept_share: 0.3}\n", "{file}, line 1: 'set.kept_share' has no effect without --alpha auto"),
        ("objective: kto\nbatch_size: 1\n", "kto compares the pairs of a batch; set --batch-size ≥ 2"),
        ("- 1\n", "{file} is not a file of settings: it must be a mapping of names to values; write settings such as"),
        ("beta: 0.1\nbeta: 0.2\n", "'beta'"),
    ],
)
def test_what_is_wrong_in_the_file_is_said_with_its_line(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        _of(tmp_path, text)
    assert said.format(file=tmp_path / "mine.yaml") in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_several_errors_are_all_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        _of(tmp_path, "beat: 1\nepochs: 0\n")
    assert len(str(error.value).splitlines()) == 2


@pytest.mark.parametrize("name", ["absent.yaml", "x" * 300])
def test_a_file_that_is_not_there(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--config"):
        collect(OPTIONS, set(), [], tmp_path / name)


@pytest.mark.parametrize("missing", ["model", "out"])
def test_model_and_output_may_come_from_either_but_must_come(missing: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"Missing option '--{missing}'"):
        training_of(collect(OPTIONS | {"model": "a", "out": "b", missing: None}, set(), [], None))
