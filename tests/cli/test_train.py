"""``semdpo train`` as a user calls it: what it shows at its end, --eval, --config, and arrays of pairs in .json."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from semdpo.cli import main
from semdpo.cli.closing import training_summary
from semdpo.data.pairs import read_pairs
from semdpo.data.records import Curve
from semdpo.engine import model_folders, parquet
from semdpo.progress import silent
from semdpo.recipe.schema import TrainConfig
from semdpo.training.losses import losses_of
from tests import tiny_models

COLORS = ("red", "blue", "green", "grey", "pink", "gold", "white", "black")


def _rows(things: str, distance: float | None = 0.1) -> list[dict[str, object]]:
    return [
        {"prompt": f"a {color} {things}", "chosen": f"a {color} {things}, art", "rejected": "a dog, bad"}
        | ({} if distance is None else {"distance": distance})
        for color in COLORS
    ]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.gpt2(tmp_path_factory.mktemp("gpt2") / "model")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEMDPO_CACHE", str(tmp_path / "cache"))
    Path("pairs.json").write_text(json.dumps(_rows("cat")))
    Path("held.json").write_text(json.dumps(_rows("ball")))
    return tmp_path


def _semdpo(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["semdpo", *arguments])
    with pytest.raises(SystemExit) as ending:
        main()
    return int(ending.value.code or 0)


def _train(monkeypatch: pytest.MonkeyPatch, model: Path, out: str, *more: str) -> int:
    usual = ("--learning-rate", "1e-3", "--epochs", "4", "--batch-size", "4", "--precision", "float32")
    return _semdpo(monkeypatch, "train", "pairs.json", "--model", str(model), "-o", out, *usual, *more)


def test_it_shows_how_the_training_went_and_what_held_out_pairs_say(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], model: Path
) -> None:
    assert _train(monkeypatch, model, "m", "--objective", "dpo", "--eval", "held.json") == 0
    *table, last = capsys.readouterr().out.splitlines()
    assert table[0].split() == ["first", "update", "last", "update"]
    assert [line.split("  ")[0] for line in table[1:]] == [
        "loss", "reward accuracy", "reward margin", "effective sample size of the update",
    ]  # fmt: skip
    assert table[1].split()[1] == "0.6931", "ln 2"
    assert float(table[1].split()[2]) < 0.69
    assert table[2].split()[-2:] == ["0.00", "1.00"]
    curves = parquet.read_file(Path("m") / model_folders.CURVES, Curve)
    found = {curve.name: (curve.step, curve.value) for curve in curves if curve.name.startswith("eval_")}
    assert found.keys() == {"eval_loss", "eval_reward_accuracy"}
    # The loss as another path through the code has it, from the two models' folders.
    config = TrainConfig(methods={"dpo": {"name": "dpo"}}, precision="float32")  # type: ignore[dict-item]
    losses = [
        row.loss
        for row in losses_of([read_pairs("held.json")], "m", str(model), config.beta, config, Path("cache"))(
            read_pairs("held.json"), silent
        )
    ]
    step, loss = found["eval_loss"]
    assert loss == pytest.approx(sum(losses) / len(losses), rel=1e-4)
    assert step == 8, "after the last of two updates in each of four passes"
    accuracy = found["eval_reward_accuracy"][1]
    assert last == f"held.json (8 pairs, evaluation only): loss {loss:.4f}, reward accuracy {accuracy:.2f}"


@pytest.mark.parametrize("objective", ["sem_dpo", "kto", "beta_dpo", "orpo", "sft"])
def test_every_objective_evaluates_and_learns_the_same_without(
    objective: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], model: Path
) -> None:
    for out, more in (("with", ("--eval", "held.json")), ("without", ())):
        assert _train(monkeypatch, model, out, "--objective", objective, *more) == 0
    both = [Path(out, "model.safetensors").read_bytes() for out in ("with", "without")]
    assert both[0] == both[1]
    said = capsys.readouterr().out
    assert said.count("held.json (8 pairs, evaluation only): loss ") == 1
    assert ("reward accuracy" in said) == (objective != "sft")


def test_settings_come_from_a_file_and_options_win(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], model: Path
) -> None:
    Path("mine.yaml").write_text(
        f"model: {model}\nout: m\nobjective: dpo\nepochs: 3\nbatch_size: 4\nprecision: float32\neval: held.json\n"
    )
    assert _semdpo(monkeypatch, "train", "pairs.json", "--config", "mine.yaml", "--epochs", "1") == 0
    said = capsys.readouterr()
    assert "held.json (8 pairs, evaluation only)" in said.out
    assert "wrote m (the pairs do not name the encoder" in said.err
    assert "next:  semdpo optimize 'your prompt' --model m --encoder NAME" in said.err
    curves = parquet.read_file(Path("m") / model_folders.CURVES, Curve)
    assert {curve.step for curve in curves if curve.name == "loss"} == {0, 1}, "two updates in one pass"
    assert {curve.method for curve in curves} == {"dpo"}


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (_rows("ball", None), "held.json has rows without a distance; run `semdpo weigh held.json"),
        ([], "held.json"),
        ([{"prompt": "a", "chosen": "b", "rejected": "b"}], "held.json, entry 1: chosen and rejected are the same"),
    ],
)
def test_pairs_that_cannot_be_evaluated_are_refused_before_the_training(
    rows: list[object], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], model: Path
) -> None:
    Path("held.json").write_text(json.dumps(rows))
    assert _train(monkeypatch, model, "m", "--eval", "held.json") == 2
    told = capsys.readouterr()
    assert said in told.err
    assert (told.out, len(told.err.splitlines())) == ("", 1)
    assert not list(Path().glob("m*"))


def test_held_out_prompts_that_are_trained_on_are_mentioned(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], model: Path
) -> None:
    mixed = [*_rows("ball")[:3], {"prompt": "A red cat!", "chosen": "a red cat, oil", "rejected": "x", "distance": 0.2}]
    Path("held.json").write_text(json.dumps(mixed))
    assert _train(monkeypatch, model, "m", "--eval", "held.json") == 0
    assert "held.json: 1 of its 4 pairs have a prompt of the training pairs" in capsys.readouterr().err


def test_a_training_without_rewards_shows_its_loss_alone() -> None:
    curves = [Curve("sft", step, "loss", 2.0 - step) for step in (1, 0)] + [Curve("sft", 0, "tokens", 9.0)]
    assert training_summary(curves).splitlines() == [
        "      first update  last update",
        "loss        2.0000       1.0000",
    ]


def test_an_array_is_read_by_every_command_on_pairs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    tiny_models.clip(tmp_path / "clip")
    Path("raw.json").write_text(json.dumps(_rows("cat", None)))
    assert _semdpo(monkeypatch, "weigh", "raw.json", "-o", "w.csv", "--encoder", str(tmp_path / "clip")) == 0
    assert "8 pairs → w.csv" in capsys.readouterr().out
    assert _semdpo(monkeypatch, "audit", "pairs.json") == 0
    assert len(read_pairs("pairs.json")) == 8
