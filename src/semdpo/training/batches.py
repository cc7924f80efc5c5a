"""Texts to examples to the batches of a whole training, known before it begins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from semdpo.errors import ConfigError, DataError
from semdpo.models.prompting import completion_ids, prompt_ids
from semdpo.training.packing import Group

ONE_PROMPT = (
    "{} reads completions of other prompts, and these pairs have one prompt only; give pairs of at least two prompts"
)
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
        scores: preference scores of chosen and rejected; 0 where there are none.
        fidelities: their text-fidelity scores.
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


def encode(
    tokenizer: Any,
    template: str,
    prompts: Sequence[str],
    completions: Sequence[Sequence[str]],
    names: Sequence[str] | None = None,
) -> list[Group]:
    """Tokens of prompts and their completions, as ``models.prompting`` gives them.

    Args:
        tokenizer: with an end token.
        template: with ``{prompt}`` in it.
        prompts: n texts.
        completions: n lists of texts.
        names: of the rows, for messages.

    Raises:
        DataError: a text cannot be read as text; its row is named.
    """
    rows = [(k, text) for k, texts in enumerate(completions) for text in texts]
    named = None if names is None else [names[k] for k, _ in rows]
    learnt = iter(completion_ids(tokenizer, template, [prompts[k] for k, _ in rows], [text for _, text in rows], named))
    return [
        Group(tuple(prompt), tuple(tuple(next(learnt)) for _ in texts))
        for prompt, texts in zip(prompt_ids(tokenizer, template, prompts, names), completions, strict=True)
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

    Rows are shuffled, sorted by length within windows of a few batches, and the batches are shuffled again. Some
    objectives compare the rows of a batch, so none has a single row unless ``batch_size`` is 1 or there is only one
    row: where one would be left it takes another from its neighbour, or joins a neighbour of two.

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
        if len(batches) > 1 and len(batches[-1]) == 1 and batch_size > 1:
            if batch_size > 2:
                batches[-1].insert(0, batches[-2].pop())
            else:
                last = batches.pop()
                batches[-1] += last
        steps += [batches[k] for k in torch.randperm(len(batches), generator=generator).tolist()]
    return steps


def mismatched(examples: Sequence[Example], others: Sequence[Example] = ()) -> list[Group]:
    """Each prompt with two completions of other prompts, which KTO's reference point is estimated from.

    The batch's examples are all chosen, then all rejected; each gets the completion of the next one, cyclic
    (ContextualAI/HALOs), or of the next one whose prompt is another where prompts repeat.

    Args:
        examples: of one step.
        others: of the whole data set, which are looked through where the step has no other prompt.

    Raises:
        DataError: there is no other prompt at all.
    """
    sides = [(each, side) for side in (0, 1) for each in examples]
    spare = [(each, side) for side in (0, 1) for each in others]

    def following(k: int) -> tuple[int, ...]:
        own = sides[k][0].group.prompt
        for other, side in (*sides[k + 1 :], *sides[:k], *spare):
            if other.group.prompt != own:
                return other.group.completions[side]
        raise DataError(ONE_PROMPT.format("the objective"))

    n = len(examples)
    return [Group(each.group.prompt, (following(k), following(n + k))) for k, each in enumerate(examples)]


def split(examples: Sequence[Example], parts: int, size: int) -> list[tuple[list[int], list[bool]]]:
    """Places of a step's examples in micro-batches; short ones are filled up with the first example.

    Args:
        examples: of one step.
        parts: micro-batches.
        size: examples of each; a step of more examples than ``parts * size`` has multiples of ``size``.
    """
    size *= -(-len(examples) // (parts * size))
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
