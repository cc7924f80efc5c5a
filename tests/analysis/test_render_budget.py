"""The render budget: probabilities, draws, and a gradient whose expected value does not change."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from semdpo.analysis.render_budget import draw, kept, probability, refuse_heavy
from semdpo.analysis.semantics import semantic_weight
from semdpo.data.records import Pair, RenderDraw, content_id
from semdpo.errors import DataError
from semdpo.objectives.sem_dpo import sem_dpo

ALPHA, BUDGET = 6.0, 4.0
PROMPTS, CANDIDATES, DRAWS = 24, 3, 4000


@given(st.lists(st.floats(0, 2), min_size=1, max_size=6), st.floats(0, 20), st.floats(0, 20))
def test_no_weight_exceeds_the_probability_at_the_budgets_alpha_or_above(
    distances: list[float], alpha: float, more: float
) -> None:
    p = probability(distances, alpha)
    assert 0 < p <= 1
    assert p == pytest.approx(math.exp(-alpha * min(distances)), rel=1e-12)
    assert (semantic_weight(distances, alpha + more) <= p).all()


def test_a_draw_depends_on_prompt_and_seed_and_is_uniform() -> None:
    ids = [content_id(str(k)) for k in range(4000)]
    numbers = np.array([draw(name, 0) for name in ids])
    assert draw(ids[0], 0) == numbers[0]
    assert draw(ids[0], 1) != numbers[0]
    assert (numbers >= 0).all()
    assert (numbers < 1).all()
    shares = np.histogram(numbers, bins=10, range=(0, 1))[0] / len(ids)
    assert np.abs(shares - 0.1).max() < 5 * math.sqrt(0.1 * 0.9 / len(ids))
    for others in ([draw(name, 1) for name in ids], [draw(name, 0, 2) for name in ids]):
        assert abs(np.corrcoef(numbers, others)[0, 1]) < 5 / math.sqrt(len(ids))
    assert draw(ids[0], 0, 1) == numbers[0]


def test_the_largest_draw_is_below_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Divided by 2**63, the largest seed would be 1.0, and a prompt with p = 1 would be left out."""
    monkeypatch.setattr("semdpo.analysis.render_budget.content_seed", lambda *_: 2**63 - 1)
    assert draw("any", 0) < 1


def test_kept_prompts_have_their_probabilities() -> None:
    rows = [RenderDraw("a", 4, 0.1, 0.5, True), RenderDraw("b", 4, 0.3, 0.2, False)]
    assert kept(rows) == {"a": 0.5}


def _pair(distance: float, weight: float | None) -> Pair:
    return Pair("one", "x", "y", "z", 1.0, 0.0, distance, 0.0, weight=weight)


def test_weights_above_one_are_refused() -> None:
    p = probability([0.25], BUDGET)
    refuse_heavy([_pair(0.25, 1 / p), _pair(0.5, 1 / p)], BUDGET)
    refuse_heavy([_pair(0.25 - 1e-6, 1 / p)], BUDGET)  # another batch, another rounding
    with pytest.raises(DataError, match=r"pair one has weight 1\.492, but under a render budget no weight exceeds 1"):
        refuse_heavy([_pair(0.15, 1 / p)], BUDGET)
    with pytest.raises(DataError, match="pair one has no probability of the render budget"):
        refuse_heavy([_pair(0.15, None)], BUDGET)


# ------------------------------------------------------------------------------------------------- the gradient


@dataclass(frozen=True)
class _World:
    """A small policy that chooses among the candidates of each prompt, and the pairs that their scores make."""

    policy: torch.nn.Module
    features: Tensor  # [prompts, candidates, 4]
    reference: Tensor  # [prompts, candidates]
    best: Tensor
    worst: Tensor
    distance: Tensor  # of the chosen
    probability: Tensor

    def losses(self, rows: Tensor, *, divided: bool = True) -> Tensor:
        """W·ℓ of some prompts' pairs, divided by p or not."""
        logps = torch.log_softmax(self.policy(self.features).squeeze(-1), dim=1)
        policy = [logps[rows, side[rows]] for side in (self.best, self.worst)]
        reference = [self.reference[rows, side[rows]] for side in (self.best, self.worst)]
        weight = 1 / self.probability[rows] if divided else None
        found = sem_dpo(*policy, *reference, beta=0.5, distance=self.distance[rows], alpha=ALPHA, weight=weight)
        return found.losses

    def gradient(self, loss: Tensor) -> NDArray[np.float64]:
        parts = torch.autograd.grad(loss, list(self.policy.parameters()))
        return torch.cat([part.flatten() for part in parts]).numpy()


@cache
def _world() -> _World:
    generator = torch.Generator().manual_seed(3)

    def random(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, dtype=torch.float64)

    policy = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.Tanh(), torch.nn.Linear(5, 1, bias=False)).double()
    with torch.no_grad():
        for part in policy.parameters():
            part.copy_(2 * random(*part.shape) - 1)
    features, distances = 2 * random(PROMPTS, CANDIDATES, 4) - 1, 0.6 * random(PROMPTS, CANDIDATES)
    scores = random(PROMPTS, CANDIDATES) + distances  # what drifts is liked, as in the paper
    best, worst = scores.argmax(1), scores.argmin(1)
    return _World(
        policy,
        features,
        torch.log_softmax(random(PROMPTS, CANDIDATES), dim=1),
        best,
        worst,
        distances[torch.arange(PROMPTS), best],
        torch.tensor([probability(row, BUDGET) for row in distances.numpy()], dtype=torch.float64),
    )


def _draws() -> NDArray[np.bool_]:
    """Which prompts are kept under every seed, [draws, prompts]."""
    ids = [content_id(f"prompt {k}") for k in range(PROMPTS)]
    p = _world().probability.numpy()
    return np.array([[draw(name, seed) for name in ids] for seed in range(DRAWS)]) < p


def _single_gradients(*, divided: bool) -> NDArray[np.float64]:
    """The gradient of each prompt's pair alone, [prompts, parameters]."""
    world = _world()
    return np.array([world.gradient(world.losses(torch.tensor([k]), divided=divided).sum()) for k in range(PROMPTS)])


def test_the_gradient_of_a_kept_part_is_the_sum_of_its_pairs() -> None:
    world, rows = _world(), _draws()[0]
    assert 0 < rows.sum() < PROMPTS
    together = world.gradient(world.losses(torch.tensor(np.flatnonzero(rows))).sum())
    np.testing.assert_allclose(together, rows @ _single_gradients(divided=True), atol=1e-12)


def test_the_expected_gradient_is_that_of_all_pairs() -> None:
    """The standard error follows from the variance Σ (1 − p)/p·(W·∇ℓ)², which the documentation gives."""
    draws, weighed = _draws(), _single_gradients(divided=False)
    expected = weighed.sum(axis=0)
    p = _world().probability.numpy()[:, None]
    error = np.sqrt(((1 - p) / p * weighed**2).sum(axis=0) / DRAWS)
    off = np.abs((draws @ _single_gradients(divided=True)).mean(axis=0) - expected) / error
    assert len(off) == 30
    assert off.max() < 4.5, "30 normal deviates exceed this once in 5,000 times"
    biased = np.abs((draws @ weighed).mean(axis=0) - expected) / error
    assert biased.max() > 20, "without 1/p the gradient is another one, and this test would see it"


def test_w_over_p_is_at_most_one_and_without_p_pairs_that_drift_would_count_too_little() -> None:
    world = _world()
    weights = semantic_weight(world.distance.numpy(), ALPHA) / world.probability.numpy()
    assert weights.max() <= 1
    assert world.probability.min() < 0.7
