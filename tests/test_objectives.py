from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from semdpo import objectives
from semdpo.semantics import semantic_weight

GOLDEN = Path(os.environ.get("SEMDPO_GOLDEN") or Path(__file__).parent / "golden") / "objectives.json"
CASES = [case for case in json.loads(GOLDEN.read_text())["cases"] if case["objective"] == "dpo"]
NAMES = ("policy_chosen_logps", "policy_rejected_logps", "ref_chosen_logps", "ref_rejected_logps")
TOLERANCE = {torch.float64: {"rtol": 1e-8, "atol": 1e-9}, torch.float32: {"rtol": 1e-5, "atol": 5e-5}}


def test_there_are_golden_cases() -> None:
    assert len(CASES) == 7


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_dpo_equals_the_official_code(case: dict[str, Any], dtype: torch.dtype) -> None:
    inputs = [torch.tensor(case["inputs"][name], dtype=dtype, requires_grad="policy" in name) for name in NAMES]
    found = objectives.dpo(*inputs, beta=case["hyper"]["beta"])
    expected = case["expected"]

    def same(actual: torch.Tensor | None, name: str) -> None:
        wanted = torch.tensor(expected[name], dtype=dtype)
        torch.testing.assert_close(actual, wanted, **TOLERANCE[dtype])

    same(found.losses.detach(), "losses")
    same(found.chosen_rewards, "chosen_rewards")
    same(found.rejected_rewards, "rejected_rewards")
    loss = found.losses.mean()
    loss.backward()
    same(loss.detach(), "loss")
    same(inputs[0].grad, "grad_policy_chosen_logps")
    same(inputs[1].grad, "grad_policy_rejected_logps")


@pytest.fixture
def logps() -> list[torch.Tensor]:
    torch.manual_seed(0)
    return [-50 * torch.rand(64) for _ in range(4)]


def test_sem_dpo_with_alpha_zero_is_dpo_to_the_bit(logps: list[torch.Tensor]) -> None:
    plain = objectives.dpo(*logps, beta=0.05)
    weighted = objectives.sem_dpo(*logps, beta=0.05, distance=2 * torch.rand(64), alpha=0.0)
    assert all(torch.equal(a, b) for a, b in zip(plain, weighted, strict=True))


def test_sem_dpo_multiplies_each_pairs_loss_by_its_weight(logps: list[torch.Tensor]) -> None:
    distance = 2 * torch.rand(64)
    plain = objectives.dpo(*logps, beta=0.05)
    weighted = objectives.sem_dpo(*logps, beta=0.05, distance=distance, alpha=4.0)
    torch.testing.assert_close(weighted.losses, torch.exp(-4 * distance) * plain.losses)
    assert torch.equal(weighted.chosen_rewards, plain.chosen_rewards)


def test_the_two_weights_agree() -> None:
    distance = torch.rand(50, dtype=torch.float64) * 2
    np.testing.assert_allclose(objectives.weight(distance, 4.0), semantic_weight(distance.numpy(), 4.0), rtol=1e-14)


def test_half_precision_is_computed_in_single(logps: list[torch.Tensor]) -> None:
    half = [each.bfloat16() for each in logps]
    wanted = objectives.dpo(*[each.float() for each in half], beta=0.1)
    assert torch.equal(objectives.dpo(*half, beta=0.1).losses, wanted.losses)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"beta": 0.0}, "beta must be positive"),
        ({"alpha": -1.0}, "alpha must be"),
        ({"alpha": float("nan")}, "alpha must be"),
        ({"distance": torch.full((64,), 2.1)}, r"lie in \[0, 2\]"),
        ({"distance": torch.full((64,), float("nan"))}, r"lie in \[0, 2\]"),
        ({"distance": torch.zeros(3)}, "shape"),
    ],
)
def test_bad_arguments_are_refused(logps: list[torch.Tensor], change: dict[str, Any], message: str) -> None:
    good: dict[str, Any] = {"beta": 0.1, "distance": torch.zeros(64), "alpha": 1.0}
    with pytest.raises(ValueError, match=message):
        objectives.sem_dpo(*logps, **(good | change))


def test_logps_of_different_lengths_are_refused(logps: list[torch.Tensor]) -> None:
    with pytest.raises(ValueError, match="one length"):
        objectives.dpo(logps[0][:3], *logps[1:], beta=0.1)


def test_sequence_logps_sums_the_labelled_tokens_only() -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 5, 7)
    ids = torch.randint(0, 7, (2, 5))
    labels = ids.clone()
    labels[0, :2] = objectives.IGNORED
    labels[1, :3] = objectives.IGNORED
    labels[1, 4:] = objectives.IGNORED
    logs = logits.log_softmax(-1)
    wanted = torch.stack([logs[0, 1, ids[0, 2]] + logs[0, 2, ids[0, 3]] + logs[0, 3, ids[0, 4]], logs[1, 2, ids[1, 3]]])
    torch.testing.assert_close(objectives.sequence_logps(logits, labels), wanted)


def test_sequence_logps_of_impossible_unlabelled_tokens_is_finite() -> None:
    logits = torch.zeros(1, 3, 4)
    logits[0, 0, 0] = float("-inf")
    labels = torch.tensor([[objectives.IGNORED, objectives.IGNORED, 2]])
    assert objectives.sequence_logps(logits, labels).item() == pytest.approx(-np.log(4))
