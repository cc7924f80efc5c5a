"""Checks that stop a training before it silently goes wrong: its data, its randomness, its start."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import torch
from torch import Tensor

from semdpo.errors import ConfigError, DataError, ModelError
from semdpo.recipe.objectives import ObjectiveSettings
from semdpo.training.batches import ONE_PROMPT, Example, MicroBatch
from semdpo.training.criterion import Criterion, reference_of
from semdpo.training.packing import Group

# Largest root mean square difference of one token's log-probability, in nats, that rounding explains between two
# computations in different batches. Measured on CPUs: up to 1e-5 and 0.028 (GPT-2 124M, packed and padded); TF32 lies
# between the two.
NOISE = {"float32": 3e-3, "bfloat16": 0.1}
_CAUSES = (
    "the model at the path of the reference has changed, dropout is on, or only one of them has adapters; remove the "
    "reference's cache, and give the trainer the model from which the reference was computed"
)


def refuse_too_few(objective: ObjectiveSettings, prompts: Sequence[Hashable], batch_size: int) -> None:
    """Refuses data with too few pairs, prompts or pairs per batch for an objective.

    Args:
        objective: settings of the objective.
        prompts: prompts of all pairs.
        batch_size: number of pairs per update.

    Raises:
        ConfigError: the objective compares the pairs of a batch, and ``batch_size`` is 1.
        DataError: the objective compares the pairs of a batch, and there is only one pair; or it reads completions of
            other prompts, and all pairs have the same prompt.
    """
    if not objective.needs_whole_batch:
        return
    if batch_size < 2:
        raise ConfigError(f"{objective.name} compares the pairs of a batch; set batch_size to 2 or more")
    if len(prompts) < 2:
        raise DataError(f"{objective.name} compares the pairs of a batch, but there is only one pair; give more")
    if objective.needs_other_prompts and len(set(prompts)) < 2:
        raise DataError(ONE_PROMPT.format(objective.name))


def refuse_without_reference(objective: ObjectiveSettings, examples: Sequence[Example]) -> None:
    """Refuses examples without log-probabilities under the reference, where the objective needs them.

    Args:
        objective: settings of the objective.
        examples: the training examples.

    Raises:
        DataError: an example has none; the message names the first one.
    """
    without = [row.name for row in examples if len(row.reference) < len(row.group.completions)]
    if without and objective.needs_reference:
        raise DataError(
            f"{objective.name} needs the reference's log-probabilities, which {without[0]} lacks; compute them with "
            "training.reference.reference_logps"
        )


def refuse_without_weight(weights: Tensor) -> None:
    """Refuses data in which no pair has a weight, as a very large α makes them.

    Args:
        weights: the pairs' weights, [n]; losses are computed in float32, which holds no number below 1e-45.

    Raises:
        DataError: all weights are 0 in float32.
    """
    if not weights.float().any():
        raise DataError(
            "every pair has a weight of 0, or too small a one to compute with, so training would have no effect; lower "
            "alpha, or give some pairs a larger weight"
        )


def refuse_divided_batches(objective: ObjectiveSettings, parts: int) -> None:
    """Refuses micro-batches where an objective compares the pairs of a whole batch, as for KTO's KL and β-DPO's β.

    Args:
        objective: settings of the objective.
        parts: number of micro-batches per update.

    Raises:
        ConfigError: there are several micro-batches.
    """
    if parts > 1 and objective.needs_whole_batch:
        raise ConfigError(f"{objective.name} needs its whole batch at once; remove micro_batch_size")


def refuse_beyond_positions(groups: Sequence[Group], model: Any) -> None:
    """Refuses prompts with completions of other prompts that are longer than the model reads.

    Args:
        groups: prompts with completions of other prompts.
        model: the model that will read them.

    Raises:
        DataError: a group is too long; the message has its number of tokens.
    """
    positions = getattr(model.config, "max_position_embeddings", None)
    longest = max((group.longest for group in groups), default=0)
    if positions is not None and longest > positions:
        raise DataError(
            f"kto reads prompts with completions of other prompts, up to {longest} tokens, but the model reads "
            f"{positions}; remove the longest pairs"
        )


def without_dropout(model: Any) -> None:
    """Switches every form of dropout off by evaluation mode; gradient checkpointing stays on.

    Args:
        model: the model to be trained.
    """
    model.eval()
    for module in model.modules():
        if getattr(module, "gradient_checkpointing", False):
            module.training = True


def refuse_randomness(name: str, logps: Callable[[], Tensor], precision: str) -> None:
    """Refuses a model whose forward passes still have randomness, such as dropout.

    Args:
        name: name of the model's class.
        logps: function that computes log-probabilities as the training does, [s].
        precision: precision in which it computes.

    Raises:
        ConfigError: two forward passes differ.
    """
    with torch.no_grad():
        first, second = (logps().float() for _ in range(2))
    if not torch.allclose(first, second, rtol=1e-5, atol=NOISE[precision]):
        raise ConfigError(
            f"two forward passes of {name} differ by {float((first - second).abs().max()):.3g} nats, so it uses "
            "random numbers in training; set its dropout settings in config.json to 0, or switch "
            "gradient_checkpointing off"
        )


def refuse_another_start(
    criterion: Criterion, losses: Tensor, logps: Tensor, batch: MicroBatch, precision: str
) -> None:
    """Refuses a policy that differs from the reference before the first update, when every change must be 0.

    Args:
        criterion: the objective with its constants.
        losses: losses of the pairs, [n].
        logps: log π_θ of every group's completions, [n, k].
        batch: micro-batch of the first step.
        precision: precision in which the log-probabilities were computed.

    Raises:
        ModelError: log-probabilities or losses differ by more than rounding explains.
    """
    real = torch.tensor(batch.real)
    if not criterion.objective.needs_rejected or not batch.reference[0] or not real.any():
        return  # fine-tuning may have dropout, and it has no reference
    change = (logps - reference_of(batch, logps)).detach().double().cpu()[real]
    groups = [group for group, used in zip(batch.groups, batch.real, strict=True) if used]
    lengths = torch.tensor([[len(tokens) for tokens in group.completions] for group in groups])
    # The rounding errors of the tokens add up like a random walk.
    allowed = NOISE[precision] * math.sqrt(lengths.double().mean())
    rms = float(change.square().mean().sqrt())
    if not rms <= allowed:
        raise ModelError(
            f"before the first update the policy's log-probabilities differ from the reference's by {rms:.3g} nats "
            f"(root mean square of {change.numel()} texts; rounding explains {allowed:.2g}), although both should be "
            f"the same model; {_CAUSES}"
        )
    if criterion.start is None:
        return
    expected, slope = criterion.start
    weights = criterion.weights(batch.examples)[real]
    off = (losses.detach().double().cpu()[real] - expected * weights).abs()
    if bool((off > weights * slope * change.abs().sum(1) + 1e-5 * max(expected, 1.0)).any()):
        raise ModelError(
            f"the first loss differs from its known value, {expected:.4g} times the weight, by up to "
            f"{float(off.max()):.3g}; "
            f"{_CAUSES}"
        )
