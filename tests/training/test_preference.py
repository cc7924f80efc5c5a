from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from semdpo.analysis.semantics import automatic_alpha
from semdpo.data.records import Curve, Pair, content_id
from semdpo.errors import DataError
from semdpo.models.rewriter import load_causal
from semdpo.progress import silent
from semdpo.recipe.objectives import DPOSettings, SemDPOSettings
from semdpo.recipe.schema import TrainConfig
from semdpo.training.batches import encode
from semdpo.training.logps import group_logps
from semdpo.training.packing import Group
from semdpo.training.preference import train
from semdpo.training.reference import reference_logps
from tests import tiny_models

DPO = DPOSettings(name="dpo")
COLORS = ["red", "blue", "green", "grey", "pink", "gold", "white"]
NAMES = {
    "loss",
    "reward_margin",
    "reward_accuracy",
    "chosen_logp_change",
    "rejected_logp_change",
    "mean_weight",
    "effective_sample_size",
    "completion_length",
    "tokens",
    "learning_rate",
}


def _pair(prompt: str, chosen: str, rejected: str, distance: float | None) -> Pair:
    return Pair(content_id(prompt, chosen, rejected), prompt, chosen, rejected, 1.0, 0.0, distance)


PAIRS = [_pair(f"a {c} cat", f"a {c} cat, art", "a dog, bad", i / 10) for i, c in enumerate(COLORS)]


def _config(**changes: object) -> TrainConfig:
    values = {
        "precision": "float32",
        "methods": {"dpo": DPO},
        "learning_rate": 1e-3,
        "epochs": 4,
        "batch_size": 3,
        "seed": 1,
        "beta": 0.1,
    }
    return TrainConfig.model_validate(values | changes)


def _of(curves: Sequence[Curve], name: str) -> list[float]:
    return [curve.value for curve in curves if curve.name == name]


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def _logps(folder: Path, texts: Sequence[str]) -> torch.Tensor:
    model, tokenizer = load_causal(folder)
    prompts = [each.prompt for each in PAIRS]
    groups = encode(tokenizer, tiny_models.TEMPLATE, prompts, [(each,) for each in texts])
    return torch.tensor(reference_logps(model, groups, can_pack=False)).squeeze(-1)


def test_dpo_prefers_the_chosen(base: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    notes: list[tuple[int, int, str]] = []
    output = tmp_path / "dpo"
    curves = train(
        PAIRS,
        str(base),
        DPO,
        _config(),
        output,
        tmp_path / "cache",
        lambda done, total, note="": notes.append((done, total, note)),
    )
    assert capfd.readouterr() == ("", "")
    assert {curve.name for curve in curves} == NAMES
    assert [curve.step for curve in curves if curve.name == "loss"] == list(range(12))
    losses = _of(curves, "loss")
    assert losses[0] == pytest.approx(math.log(2), abs=1e-5)  # the policy starts as the reference
    assert losses[-1] < 0.6
    assert _of(curves, "reward_accuracy")[-1] == 1
    assert _of(curves, "mean_weight") == [1.0] * 12
    assert sorted(_of(curves, "effective_sample_size")[:3]) == [2, 2, 3]
    assert _of(curves, "learning_rate")[0] == 0
    margin = torch.stack(
        [_logps(each, [p.chosen for p in PAIRS]) - _logps(each, [p.rejected for p in PAIRS]) for each in (base, output)]
    )
    assert (margin[1] > margin[0]).all()
    assert notes[-1][:2] == (12, 12)
    assert "tokens/s" in notes[-1][2]


def test_the_curves_are_those_of_the_log_probabilities(base: Path, tmp_path: Path) -> None:
    # one batch holds all pairs, so that the changes at the second step are those of a model that took one step
    config = _config(batch_size=7, epochs=2, warmup_ratio=0.0)
    curves = train(PAIRS, str(base), DPO, config, tmp_path / "two", tmp_path / "cache", silent)
    assert _of(curves, "learning_rate") == [1e-3, 5e-4]
    change, back = _of(curves, "chosen_logp_change")[1], _of(curves, "rejected_logp_change")[1]
    assert change > 0 > back
    assert _of(curves, "reward_margin")[1] == pytest.approx(0.1 * (change - back), rel=1e-4)


def test_sem_dpo_with_alpha_zero_is_dpo_bit_for_bit(base: Path, tmp_path: Path) -> None:
    runs = {}
    for name, objective in {
        "dpo": DPO,
        "zero": SemDPOSettings(name="sem_dpo", alpha=0.0),
        "four": SemDPOSettings(name="sem_dpo", alpha=4.0),
    }.items():
        runs[name] = train(PAIRS, str(base), objective, _config(), tmp_path / name, tmp_path / "cache", silent)
    dpo, zero, four = (_weights(tmp_path / name) for name in ("dpo", "zero", "four"))
    assert all(torch.equal(dpo[key], zero[key]) for key in dpo)
    assert not all(torch.equal(dpo[key], four[key]) for key in dpo)
    assert [replace(c, method="") for c in runs["dpo"]] == [replace(c, method="") for c in runs["zero"]]
    assert all(0 < value < 1 for value in _of(runs["four"], "mean_weight"))


def test_a_sweep_of_alphas_asks_the_reference_once(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Distances are stored with the pairs, so nothing but the trainings is left of a sweep."""
    asked: list[int] = []

    def counting(model: Any, groups: Sequence[Group], can_pack: bool) -> torch.Tensor:
        asked.append(len(groups))
        return group_logps(model, groups, can_pack)

    monkeypatch.setattr("semdpo.training.reference.group_logps", counting)
    for alpha in (0, 1, 2, 4, 8, 16):
        objective = SemDPOSettings(name="sem_dpo", alpha=alpha)
        train(PAIRS, str(base), objective, _config(epochs=1), tmp_path / f"{alpha}", tmp_path / "cache", silent)
    assert sum(asked) == len(PAIRS)


def test_an_automatic_alpha_is_the_number_that_it_finds(
    base: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    distances = [each.distance or 0.0 for each in PAIRS]
    found = automatic_alpha(distances, 0.6)
    for name, alpha in (("auto", "auto"), ("number", found)):
        objective = SemDPOSettings(name="sem_dpo", alpha=alpha, kept_share=0.6)
        train(PAIRS, str(base), objective, _config(epochs=1), tmp_path / name, tmp_path / "cache", silent)
    assert f"sem_dpo: alpha is {found:.3g}, computed from the pairs" in capfd.readouterr().err
    one, other = _weights(tmp_path / "auto"), _weights(tmp_path / "number")
    assert all(torch.equal(one[name], other[name]) for name in one)
    equal = [replace(each, distance=0.3) for each in PAIRS]
    auto = SemDPOSettings(name="sem_dpo", alpha="auto")
    with pytest.raises(DataError, match="alpha: auto: no alpha reduces"):
        train(equal, str(base), auto, _config(), tmp_path / "e", tmp_path / "cache", silent)


def test_the_loss_is_the_weighted_sum_over_the_number_of_pairs(base: Path, tmp_path: Path) -> None:
    objective = SemDPOSettings(name="sem_dpo", alpha=2.0)
    curves = train(
        PAIRS, str(base), objective, _config(batch_size=7, epochs=1), tmp_path / "out", tmp_path / "cache", silent
    )
    weights = [math.exp(-2 * i / 10) for i in range(7)]
    assert _of(curves, "loss")[0] == pytest.approx(math.log(2) * sum(weights) / 7, rel=1e-5)
    assert _of(curves, "mean_weight")[0] == pytest.approx(sum(weights) / 7, rel=1e-6)
    ess = sum(weights) ** 2 / sum(w * w for w in weights)
    assert _of(curves, "effective_sample_size")[0] == pytest.approx(ess, rel=1e-6)


def test_under_a_render_budget_a_pair_weighs_w_over_p(base: Path, tmp_path: Path) -> None:
    """The weight 1/p of its own multiplies W; batches are divided by the number of the pairs that were kept."""
    kept = [replace(pair, weight=math.exp(2 * i / 20)) for i, pair in enumerate(PAIRS) if i % 3]
    objective, config = SemDPOSettings(name="sem_dpo", alpha=2.0), _config(batch_size=4, epochs=1)
    curves = train(kept, str(base), objective, config, tmp_path / "out", tmp_path / "cache", silent)
    weights = [math.exp(-2 * i / 10) / math.exp(-2 * i / 20) for i in range(7) if i % 3]
    assert _of(curves, "loss")[0] == pytest.approx(math.log(2) * sum(weights) / 4, rel=1e-5)
    assert _of(curves, "mean_weight")[0] == pytest.approx(sum(weights) / 4, rel=1e-6)


def test_pairs_that_no_weight_is_left_of_are_refused(base: Path, tmp_path: Path) -> None:
    far = [replace(pair, distance=0.5) for pair in PAIRS]
    objective = SemDPOSettings(name="sem_dpo", alpha=300.0)  # exp(-150) is 0 in float32
    with pytest.raises(DataError, match=r"every pair has a weight of 0, .*lower alpha"):
        train(far, str(base), objective, _config(), tmp_path / "out", tmp_path / "cache", silent)
    assert not (tmp_path / "out").exists()


def test_a_far_winner_is_learnt_less(base: Path, tmp_path: Path) -> None:
    pairs = [replace(pair, distance=0.0 if i < 3 else 1.5) for i, pair in enumerate(PAIRS)]
    pairs = [
        replace(p, chosen=f"{p.prompt} near", rejected="far") if i < 3 else replace(p, chosen="far")
        for i, p in enumerate(pairs)
    ]
    gain = {}
    for name, objective in (("dpo", DPO), ("sem", SemDPOSettings(name="sem_dpo", alpha=4.0))):
        train(pairs, str(base), objective, _config(epochs=8), tmp_path / name, tmp_path / "cache", silent)
        gain[name] = (_logps(tmp_path / name, ["far"] * 7) - _logps(base, ["far"] * 7)).mean()
    assert gain["sem"] < gain["dpo"]


def test_the_same_seed_gives_the_same_files(base: Path, tmp_path: Path) -> None:
    for name, seed in (("one", 1), ("two", 1), ("other", 2)):
        train(PAIRS, str(base), DPO, _config(epochs=1, seed=seed), tmp_path / name, tmp_path / "cache", silent)
    one, two, other = ({f.name: f.read_bytes() for f in (tmp_path / n).iterdir()} for n in ("one", "two", "other"))
    assert one == two
    assert one["model.safetensors"] != other["model.safetensors"]


def test_pairs_without_distance_are_for_dpo_only(base: Path, tmp_path: Path) -> None:
    pairs = [*PAIRS[:2], replace(PAIRS[2], distance=None)]
    train(pairs, str(base), DPO, _config(epochs=1), tmp_path / "dpo", tmp_path / "cache", silent)
    with pytest.raises(DataError, match=r"1 of 3 pairs have no distance \(such as .*run `semdpo weigh` first"):
        train(pairs, str(base), SemDPOSettings(name="sem_dpo"), _config(), tmp_path / "sem", tmp_path / "cache", silent)
    wrong = [replace(PAIRS[0], distance=float("nan"))]
    with pytest.raises(DataError, match="not a cosine distance"):
        train(wrong, str(base), SemDPOSettings(name="sem_dpo"), _config(), tmp_path / "sem", tmp_path / "cache", silent)


def test_bad_input_is_refused_and_leaves_nothing(base: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no pairs to train on"):
        train([], str(base), DPO, _config(), tmp_path / "out", tmp_path / "cache", silent)
    long = _pair("a", "x" * 90, "b", 0.1)
    with pytest.raises(DataError, match=rf"1 of 2 rows are longer than 96 tokens \(pair {long.pair_id}\); raise"):
        train([PAIRS[0], long], str(base), DPO, _config(max_length=96), tmp_path / "out", tmp_path / "cache", silent)
    assert list(tmp_path.iterdir()) == []


def test_a_loss_that_is_not_finite_names_its_pairs(base: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"(is not finite|gradient is \w+) at step \d+ \(pair {PAIRS[0].pair_id}"):
        train(
            PAIRS[:1],
            str(base),
            DPO,
            _config(learning_rate=1.0, epochs=60, beta=1e38),
            tmp_path / "out",
            tmp_path / "cache",
            silent,
        )
    assert [each.name for each in tmp_path.iterdir()] == ["cache"]
