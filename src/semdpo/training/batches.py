"""Texts to token sequences to padded batches; the prompt is read, the completion is learnt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from semdpo.errors import DataError
from semdpo.models.rewriter import fill
from semdpo.objectives import IGNORED


class Tokens(NamedTuple):
    """One sequence: the tokens that are read, and those that are learnt, the end token included."""

    prompt: list[int]
    completion: list[int]

    def __len__(self) -> int:
        """Tokens of both."""
        return len(self.prompt) + len(self.completion)


class Batch(NamedTuple):
    """Sequences padded on the right; all are [n, length]."""

    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor


def encode(tokenizer: Any, template: str, prompts: Sequence[str], completions: Sequence[str]) -> list[Tokens]:
    """Token sequences of prompts and their completions.

    Prompt and completion are tokenised apart, as they come when the model writes: the completion starts with a
    space after the template, and ends with the end token.

    Args:
        tokenizer: with an end token.
        template: with ``{prompt}`` in it.
        prompts: n texts.
        completions: n texts.
    """
    if not prompts:
        return []
    read = tokenizer([fill(template, each) for each in prompts], verbose=False)["input_ids"]
    learnt = tokenizer([f" {each.strip()}" for each in completions], add_special_tokens=False, verbose=False)
    end = tokenizer.eos_token_id
    return [Tokens(list(a), [*b, end]) for a, b in zip(read, learnt["input_ids"], strict=True)]


def refuse_too_long(sequences: Sequence[Tokens], names: Sequence[str], max_length: int, positions: int | None) -> None:
    """Refuses sequences that would have to be cut.

    Args:
        sequences: n token sequences.
        names: what to call each in the message, n.
        max_length: of the configuration.
        positions: that the model has; None when it has no limit.

    Raises:
        DataError: with how many are too long, and the first of them.
    """
    limit = max_length if positions is None else min(max_length, positions)
    long = [i for i, each in enumerate(sequences) if len(each) > limit]
    if not long:
        return
    most = max(len(sequences[i]) for i in long)
    cure = (
        f"raise max_length to {most}"
        if positions is None or most <= positions
        else f"remove them, for the model itself reads {positions}"
    )
    some = ", ".join(dict.fromkeys(names[i] for i in long[:5])) + (" …" if len(long) > 5 else "")
    raise DataError(f"{len(long)} of {len(sequences)} sequences are longer than {limit} tokens ({some}); {cure}")


def pad(sequences: Sequence[Tokens], pad_id: int) -> Batch:
    """One batch. Padding is masked by position, never by its id, which may be the end token's.

    Args:
        sequences: n token sequences.
        pad_id: fills up.
    """
    length = max(len(each) for each in sequences)
    ids = torch.full((len(sequences), length), pad_id)
    mask = torch.zeros((len(sequences), length), dtype=torch.long)
    labels = torch.full((len(sequences), length), IGNORED)
    for row, each in enumerate(sequences):
        ids[row, : len(each)] = torch.tensor([*each.prompt, *each.completion])
        mask[row, : len(each)] = 1
        labels[row, len(each.prompt) : len(each)] = torch.tensor(each.completion)
    return Batch(ids, mask, labels)
