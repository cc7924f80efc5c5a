"""From texts to examples to batches; all batches of a training are known before it begins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from semdpo.errors import ConfigError, DataError
from semdpo.models.prompting import completion_ids, prompt_ids
from semdpo.recipe.base import Template
from semdpo.training.packing import Group

ONE_PROMPT = (
    "{} reads completions of other prompts, but all pairs have the same prompt; give pairs of at least two prompts"
)
WINDOW = 8  # number of batches within which sequences are sorted by length


@dataclass(frozen=True, slots=True)
class Example:
    """One training example: the tokens of a row, and the values that objectives need.

    Attributes:
        name: name of the row in messages, such as ``pair 0123456789abcdef``.
        group: prompt with (chosen, rejected), or with the single completion in fine-tuning.
        reference: log π_ref of every completion; empty where the objective has no reference.
        distance: cosine distance between prompt and chosen; 0 where it was not measured.
        weight: the row's own weight, ≥ 0.
        scores: preference scores of chosen and rejected; 0 where there are none.
        fidelities: text-fidelity scores of chosen and rejected; 0 where there are none.
    """

    name: str
    group: Group
    reference: tuple[float, ...] = ()
    distance: float = 0.0
    weight: float = 1.0
    scores: tuple[float, float] = (0.0, 0.0)
    fidelities: tuple[float, float] = (0.0, 0.0)

    @property
    def preference(self) -> float:
        """Preference score of the chosen minus that of the rejected."""
        return self.scores[0] - self.scores[1]

    @property
    def fidelity(self) -> float:
        """Text-fidelity score of the chosen minus that of the rejected."""
        return self.fidelities[0] - self.fidelities[1]


class MicroBatch(NamedTuple):
    """The examples that all processes compute at once; a step has one or several micro-batches.

    Attributes:
        examples: examples of all processes in order of rank, the same number for each process, n.
        real: whether an example is real, [n]; False for examples that only pad the last process's share.
        groups: the groups of the examples, n, with further completions where the objective needs them.
        reference: log π_ref of every group's completions, [n, k].
        rows: number of examples in the whole step.
        tokens: number of tokens of the chosen completions in the whole step.
        weight: sum of the examples' weights in the whole step.
    """

    examples: tuple[Example, ...]
    real: tuple[bool, ...]
    groups: tuple[Group, ...]
    reference: tuple[tuple[float, ...], ...]
    rows: int
    tokens: int
    weight: float


def encode(
    tokenizer: Any,
    template: Template | str,
    prompts: Sequence[str],
    completions: Sequence[Sequence[str]],
    names: Sequence[str] | None = None,
) -> list[Group]:
    """The tokens of prompts and their completions, as ``models.prompting`` gives them.

    Args:
        tokenizer: tokenizer with an end token.
        template: what the model reads around a prompt.
        prompts: the prompts, n.
        completions: the completions of every prompt, n lists.
        names: names of the rows in messages, n.

    Raises:
        DataError: a text contains special tokens that cannot be read as text; the message names its row.
    """
    rows = [(k, text) for k, texts in enumerate(completions) for text in texts]
    row_names = None if names is None else [names[k] for k, _ in rows]
    row_prompts = [prompts[k] for k, _ in rows]
    ids = iter(completion_ids(tokenizer, template, row_prompts, [text for _, text in rows], row_names))
    return [
        Group(tuple(prompt), tuple(tuple(next(ids)) for _ in texts))
        for prompt, texts in zip(prompt_ids(tokenizer, template, prompts, names), completions, strict=True)
    ]


def refuse_too_long(groups: Sequence[Group], names: Sequence[str], max_length: int, positions: int | None) -> None:
    """Refuses sequences that would have to be truncated.

    Args:
        groups: prompts with their completions, n.
        names: names of the groups in the message, n.
        max_length: largest number of tokens that the configuration allows.
        positions: largest number of tokens that the model reads; None where it has no limit.

    Raises:
        DataError: a sequence is too long; the message has the number of long sequences and the names of the first.
    """
    limit = max_length if positions is None else min(max_length, positions)
    long = [i for i, group in enumerate(groups) if group.longest > limit]
    if not long:
        return
    most = max(groups[i].longest for i in long)
    cure = (
        f"raise max_length to {most}"
        if positions is None or most <= positions
        else f"remove them, because the model reads at most {positions}"
    )
    some = ", ".join(dict.fromkeys(names[i] for i in long[:5])) + (" …" if len(long) > 5 else "")
    raise DataError(f"{len(long)} of {len(groups)} rows are longer than {limit} tokens ({some}); {cure}")


def draw_batches(lengths: Sequence[int], batch_size: int, epochs: int, seed: int) -> list[list[int]]:
    """The rows of every step: every row once per epoch, rows of similar length together.

    Rows are shuffled, sorted by length within windows of a few batches, and the batches are shuffled again. Some
    objectives compare the rows of a batch, so no batch has a single row unless ``batch_size`` is 1 or there is only
    one row: a single row that is left takes another row from the batch before, or joins it where that has two.

    Args:
        lengths: tokens of every row, [n].
        batch_size: number of rows per batch.
        epochs: number of passes over the data.
        seed: seed of the order.
    """
    generator = torch.Generator().manual_seed(seed)
    steps: list[list[int]] = []
    for _ in range(epochs):
        order: list[int] = torch.randperm(len(lengths), generator=generator).tolist()
        batches: list[list[int]] = []
        for start in range(0, len(order), WINDOW * batch_size):
            window = sorted(order[start : start + WINDOW * batch_size], key=lambda row: lengths[row])
            batches += [window[k : k + batch_size] for k in range(0, len(window), batch_size)]
        if len(batches) > 1 and len(batches[-1]) == 1 and batch_size > 1:
            if batch_size > 2:
                batches[-1].insert(0, batches[-2].pop())
            else:
                last = batches.pop()
                batches[-1] += last
        steps += [batches[k] for k in torch.randperm(len(batches), generator=generator).tolist()]
    return steps


def updates_of_a_pass(rows: int, batch_size: int) -> int:
    """The number of batches in one pass over all rows, which a single row that is left may make one fewer.

    Args:
        rows: number of rows.
        batch_size: number of rows per batch.
    """
    return len(draw_batches([1] * rows, batch_size, 1, 0))


def mismatched(examples: Sequence[Example], others: Sequence[Example] = ()) -> list[Group]:
    """Every prompt with two completions of other prompts, from which KTO's reference point is estimated.

    The batch's examples are all chosen, then all rejected completions; every prompt gets the completion of the next
    example with another prompt, cyclically (ContextualAI/HALOs).

    Args:
        examples: the examples of one step.
        others: the examples of the whole data set, which are used where the step has no other prompt.

    Raises:
        DataError: all examples have the same prompt.
    """
    sides = [(example, side) for side in (0, 1) for example in examples]
    spare = [(example, side) for side in (0, 1) for example in others]

    def following(k: int) -> tuple[int, ...]:
        prompt = sides[k][0].group.prompt
        for other, side in (*sides[k + 1 :], *sides[:k], *spare):
            if other.group.prompt != prompt:
                return other.group.completions[side]
        raise DataError(ONE_PROMPT.format("the objective"))

    n = len(examples)
    return [Group(example.group.prompt, (following(k), following(n + k))) for k, example in enumerate(examples)]


def split(examples: Sequence[Example], parts: int, size: int) -> list[tuple[list[int], list[bool]]]:
    """Splits a step into micro-batches; short ones are padded with the step's first example.

    Args:
        examples: the examples of one step.
        parts: number of micro-batches.
        size: number of examples per micro-batch; a multiple of it where the step has more than ``parts * size``.

    Returns:
        Per micro-batch, the indices of its examples within the step, and whether each one is real.
    """
    size *= -(-len(examples) // (parts * size))
    places = [k if k < len(examples) else 0 for k in range(parts * size)]
    real = [k < len(examples) for k in range(parts * size)]
    return [(places[k : k + size], real[k : k + size]) for k in range(0, parts * size, size)]


def micro_size(batch_size: int, micro_batch_size: int | None, processes: int) -> int:
    """The number of examples that one process computes at once.

    Args:
        batch_size: number of examples per update, over all processes.
        micro_batch_size: requested number; None computes the process's whole share at once.
        processes: number of processes.

    Raises:
        ConfigError: the batch cannot be divided like this.
    """
    if batch_size % processes:
        raise ConfigError(f"batch_size {batch_size} cannot be divided among {processes} processes; choose a multiple")
    share = batch_size // processes
    size = share if micro_batch_size is None else micro_batch_size
    if share % size:
        raise ConfigError(f"micro_batch_size {size} does not divide the {share} rows of each process; choose a divisor")
    return size
