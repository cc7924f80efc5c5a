"""What is checked so that a training cannot go wrong in silence: its data, its randomness, its start."""

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

# Of one token's log-probability, in nats, root mean square: what rounding may explain of two computations in different
# batches. Measured on CPUs: up to 1e-5 and 0.028 (GPT-2 124M, packed against padded); TF32 lies between the two.
NOISE = {"float32": 3e-3, "bfloat16": 0.1}
_CAUSES = (
    "another model lies under the path that the reference was computed with, or dropout is on, or one of them lacks "
    "the other's adapters; remove the reference's cache, and give the trainer the model from which it was computed"
)


def refuse_too_few(objective: ObjectiveSettings, prompts: Sequence[Hashable], batch_size: int) -> None:
    """Refuses data from which an objective cannot be computed.

    Args:
        objective: what will be minimised.
        prompts: of all pairs.
        batch_size: pairs of one update.

    Raises:
        ConfigError: a batch of one, where the pairs of a batch are compared.
        DataError: one pair alone, where they are compared; or one prompt alone, where completions of others are read.
    """
    if not objective.needs_whole_batch:
        return
    if batch_size < 2:
        raise ConfigError(f"{objective.name} compares the pairs of a batch; set batch_size to 2 or more")
    if len(prompts) < 2:
        raise DataError(f"{objective.name} compares the pairs of a batch, and there is one pair only; give more")
    if objective.needs_other_prompts and len(set(prompts)) < 2:
        raise DataError(ONE_PROMPT.format(objective.name))


def refuse_without_reference(objective: ObjectiveSettings, examples: Sequence[Example]) -> None:
    """Refuses examples without the reference's log-probabilities, where the objective needs them.

    Args:
        objective: what will be minimised.
        examples: what is learnt.

    Raises:
        DataError: with the first such example.
    """
    without = [each.name for each in examples if len(each.reference) < len(each.group.completions)]
    if without and objective.needs_reference:
        raise DataError(
            f"{objective.name} needs the reference's log-probabilities, which {without[0]} lacks; compute them with "
            "training.reference.reference_logps"
        )


def refuse_divided_batches(objective: ObjectiveSettings, parts: int) -> None:
    """Refuses micro-batches where the pairs of a whole batch are compared: each would have a KL or a β of its own.

    Args:
        objective: what will be minimised.
        parts: micro-batches of one update.

    Raises:
        ConfigError: there are several.
    """
    if parts > 1 and objective.needs_whole_batch:
        raise ConfigError(f"{objective.name} needs its whole batch at once; remove micro_batch_size")


def refuse_beyond_positions(groups: Sequence[Group], model: Any) -> None:
    """Refuses what the model cannot read, of prompts with completions of other prompts.

    Args:
        groups: that KTO will read.
        model: which reads them.

    Raises:
        DataError: with the number of tokens.
    """
    positions = getattr(model.config, "max_position_embeddings", None)
    longest = max((group.longest for group in groups), default=0)
    if positions is not None and longest > positions:
        raise DataError(
            f"kto reads prompts with completions of other prompts, up to {longest} tokens, and the model reads "
            f"{positions}; remove the longest pairs"
        )


def without_dropout(model: Any) -> None:
    """Evaluation mode, in which no dropout of any form is at work, save that layers still may be checkpointed.

    Args:
        model: to be trained; whatever its dropouts are called.
    """
    model.eval()
    for module in model.modules():
        if getattr(module, "gradient_checkpointing", False):
            module.training = True


def refuse_randomness(name: str, logps: Callable[[], Tensor], precision: str) -> None:
    """Two forward passes must agree: no dropout of any form is left.

    Args:
        name: of the model's class.
        logps: computes log-probabilities as the training does, [s].
        precision: in which it does.

    Raises:
        ConfigError: they differ.
    """
    with torch.no_grad():
        first, second = (logps().float() for _ in range(2))
    if not torch.allclose(first, second, rtol=1e-5, atol=NOISE[precision]):
        raise ConfigError(
            f"two forward passes of {name} differ by {float((first - second).abs().max()):.3g} nats, so it draws "
            "random numbers while it trains; set its dropout settings in config.json to 0, or switch "
            "gradient_checkpointing off"
        )


def refuse_another_start(
    criterion: Criterion, losses: Tensor, logps: Tensor, batch: MicroBatch, precision: str
) -> None:
    """Before the first update the policy is the reference: every change is 0, and some losses are known.

    Args:
        criterion: what is minimised.
        losses: of the pairs, [n].
        logps: log π_θ of each group's completions, [n, k].
        batch: of the first step.
        precision: in which the log-probabilities were computed.

    Raises:
        ModelError: they differ by more than rounding explains.
    """
    real = torch.tensor(batch.real)
    if not criterion.objective.needs_rejected or not batch.reference[0] or not real.any():
        return  # fine-tuning may have dropout, and no reference takes part in it
    change = (logps - reference_of(batch, logps)).detach().double().cpu()[real]
    groups = [group for group, used in zip(batch.groups, batch.real, strict=True) if used]
    lengths = torch.tensor([[len(each) for each in group.completions] for group in groups])
    # Rounding errors of tokens add up like a random walk.
    allowed = NOISE[precision] * math.sqrt(lengths.double().mean())
    found = float(change.square().mean().sqrt())
    if not found <= allowed:
        raise ModelError(
            f"before the first update the policy's log-probabilities differ from the reference's by {found:.3g} nats "
            f"(root mean square of {change.numel()} texts; rounding explains {allowed:.2g}), although both are the "
            f"same model; {_CAUSES}"
        )
    if criterion.start is None:
        return
    known, slope = criterion.start
    weights = criterion.weights(batch.examples)[real]
    off = (losses.detach().double().cpu()[real] - known * weights).abs()
    if bool((off > weights * slope * change.abs().sum(1) + 1e-5 * max(known, 1.0)).any()):
        raise ModelError(
            f"the first loss is off its known value, {known:.4g} times the weight, by up to {float(off.max()):.3g}; "
            f"{_CAUSES}"
        )
