"""The one trainer, with every objective."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, EarlyStoppingCallback

from semdpo.data.records import Curve, Pair, content_id
from semdpo.errors import ConfigError, DataError
from semdpo.models.rewriter import load_causal, load_rewriter
from semdpo.progress import silent
from semdpo.recipe.schema import TrainConfig
from semdpo.training.arguments import training_arguments
from semdpo.training.batches import Example, encode
from semdpo.training.displacement import STEPS, WINDOWS, Displacement
from semdpo.training.preference import train
from semdpo.training.prepare import prepare
from semdpo.training.reference import reference_logps
from semdpo.training.trainer import ExampleTrainer
from tests import tiny_models

COLORS = ["red", "blue", "green", "grey", "pink", "gold", "white", "black", "brown", "teal"]
OBJECTIVES: dict[str, dict[str, Any]] = {
    "sft": {},
    "dpo": {},
    "sem_dpo": {"alpha": 2.0},
    "beta_dpo": {},
    "ipo": {},
    "kto": {"desirable_weight": 1.33},
    "orpo": {},
    "simpo": {},
    "additive": {"strength": 0.5},
}


def _pair(index: int, color: str) -> Pair:
    prompt, chosen, rejected = f"a {color} cat", f"a {color} cat, art" + "!" * (index % 4), "a dog, bad"
    return Pair(
        content_id(prompt, chosen, rejected), prompt, chosen, rejected,
        chosen_score=1 + index / 10, rejected_score=0.0, distance=index / 10,
        chosen_fidelity=float(index % 3), rejected_fidelity=1.0,
    )  # fmt: skip


PAIRS = [_pair(i, color) for i, color in enumerate(COLORS)]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tiny_models.gpt2(tmp_path_factory.mktemp("gpt2") / "model")
    config = json.loads((folder / "config.json").read_text())
    config |= dict.fromkeys(("attn_pdrop", "embd_pdrop", "resid_pdrop"), 0.0)  # what SFT keeps, and cannot be compared
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def _run(
    base: Path, folder: Path, objective: dict[str, Any], pairs: list[Pair] | None = None, **changes: Any
) -> list[Curve]:
    values = {"learning_rate": 1e-3, "epochs": 4, "batch_size": 4, "precision": "float32", "beta": 0.1}
    config = TrainConfig.model_validate(values | changes | {"methods": {"m": objective}})
    used = PAIRS if pairs is None else pairs
    return train(used, str(base), config.methods["m"], config, folder, folder.parent / "cache", silent)


def _of(curves: list[Curve], name: str) -> list[float]:
    return [curve.value for curve in curves if curve.name == name]


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def _difference(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    return max(float((a[name] - b[name]).abs().max()) for name in a)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_learns(base: Path, tmp_path: Path, name: str) -> None:
    curves = _run(base, tmp_path / name, {"name": name} | OBJECTIVES[name], epochs=8)
    losses = _of(curves, "loss")
    assert len(losses) == 24
    assert sum(losses[-3:]) < sum(losses[:3])
    if name not in ("sft", "orpo", "simpo", "additive"):
        assert sum(_of(curves, "reward_accuracy")[-3:]) == 3
    assert load_rewriter(tmp_path / name).rewrite(["a red cat"], 1, 0)
    AutoModelForCausalLM.from_pretrained(tmp_path / name)


def test_all_objectives_share_one_reference(base: Path, tmp_path: Path) -> None:
    for name, settings in OBJECTIVES.items():
        _run(base, tmp_path / name, {"name": name} | settings, epochs=1, seed=len(name))
    assert len(list((tmp_path / "cache").iterdir())) == 1
    _run(base, tmp_path / "other", {"name": "dpo"}, template="{prompt} ->", epochs=1)
    assert len(list((tmp_path / "cache").iterdir())) == 2


@pytest.mark.parametrize("name", ["sft", "dpo", "sem_dpo", "ipo", "orpo", "simpo", "additive"])
@pytest.mark.parametrize("normalize", ["pairs", "mean"])
def test_micro_batches_learn_what_the_whole_batch_does(base: Path, tmp_path: Path, name: str, normalize: str) -> None:
    objective = {"name": name, "normalize": normalize, "nll_coef": 0.1} | OBJECTIVES[name]
    if name in ("sft", "additive"):
        objective |= {"nll_coef": 0.0}
    whole = _run(base, tmp_path / "whole", objective)
    parts = _run(base, tmp_path / "parts", objective, micro_batch_size=1)
    for a, b in zip(whole, parts, strict=True):
        assert (a.step, a.name) == (b.step, b.name)
        assert a.value == pytest.approx(b.value, abs=2e-5), a.name
    assert _difference(_weights(tmp_path / "whole"), _weights(tmp_path / "parts")) < 2e-5


def test_dividing_by_the_weights_makes_larger_steps_of_the_same_direction(base: Path, tmp_path: Path) -> None:
    objective = {"name": "sem_dpo", "alpha": 4.0}
    one = {"epochs": 1, "batch_size": 10, "warmup_ratio": 0.0}
    pairs = _run(base, tmp_path / "pairs", objective, **one)
    mean = _run(base, tmp_path / "mean", objective | {"normalize": "mean"}, **one)
    ratio = _of(mean, "loss")[0] / _of(pairs, "loss")[0]
    assert ratio == pytest.approx(1 / _of(pairs, "mean_weight")[0], rel=1e-5)
    assert _of(mean, "effective_sample_size") == _of(pairs, "effective_sample_size")


def test_the_datas_own_weights_count(base: Path, tmp_path: Path) -> None:
    ones = [replace(pair, weight=1.0) for pair in PAIRS]
    _run(base, tmp_path / "none", {"name": "dpo"})
    _run(base, tmp_path / "ones", {"name": "dpo"}, ones)
    assert _difference(_weights(tmp_path / "none"), _weights(tmp_path / "ones")) == 0
    # A pair of weight 0 is in the batch, and teaches nothing.
    half = [replace(pair, weight=float(i < 5)) for i, pair in enumerate(PAIRS)]
    curves = _run(base, tmp_path / "half", {"name": "dpo"}, half, batch_size=10, epochs=1)
    assert _of(curves, "mean_weight") == [0.5]
    assert _of(curves, "effective_sample_size") == [5]
    for bad, message in ((-1.0, "weights must be ≥ 0"), (0.0, "every pair has weight 0")):
        with pytest.raises(DataError, match=message):
            _run(base, tmp_path / "bad", {"name": "dpo"}, [replace(pair, weight=bad) for pair in PAIRS])


def test_beta_dpo_logs_its_state(base: Path, tmp_path: Path) -> None:
    curves = _run(base, tmp_path / "beta", {"name": "beta_dpo", "share": 0.5})
    assert _of(curves, "gap_std")[0] == 0.0  # the policy is the reference
    assert _of(curves, "kept_share")[0] == 1.0
    assert _of(curves, "beta")[0] == 0.1
    assert _of(curves, "gap_mean")[-1] > 0
    assert {0.5} <= set(_of(curves, "kept_share"))


def test_ktos_reference_point_is_computed_in_the_policys_precision(base: Path, tmp_path: Path) -> None:
    curves = _run(base, tmp_path / "kto", {"name": "kto"}, precision="bfloat16", epochs=1, warmup_ratio=0.0)
    assert _of(curves, "kl")[0] == pytest.approx(0.0, abs=0.01)  # nothing was learnt yet
    assert _of(curves, "loss")[0] == pytest.approx(0.5, abs=1e-3)


def test_additive_needs_scores(base: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="1 of 10 pairs lack chosen_score"):
        _run(base, tmp_path / "x", {"name": "additive"}, [*PAIRS[:9], replace(PAIRS[9], chosen_fidelity=None)])
    with pytest.raises(DataError, match="fidelity scores are all equal"):
        _run(base, tmp_path / "x", {"name": "additive"}, [replace(pair, chosen_fidelity=1.0) for pair in PAIRS])


def test_low_rank_adapters_leave_the_reference_as_it_was(base: Path, tmp_path: Path) -> None:
    plain = _run(base, tmp_path / "plain", {"name": "dpo"})
    curves = _run(base, tmp_path / "lora", {"name": "dpo"}, lora={"rank": 4}, learning_rate=1e-2)
    assert _of(curves, "loss")[0] == pytest.approx(_of(plain, "loss")[0], abs=1e-6)  # adapters begin as nothing
    assert _of(curves, "loss")[-1] < 0.6
    assert len(list((tmp_path / "cache").iterdir())) == 1
    assert (tmp_path / "lora" / "adapter_model.safetensors").is_file()
    trained, _ = load_causal(tmp_path / "lora")
    reference, _ = load_causal(base)
    ids = torch.tensor([[5, 6, 7]])
    assert not torch.allclose(trained(ids).logits, reference(ids).logits, atol=1e-3)
    assert load_rewriter(tmp_path / "lora").rewrite(["a red cat"], 1, 0)


def test_a_broken_pair_stops_training_and_the_last_checkpoint_stays(base: Path, tmp_path: Path) -> None:
    kept = []
    for broken in range(2):  # one of them at least does not come first
        pairs = [replace(pair, weight=1e38 if i == broken else 1.0) for i, pair in enumerate(PAIRS)]
        output = tmp_path / f"out{broken}"
        with pytest.raises(DataError, match=rf"(loss|gradient) .* at step \d+ \(pair {PAIRS[broken].pair_id}"):
            _run(base, output, {"name": "dpo"}, pairs, batch_size=1, epochs=1, checkpoint_steps=1, beta=10.0)
        assert not output.exists()
        kept += list((tmp_path / f"out{broken}.checkpoints").glob("checkpoint-*"))
    assert kept
    for checkpoint in kept:
        assert all(value.isfinite().all() for value in _weights(checkpoint).values())
        assert json.loads((checkpoint / "trainer_state.json").read_text())["log_history"]


def test_a_finished_training_leaves_no_checkpoints(base: Path, tmp_path: Path) -> None:
    _run(base, tmp_path / "out", {"name": "dpo"}, checkpoint_steps=1)
    assert {each.name for each in tmp_path.iterdir()} == {"out", "cache"}


def test_the_card_says_what_it_was_made_of(base: Path, tmp_path: Path) -> None:
    _run(base, tmp_path / "out", {"name": "sem_dpo", "alpha": 3.0}, epochs=1)
    card = (tmp_path / "out" / "README.md").read_text()
    for part in ("alpha 3.0", "| beta | 0.1 |", "SHA-256 of the pairs", "torch version", "| pairs | 10 |"):
        assert part in card


def test_batches_that_cannot_be_divided_are_refused(base: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="micro_batch_size 3 does not divide"):
        _run(base, tmp_path / "x", {"name": "dpo"}, micro_batch_size=3)


def test_a_long_fall_of_the_chosen_is_told_once() -> None:
    watch = Displacement()
    said = [watch.seen(-step / STEPS) for step in range(2 * WINDOWS * STEPS)]
    assert [bool(each) for each in said].count(True) == 1
    assert "nll_coef" in said[WINDOWS * STEPS - 1]
    rising = Displacement()
    assert not any(rising.seen(step / STEPS) for step in range(2 * WINDOWS * STEPS))


class _Stops(EarlyStoppingCallback):  # type: ignore[misc]
    """transformers' own, which also keeps what it was told."""

    def __init__(self) -> None:
        super().__init__(early_stopping_patience=2)
        self.losses: list[float] = []

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: dict[str, float], **more: Any) -> None:
        super().on_evaluate(args, state, control, metrics, **more)
        self.losses.append(metrics["eval_loss"])


def _trainer(base: Path, folder: Path, objective: dict[str, Any], flip: bool, **more: Any) -> ExampleTrainer:
    """Six examples to learn; the other four are held out, with chosen and rejected exchanged where ``flip``."""
    model, tokenizer = load_causal(base)
    sides = [(p.rejected, p.chosen) if flip and i >= 6 else (p.chosen, p.rejected) for i, p in enumerate(PAIRS)]
    groups = encode(tokenizer, "{prompt}", [p.prompt for p in PAIRS], sides)
    logps = reference_logps(model, groups, prepare(model))
    examples = [Example(str(i), group, known) for i, (group, known) in enumerate(zip(groups, logps, strict=True))]
    goal = TrainConfig.model_validate({"methods": {"m": objective}}).methods["m"]
    args = training_arguments(folder, learning_rate=1e-3, **more)
    return ExampleTrainer(
        model, args, examples[:6], objective=goal, batch_size=3, epochs=10, held_out=examples[6:], callbacks=[]
    )


def test_early_stopping_is_transformers_own(base: Path, tmp_path: Path) -> None:
    often = {
        "eval_strategy": "steps",
        "eval_steps": 1,
        "metric_for_best_model": "eval_loss",
        "greater_is_better": False,
    }
    good = _trainer(base, tmp_path / "good", {"name": "dpo"}, flip=False, **often)
    told = _Stops()
    good.add_callback(told)
    good.train()
    assert len(told.losses) == 20
    assert told.losses[0] > told.losses[-1]
    assert [c.value for c in good.curves if c.name == "eval_loss"] == told.losses
    bad = _trainer(base, tmp_path / "bad", {"name": "dpo"}, flip=True, **often)
    told = _Stops()
    bad.add_callback(told)
    bad.train()
    assert bad.state.global_step < 20, "what it learns is wrong for the held-out pairs"


def test_evaluation_changes_neither_weights_nor_the_running_mean(base: Path, tmp_path: Path) -> None:
    plain = _trainer(base, tmp_path / "plain", {"name": "beta_dpo"}, flip=False)
    watched = _trainer(base, tmp_path / "w", {"name": "beta_dpo"}, flip=False, eval_strategy="steps", eval_steps=1)
    plain.train()
    watched.train()
    assert [c for c in watched.curves if not c.name.startswith("eval_")] == plain.curves
    found, wanted = watched.model.state_dict(), plain.model.state_dict()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_evaluating_nothing_is_refused(base: Path, tmp_path: Path) -> None:
    trainer = _trainer(base, tmp_path / "none", {"name": "dpo"}, flip=False)
    trainer.eval_dataset = type(trainer.eval_dataset)([])
    with pytest.raises(DataError, match="held-out"):
        trainer.evaluate()
