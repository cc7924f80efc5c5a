"""Texts to examples to the batches of a whole training, known before it begins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from semdpo.errors import ConfigError, DataError
from semdpo.models.rewriter import fill
from semdpo.training.packing import Group

WINDOW = 8  # batches among which sequences are sorted by length


@dataclass(frozen=True, slots=True)
class Example:
    """What is learnt from one row: its tokens, and what its objective asks about it.

    Attributes:
        name: for messages, such as ``pair 0123456789abcdef``.
        group: prompt with (chosen, rejected), or with the one completion that is learnt.
        reference: log π_ref of each completion; empty where the objective has no reference.
        distance: cosine distance of prompt and chosen; 0 where it was not measured.
        weight: of the row, ≥ 0.
        preference: score of chosen minus score of rejected; 0 where there are none.
        fidelity: the same of a text-fidelity score.
    """

    name: str
    group: Group
    reference: tuple[float, ...] = ()
    distance: float = 0.0
    weight: float = 1.0
    preference: float = 0.0
    fidelity: float = 0.0


class MicroBatch(NamedTuple):
    """What all processes compute together between two updates' sub-steps.

    Attributes:
        examples: of all processes, in order of rank, the same number each.
        real: False for examples that only fill up the last process, [n].
        groups: what is packed: those of the examples, with more completions where the objective needs them.
        reference: of each group's completions, [n, k].
        rows: examples of the whole step.
        tokens: learnt tokens of the chosen in the whole step.
        weight: the sum of the data's weights in the whole step.
    """

    examples: tuple[Example, ...]
    real: tuple[bool, ...]
    groups: tuple[Group, ...]
    reference: tuple[tuple[float, ...], ...]
    rows: int
    tokens: int
    weight: float


def encode(tokenizer: Any, template: str, prompts: Sequence[str], completions: Sequence[Sequence[str]]) -> list[Group]:
    """Tokens of prompts and their completions.

    Prompt and completion are tokenised apart, as they come when the model writes: the completion starts with a
    space after the template, and ends with the end token.

    Args:
        tokenizer: with an end token.
        template: with ``{prompt}`` in it.
        prompts: n texts.
        completions: n lists of texts.
    """
    if not prompts:
        return []
    read = tokenizer([fill(template, each) for each in prompts], verbose=False)["input_ids"]
    flat = [f" {text.strip()}" for texts in completions for text in texts]
    learnt = iter(tokenizer(flat, add_special_tokens=False, verbose=False)["input_ids"])
    end = tokenizer.eos_token_id
    return [
        Group(tuple(prompt), tuple((*next(learnt), end) for _ in texts))
        for prompt, texts in zip(read, completions, strict=True)
    ]


def refuse_too_long(groups: Sequence[Group], names: Sequence[str], max_length: int, positions: int | None) -> None:
    """Refuses sequences that would have to be cut.

    Args:
        groups: n of them.
        names: what to call each in the message, n.
        max_length: of the configuration.
        positions: that the model has; None when it has no limit.

    Raises:
        DataError: with how many are too long, and the first of them.
    """
    limit = max_length if positions is None else min(max_length, positions)
    long = [i for i, each in enumerate(groups) if each.longest > limit]
    if not long:
        return
    most = max(groups[i].longest for i in long)
    cure = (
        f"raise max_length to {most}"
        if positions is None or most <= positions
        else f"remove them, for the model itself reads {positions}"
    )
    some = ", ".join(dict.fromkeys(names[i] for i in long[:5])) + (" …" if len(long) > 5 else "")
    raise DataError(f"{len(long)} of {len(groups)} rows are longer than {limit} tokens ({some}); {cure}")


def draw_batches(lengths: Sequence[int], batch_size: int, epochs: int, seed: int) -> list[list[int]]:
    """Which rows are learnt in which step: every row once an epoch, rows of like length together.

    Rows are shuffled, sorted by length within windows of a few batches, and the batches are shuffled again. Where one
    row would be left for the last batch it takes one from its neighbour, since some objectives need two.

    Args:
        lengths: of each row, [n].
        batch_size: rows of a batch.
        epochs: passes over the data.
        seed: another one gives another order.
    """
    generator = torch.Generator().manual_seed(seed)
    steps: list[list[int]] = []
    for _ in range(epochs):
        order: list[int] = torch.randperm(len(lengths), generator=generator).tolist()
        batches: list[list[int]] = []
        for start in range(0, len(order), WINDOW * batch_size):
            window = sorted(order[start : start + WINDOW * batch_size], key=lambda row: lengths[row])
            batches += [window[k : k + batch_size] for k in range(0, len(window), batch_size)]
        if len(batches) > 1 and len(batches[-1]) == 1 and batch_size > 2:
            batches[-1].insert(0, batches[-2].pop())
        steps += [batches[k] for k in torch.randperm(len(batches), generator=generator).tolist()]
    return steps


def mismatched(examples: Sequence[Example]) -> list[Group]:
    """Each prompt with two completions of other prompts, which KTO's reference point is estimated from.

    The batch's examples are all chosen, then all rejected; example i's prompt gets the completion of example i + 1,
    cyclic (ContextualAI/HALOs).

    Args:
        examples: of one step, at least two.
    """
    n = len(examples)
    completions = [each.group.completions[side] for side in (0, 1) for each in examples]
    following = [*completions[1:], completions[0]]
    return [Group(each.group.prompt, (following[k], following[n + k])) for k, each in enumerate(examples)]


def split(examples: Sequence[Example], parts: int, size: int) -> list[tuple[list[int], list[bool]]]:
    """Places of a step's examples in micro-batches of ``size``; short ones are filled up with the first example.

    Args:
        examples: of one step.
        parts: micro-batches.
        size: examples of each.
    """
    places = [k if k < len(examples) else 0 for k in range(parts * size)]
    real = [k < len(examples) for k in range(parts * size)]
    return [(places[k : k + size], real[k : k + size]) for k in range(0, parts * size, size)]


def micro_size(batch_size: int, micro_batch_size: int | None, processes: int) -> int:
    """Examples that one process computes at once.

    Raises:
        ConfigError: the batch cannot be divided so.
    """
    if batch_size % processes:
        raise ConfigError(f"batch_size {batch_size} cannot be divided among {processes} processes; choose a multiple")
    share = batch_size // processes
    size = share if micro_batch_size is None else micro_batch_size
    if share % size:
        raise ConfigError(f"micro_batch_size {size} does not divide the {share} rows of each process; choose a divisor")
    return size
