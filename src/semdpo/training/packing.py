"""Prefix-shared packing: a micro-batch is one row without padding, and every prompt is computed once.

A group ``[prompt | completion 1 | completion 2 | …]`` represents the sequences prompt + completion k. A completion
attends to its prompt and to itself, not to other completions or groups, and its positions continue the prompt's.
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
        """The number of tokens, with the prompt counted once."""
        return len(self.prompt) + sum(map(len, self.completions))

    @property
    def longest(self) -> int:
        """The number of tokens of the longest sequence."""
        return len(self.prompt) + max(map(len, self.completions), default=0)


class Packed(NamedTuple):
    """A micro-batch of T tokens in one row, with m predicted tokens of s sequences.

    Attributes:
        input_ids: token ids, [1, T].
        position_ids: positions of the tokens, [1, T].
        spans: (start, end, mask) of every group; the mask, [1, 1, end − start, end − start], is True where the row's
            token attends to the column's token.
        groups: index of every token's group, [T].
        branches: 0 for a token of a prompt, k for a token of completion k, [T].
        predictors: index of the token whose logits predict the target, [m].
        targets: the predicted tokens, [m].
        owners: index of every target's sequence, in the order of groups and completions, [m].
        sequences: number of sequences, s.
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
    """Packs groups into one row.

    The last token of a prompt predicts the first token of each of its completions. Where the prompt is empty, the first
    token of a completion is not predicted and not counted, as in a sequence without packing.

    Args:
        groups: prompts with their completions, at least one group and one token.
        device: device of the tensors.
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
    """Whether a token (row) attends to another (column) within a group, [1, 1, L, L]."""
    sees = (branch[:, None] == branch) | (branch == 0)
    return sees.tril()[None, None]
