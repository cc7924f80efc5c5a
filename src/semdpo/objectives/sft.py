"""Supervised fine-tuning: the negative log-likelihood of completions."""

from __future__ import annotations

from torch import Tensor

from semdpo.objectives._shared import positive, weighted, wide


def sft(policy_chosen: Tensor, *, mean_tokens: float, weight: Tensor | None = None) -> Tensor:
    """−log π_θ(y_w|x), in units of a token: its mean over a batch is the mean over the batch's tokens.

    Args:
        policy_chosen: log π_θ(y_w|x), summed over tokens, [n].
        mean_tokens: how many completion tokens the batch's sequences have on average, > 0.
        weight: of each sequence, ≥ 0, [n]; None is 1.

    Returns:
        Losses, [n], at least float32.

    Raises:
        ValueError: ``mean_tokens`` is not positive, or the weights do not fit.

    Example:
        >>> sft(torch.tensor([-6.0, -2.0]), mean_tokens=4)
        tensor([1.5000, 0.5000])
    """
    positive("mean_tokens", mean_tokens)
    return weighted(-wide(policy_chosen) / mean_tokens, weight)
