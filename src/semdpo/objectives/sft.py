"""Supervised fine-tuning: the negative log-likelihood of completions."""

from __future__ import annotations

import torch
from torch import Tensor

from semdpo.objectives.base import Batch, Computed, Memory, Objective, positive, weighted, wide
from semdpo.recipe.objectives import SFTSettings


def sft(policy_chosen: Tensor, *, mean_tokens: float, weight: Tensor | None = None) -> Tensor:
    """−log π_θ(y_w|x) divided by the mean number of tokens: its mean over a batch is the mean over the batch's tokens.

    Args:
        policy_chosen: log π_θ(y_w|x), summed over tokens, [n].
        mean_tokens: mean number of completion tokens of the batch's sequences, > 0.
        weight: weight of every sequence, ≥ 0, [n]; None is 1.

    Returns:
        Losses, [n], at least float32.

    Raises:
        ValueError: ``mean_tokens`` is not positive, or a weight is negative or not finite.

    Example:
        >>> sft(torch.tensor([-6.0, -2.0]), mean_tokens=4)
        tensor([1.5000, 0.5000])
    """
    positive("mean_tokens", mean_tokens)
    return weighted(-wide(policy_chosen) / mean_tokens, weight)


def compute(batch: Batch, _settings: SFTSettings, _memory: Memory) -> Computed:
    """See ``Objective.compute``; fine-tuning has no rewards."""
    losses = sft(batch.policy[:, 0], mean_tokens=batch.mean_tokens, weight=batch.weight)
    return Computed(losses, torch.zeros_like(losses), torch.zeros_like(losses))


OBJECTIVE = Objective(compute)
