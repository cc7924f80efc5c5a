"""Prefix-shared packing: a micro-batch is one row without padding, and each prompt is computed once.

A group ``[prompt | completion 1 | completion 2 | …]`` stands for the sequences prompt + completion k. A completion sees
its prompt and itself, never its siblings or another group, and its positions go on where the prompt's end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Group:
    """One prompt and the completions that follow it, as tokens."""

    prompt: tuple[int, ...]
    completions: tuple[tuple[int, ...], ...]

    @property
    def tokens(self) -> int:
        """How many, the prompt's once."""
        return len(self.prompt) + sum(map(len, self.completions))

    @property
    def longest(self) -> int:
        """Tokens of the longest sequence that it stands for."""
        return len(self.prompt) + max(map(len, self.completions), default=0)


class Packed(NamedTuple):
    """A micro-batch of T tokens in one row, with m predicted tokens of s sequences.

    Attributes:
        input_ids: [1, T].
        position_ids: [1, T].
        spans: where each group lies: (start, end, its mask [1, 1, end − start, end − start], True where the token of
            the row sees the token of the column).
        groups: which group each token belongs to, [T].
        branches: 0 for a prompt's token, k for one of completion k, [T].
        predictors: place of the token whose logits predict each target, [m].
        targets: the predicted tokens, [m].
        owners: which sequence each target belongs to, in the order of groups and completions, [m].
        sequences: s.
    """

    input_ids: Tensor
    position_ids: Tensor
    spans: tuple[tuple[int, int, Tensor], ...]
    groups: Tensor
    branches: Tensor
    predictors: Tensor
    targets: Tensor
    owners: Tensor
    sequences: int


def pack(groups: Sequence[Group], device: Any = None) -> Packed:
    """One row of all groups.

    The last token of a prompt predicts the first token of every one of its completions. Where the prompt is empty
    nothing predicts it, and it is not counted, as when the sequence stands alone.

    Args:
        groups: at least one, with at least one token in all.
        device: where the tensors go.
    """
    ids: list[int] = []
    positions: list[int] = []
    predictors: list[int] = []
    targets: list[int] = []
    owners: list[int] = []
    spans: list[tuple[int, int, Tensor]] = []
    branches: list[Tensor] = []
    sequence = 0
    for group in groups:
        prompt, completions = group.prompt, group.completions
        start = len(ids)
        ids += prompt
        positions += range(len(prompt))
        for completion in completions:
            first = len(ids)
            ids += completion
            positions += range(len(prompt), len(prompt) + len(completion))
            before = [len(prompt) + start - 1 if prompt else None, *range(first, first + len(completion) - 1)]
            for place, token in zip(before, completion, strict=False):
                if place is not None:
                    predictors.append(place)
                    targets.append(token)
                    owners.append(sequence)
            sequence += 1
        lengths = torch.tensor([len(prompt), *map(len, completions)])
        branches.append(torch.repeat_interleave(torch.arange(len(lengths)), lengths))
        spans.append((start, len(ids), _mask(branches[-1]).to(device)))
    sizes = torch.tensor([end - start for start, end, _ in spans])
    return Packed(
        torch.tensor([ids], device=device),
        torch.tensor([positions], device=device),
        tuple(spans),
        torch.repeat_interleave(torch.arange(len(spans)), sizes).to(device),
        torch.cat(branches).to(device),
        torch.tensor(predictors, dtype=torch.long, device=device),
        torch.tensor(targets, dtype=torch.long, device=device),
        torch.tensor(owners, dtype=torch.long, device=device),
        sequence,
    )


def _mask(branch: Tensor) -> Tensor:
    """Which token sees which within a group, [1, 1, L, L]."""
    sees = (branch[:, None] == branch) | (branch == 0)
    return sees.tril()[None, None]
