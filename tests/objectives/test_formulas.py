"""Every objective against the official code's numbers, and against what must hold of it."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from semdpo import objectives
from semdpo.analysis.semantics import scorer_disagreement, semantic_weight, small_margin
from semdpo.objectives import GapState
from semdpo.recipe.discovery import OBJECTIVES

GOLDEN = Path(os.environ.get("SEMDPO_GOLDEN") or Path(__file__).parents[1] / "golden") / "objectives.json"
CASES: list[dict[str, Any]] = json.loads(GOLDEN.read_text())["cases"]
NAMES = ("policy_chosen_logps", "policy_rejected_logps", "ref_chosen_logps", "ref_rejected_logps")
TOLERANCE = {torch.float64: {"rtol": 1e-8, "atol": 1e-9}, torch.float32: {"rtol": 1e-5, "atol": 5e-5}}
DTYPES = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])


def _cases(objective: str) -> Any:
    found = [case for case in CASES if case["objective"] == objective]
    return pytest.mark.parametrize("case", found, ids=lambda case: case["name"])


def _same(actual: Any, case: dict[str, Any], name: str, dtype: torch.dtype) -> None:
    wanted = torch.tensor(case["expected"][name], dtype=dtype)
    torch.testing.assert_close(torch.as_tensor(actual, dtype=dtype).detach(), wanted, **TOLERANCE[dtype])


def _inputs(case: dict[str, Any], names: tuple[str, ...], dtype: torch.dtype) -> list[torch.Tensor]:
    return [torch.tensor(case["inputs"][name], dtype=dtype, requires_grad=not name.startswith("ref")) for name in names]


def test_there_are_golden_cases_of_every_objective() -> None:
    assert {case["objective"] for case in CASES} == {"dpo", "kto", "orpo", "beta_dpo"}


@DTYPES
@_cases("dpo")
def test_dpo_equals_the_official_code(case: dict[str, Any], dtype: torch.dtype) -> None:
    inputs = _inputs(case, NAMES, dtype)
    found = objectives.dpo(*inputs, beta=case["hyper"]["beta"])
    for name in ("losses", "chosen_rewards", "rejected_rewards"):
        _same(getattr(found, name), case, name, dtype)
    loss = found.losses.mean()
    loss.backward()
    _same(loss, case, "loss", dtype)
    _same(inputs[0].grad, case, "grad_policy_chosen_logps", dtype)
    _same(inputs[1].grad, case, "grad_policy_rejected_logps", dtype)


@DTYPES
@_cases("kto")
def test_kto_equals_the_official_code(case: dict[str, Any], dtype: torch.dtype) -> None:
    names = ("policy_logps", "ref_logps", "policy_kl_logps", "ref_kl_logps")
    policy, reference, policy_kl, reference_kl = _inputs(case, names, dtype)
    desirable = torch.tensor(case["inputs"]["desirable"], dtype=torch.bool)
    found = objectives.kto(policy, reference, desirable, policy_kl, reference_kl, **case["hyper"])
    for name in ("losses", "rewards", "kl"):
        _same(getattr(found, name), case, name, dtype)
    loss = found.losses.mean()
    loss.backward()
    _same(loss, case, "loss", dtype)
    _same(policy.grad, case, "grad_policy_logps", dtype)
    assert policy_kl.grad is None


@DTYPES
@_cases("orpo")
def test_orpo_equals_the_official_code(case: dict[str, Any], dtype: torch.dtype) -> None:
    chosen, rejected = _inputs(case, ("chosen_mean_logps", "rejected_mean_logps"), dtype)
    nll = torch.tensor(case["inputs"]["nll"], dtype=dtype)
    found = objectives.orpo(chosen, rejected, nll=nll, odds_weight=case["hyper"]["alpha"])
    _same(found.losses, case, "losses", dtype)
    loss = found.losses.mean()
    loss.backward()
    _same(loss, case, "loss", dtype)
    _same(chosen.grad, case, "grad_chosen_mean_logps", dtype)
    _same(rejected.grad, case, "grad_rejected_mean_logps", dtype)


@DTYPES
@_cases("beta_dpo")
def test_beta_dpo_equals_the_official_code(case: dict[str, Any], dtype: torch.dtype) -> None:
    inputs, hyper = _inputs(case, NAMES, dtype), case["hyper"]
    kept = torch.tensor(case["inputs"]["kept_indices"])
    found = objectives.beta_dpo(
        *inputs,
        beta=hyper["beta"],
        sensitivity=hyper["a"],
        share=hyper["rho"],
        state=GapState(case["inputs"]["gap_mean"], case["inputs"]["gap_std"]),
        kept=kept,
    )
    for name in ("losses", "chosen_rewards", "rejected_rewards"):
        _same(getattr(found, name), case, name, dtype)
    _same(found.state.mean, case, "gap_mean", dtype)
    _same(found.state.std, case, "gap_std", dtype)
    _same(found.beta, case, "beta_used", dtype)
    loss = found.losses[found.kept].mean()
    loss.backward()
    _same(loss, case, "loss", dtype)
    _same(inputs[0].grad, case, "grad_policy_chosen_logps", dtype)
    _same(inputs[1].grad, case, "grad_policy_rejected_logps", dtype)


@_cases("beta_dpo")
def test_beta_dpo_draws_as_many_as_the_official_code(case: dict[str, Any]) -> None:
    inputs, hyper = _inputs(case, NAMES, torch.float64), case["hyper"]
    state = GapState(case["inputs"]["gap_mean"], case["inputs"]["gap_std"])
    draws = [
        objectives.beta_dpo(
            *inputs,
            beta=hyper["beta"],
            sensitivity=hyper["a"],
            share=hyper["rho"],
            state=state,
            generator=torch.Generator().manual_seed(7),
        ).kept.tolist()
        for _ in range(2)
    ]
    assert draws[0] == draws[1] == sorted(set(draws[0]))
    assert len(draws[0]) == case["expected"]["n_kept"]


def _logps(count: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [-50 * torch.rand(count, generator=generator, dtype=dtype) for _ in range(4)]


@pytest.mark.parametrize(
    "alike",
    [
        "policy equals reference at the first step",
        "one pair",
        "nothing to draw",
        "all chances are 0",
    ],
)
def test_beta_dpo_keeps_everything_where_the_official_code_fails(alike: str) -> None:
    inputs, share, state = _logps(4), 0.8, GapState()
    match alike:
        case "policy equals reference at the first step":
            inputs[:2] = inputs[2:]
        case "one pair":
            inputs = _logps(1)
        case "nothing to draw":
            share = 0.2
        case "all chances are 0":
            inputs = [torch.tensor([900.0, 901.0, 902.0]), *[torch.zeros(3)] * 3]
    found = objectives.beta_dpo(*inputs, beta=0.1, sensitivity=0.6, share=share, state=state)
    assert found.beta == 0.1
    assert found.kept.tolist() == list(range(len(inputs[0])))
    torch.testing.assert_close(found.losses, objectives.dpo(*inputs, beta=0.1).losses)


# ---------------------------------------------------------------------------------------------- weights

WEIGHTED = {
    "sft": lambda four, weight: objectives.sft(four[0], mean_tokens=9.0, weight=weight),
    "dpo": lambda four, weight: objectives.dpo(*four, beta=0.05, weight=weight).losses,
    "sem_dpo": lambda four, weight: (
        objectives.sem_dpo(*four, beta=0.05, distance=torch.full_like(four[0], 0.2), alpha=4.0, weight=weight).losses
    ),
    "beta_dpo": lambda four, weight: (
        objectives.beta_dpo(*four, beta=0.05, sensitivity=0.6, share=1.0, state=GapState(), weight=weight).losses
    ),
    "kto": lambda four, weight: (
        objectives.kto(four[0], four[2], four[1] < four[3], four[1], four[3], beta=0.1, weight=weight).losses
    ),
    "orpo": lambda four, weight: (
        objectives.orpo(four[0] / 20 - 0.01, four[1] / 20 - 0.01, nll=-four[0], odds_weight=0.1, weight=weight).losses
    ),
    "ipo": lambda four, weight: objectives.ipo(*(each / 20 for each in four), beta=0.05, weight=weight).losses,
    "simpo": lambda four, weight: (
        objectives.simpo(four[0] / 20, four[1] / 20, reward_scale=2.0, margin=1.0, weight=weight).losses
    ),
    "additive": lambda four, weight: (
        objectives.additive(
            *four, beta=0.05, preference=four[0] - four[1], fidelity=four[2] - four[3], coefficient=0.5, weight=weight
        ).losses
    ),
}


def test_every_objective_has_a_weight() -> None:
    assert WEIGHTED.keys() == OBJECTIVES.keys()


@pytest.mark.parametrize("name", WEIGHTED)
def test_weight_one_changes_no_bit_and_other_weights_multiply(name: str) -> None:
    four = _logps(64)
    plain = WEIGHTED[name](four, None)
    assert torch.equal(WEIGHTED[name](four, torch.ones(64)), plain)
    weight = torch.rand(64)
    torch.testing.assert_close(WEIGHTED[name](four, weight), weight * plain)
    with pytest.raises(ValueError, match="weights must be finite"):
        WEIGHTED[name](four, -weight)
    with pytest.raises(ValueError, match="shape"):
        WEIGHTED[name](four, weight[:3])


@pytest.mark.parametrize("name", WEIGHTED)
@given(seed=st.integers(0, 10**6), count=st.integers(2, 9))
@settings(max_examples=20, deadline=None)
def test_the_order_of_pairs_changes_nothing(name: str, seed: int, count: int) -> None:
    four = _logps(count, torch.float64, seed)
    weight = torch.rand(count, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    moved = WEIGHTED[name]([each[order] for each in four], weight[order])
    torch.testing.assert_close(moved, WEIGHTED[name](four, weight)[order], rtol=1e-9, atol=1e-9)


@given(
    distances=st.lists(st.floats(0, 2), min_size=1, max_size=8),
    alpha=st.floats(0, 10),
    beta=st.floats(0.01, 1),
    seed=st.integers(0, 10**6),
)
@settings(max_examples=50, deadline=None)
def test_the_gradient_of_a_pair_is_its_weight_times_dpos(
    distances: list[float], alpha: float, beta: float, seed: int
) -> None:
    distance = torch.tensor(distances, dtype=torch.float64)
    gradients = []
    for weighted in (False, True):
        four = [each.requires_grad_() for each in _logps(len(distances), torch.float64, seed)]
        found = (
            objectives.sem_dpo(*four, beta=beta, distance=distance, alpha=alpha)
            if weighted
            else objectives.dpo(*four, beta=beta)
        )
        gradients.append(torch.stack(torch.autograd.grad(found.losses.sum(), four)))
    weights = torch.exp(-alpha * distance)
    torch.testing.assert_close(gradients[1], weights * gradients[0], rtol=1e-12, atol=1e-14)


def test_sem_dpo_with_alpha_zero_is_dpo_to_the_bit() -> None:
    four = _logps(64)
    plain = objectives.dpo(*four, beta=0.05)
    weighted = objectives.sem_dpo(*four, beta=0.05, distance=2 * torch.rand(64), alpha=0.0)
    assert all(torch.equal(a, b) for a, b in zip(plain, weighted, strict=True))


@pytest.mark.parametrize("family", [scorer_disagreement, small_margin])
def test_every_family_of_weights_with_alpha_zero_is_dpo_to_the_bit(family: Callable[[Any], Any]) -> None:
    four = _logps(64)
    values = np.random.default_rng(0).normal(0.3, 1, 64)
    distance = torch.from_numpy(family(values))
    assert distance.min() >= 0
    assert distance.max() > 0.5
    plain = objectives.dpo(*four, beta=0.05)
    weighted = objectives.sem_dpo(*four, beta=0.05, distance=distance, alpha=0.0)
    assert all(torch.equal(a, b) for a, b in zip(plain, weighted, strict=True))
    assert (semantic_weight(distance.numpy(), 0.0) == 1.0).all()


def test_the_two_weights_agree() -> None:
    distance = torch.rand(50, dtype=torch.float64) * 2
    found = objectives.semantic_weight(distance, 4.0)
    np.testing.assert_allclose(found, semantic_weight(distance.numpy(), 4.0), rtol=1e-14)


def test_half_precision_is_computed_in_single() -> None:
    half = [each.bfloat16() for each in _logps(64)]
    wanted = objectives.dpo(*[each.float() for each in half], beta=0.1)
    assert torch.equal(objectives.dpo(*half, beta=0.1).losses, wanted.losses)


# ---------------------------------------------------------------------------------------------- the others


def test_the_mean_of_sft_is_the_mean_over_tokens() -> None:
    logps, tokens = torch.tensor([-6.0, -4.0]), torch.tensor([2.0, 8.0])
    found = objectives.sft(logps, mean_tokens=float(tokens.mean()))
    assert found.mean().item() == pytest.approx(-(logps.sum() / tokens.sum()).item())


def test_additive_is_dpo_on_the_pairs_that_the_sum_orders() -> None:
    four = _logps(3)
    preference, fidelity = torch.tensor([1.0, 1.0, 1.0]), torch.tensor([1.0, -3.0, -2.0])
    found = objectives.additive(*four, beta=0.1, preference=preference, fidelity=fidelity, coefficient=0.5)
    stays, flips = objectives.dpo(*four, beta=0.1), objectives.dpo(four[1], four[0], four[3], four[2], beta=0.1)
    assert found.losses[0] == stays.losses[0]
    assert found.losses[1] == flips.losses[1]
    assert found.losses[2] == 0  # a tie teaches nothing
    assert found.chosen_rewards[1] == flips.chosen_rewards[1]


def test_the_additive_coefficient_gives_both_scores_the_same_say() -> None:
    preferences, fidelities = torch.tensor([0.0, 4.0, 8.0]), torch.tensor([0.1, 0.2, 0.3])
    assert objectives.coefficient_of(preferences, fidelities, 2.0) == pytest.approx(2 * 40)
    with pytest.raises(ValueError, match="all equal"):
        objectives.coefficient_of(preferences, torch.ones(3), 1.0)


@DTYPES
def test_ipo_is_the_square_of_the_papers_equation(dtype: torch.dtype) -> None:
    """Equation 17, one pair at a time in Python's floats; its gradient is 2(h − 1/(2τ))."""
    four, tau = [each.requires_grad_() for each in _logps(64, dtype)], 0.3
    found = objectives.ipo(*four, beta=tau)
    found.losses.sum().backward()
    gaps = [(a - c) - (b - d) for a, b, c, d in zip(*(each.tolist() for each in four), strict=True)]
    losses = torch.tensor([(gap - 1 / (2 * tau)) ** 2 for gap in gaps], dtype=dtype)
    torch.testing.assert_close(found.losses.detach(), losses, **TOLERANCE[dtype])
    slopes = torch.tensor([2 * (gap - 1 / (2 * tau)) for gap in gaps], dtype=dtype)
    assert four[0].grad is not None
    torch.testing.assert_close(four[0].grad, slopes, **TOLERANCE[dtype])
    torch.testing.assert_close(four[1].grad, -slopes, **TOLERANCE[dtype])
    margins = torch.tensor([tau * gap for gap in gaps], dtype=dtype)
    torch.testing.assert_close(found.chosen_rewards - found.rejected_rewards, margins, **TOLERANCE[dtype])


def test_ipo_wants_the_gap_and_no_more() -> None:
    zeros = torch.zeros(3)
    found = objectives.ipo(torch.tensor([4.0, 5.0, 6.0]), zeros, zeros, zeros, beta=0.1)
    assert found.losses.tolist() == pytest.approx([1.0, 0.0, 1.0])


@DTYPES
def test_simpo_is_the_papers_equation(dtype: torch.dtype) -> None:
    """Equation 6, one pair at a time in Python's floats."""
    chosen, rejected = (each.requires_grad_() for each in _logps(64, dtype)[:2])
    found = objectives.simpo(chosen, rejected, reward_scale=2.5, margin=1.4)
    found.losses.sum().backward()
    gaps = [2.5 * a - 2.5 * b - 1.4 for a, b in zip(chosen.tolist(), rejected.tolist(), strict=True)]
    losses = torch.tensor([math.log1p(math.exp(-abs(gap))) + max(-gap, 0.0) for gap in gaps], dtype=dtype)
    torch.testing.assert_close(found.losses.detach(), losses, **TOLERANCE[dtype])
    slopes = torch.tensor([-2.5 / (1 + math.exp(gap)) for gap in gaps], dtype=dtype)
    assert chosen.grad is not None
    torch.testing.assert_close(chosen.grad, slopes, **TOLERANCE[dtype])
    torch.testing.assert_close(found.chosen_rewards, 2.5 * chosen.detach(), **TOLERANCE[dtype])


@pytest.mark.parametrize(
    ("change", "message"), [({"reward_scale": 0.0}, "reward_scale must be"), ({"margin": -0.1}, "margin must be")]
)
def test_simpo_refuses_bad_settings(change: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        objectives.simpo(*_logps(3)[:2], **({"reward_scale": 2.0, "margin": 1.0} | change))


def test_orpo_stays_finite_at_the_ends_of_probability() -> None:
    ends = [(-1e-9, -90.0), (-90.0, -1e-9), (0.0, -1.0), (-1.0, 0.0), (0.0, 0.0)]
    chosen, rejected = (torch.tensor(column, requires_grad=True) for column in zip(*ends, strict=True))
    found = objectives.orpo(chosen, rejected, nll=torch.zeros(len(ends)), odds_weight=1.0)
    found.losses.sum().backward()
    assert found.losses.isfinite().all()
    for logps in (chosen, rejected):
        assert logps.grad is not None
        assert logps.grad.isfinite().all()
    assert found.losses[4].item() == pytest.approx(math.log(2)), "both certain: equal odds"


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
def test_bad_arguments_are_refused(change: dict[str, Any], message: str) -> None:
    good: dict[str, Any] = {"beta": 0.1, "distance": torch.zeros(64), "alpha": 1.0}
    with pytest.raises(ValueError, match=message):
        objectives.sem_dpo(*_logps(64), **(good | change))


def test_logps_of_different_lengths_are_refused() -> None:
    four = _logps(64)
    with pytest.raises(ValueError, match="one length"):
        objectives.dpo(four[0][:3], *four[1:], beta=0.1)
