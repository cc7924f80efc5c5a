"""The training loop of all the world's models. It is seeded by step: interrupted or not, it gives the same weights."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from semdpo.errors import ModelError
from semdpo.models.device import cpu_has_bfloat16
from semdpo.progress import Progress
from semdpo.tiny_world_training.muon import Muon


def autocast() -> torch.autocast:
    """A with block that computes in bfloat16 on a CPU with units for it, and in float32 on others, which emulate it."""
    return torch.autocast("cpu", torch.bfloat16, enabled=cpu_has_bfloat16())


@dataclass(frozen=True, slots=True)
class Plan:
    """The settings of a training.

    Attributes:
        steps: The number of updates.
        rate: AdamW's learning rate.
        muon: Muon's learning rate for weight matrices (Jordan et al. 2024); with None, AdamW trains all weights.
        decay: AdamW's weight decay.
        warmup: The number of updates over which the learning rate rises linearly.
        hold: The share of updates after which the learning rate begins to fall linearly, to 1%.
        average: The final decay of the weights' moving average; 0 keeps the last weights.
        seed: The seed of all random numbers.
    """

    steps: int
    rate: float
    muon: float | None = None
    decay: float = 0.0
    warmup: int = 50
    hold: float = 0.4
    average: float = 0.0
    seed: int = 0


def _schedule(step: int, plan: Plan) -> float:
    rise = min(1.0, (step + 1) / plan.warmup)
    fall = max(0.0, (step / plan.steps - plan.hold) / (1 - plan.hold))
    return rise * (1 - 0.99 * fall)


class _Optimizers:
    """AdamW for vectors, embeddings and outer layers; Muon for all other matrices, as its author advises.

    Muon takes only matrices, so it gets convolution kernels as matrix views of the same memory.
    """

    def __init__(self, model: nn.Module, plan: Plan) -> None:
        matrices: list[nn.Parameter] = []
        rest: list[nn.Parameter] = []
        for name, parameter in model.named_parameters():
            if not parameter.requires_grad:
                continue
            outer = any(key in name for key in ("conv_in", "conv_out", "embed", "wte", "wpe", "head"))
            use_muon = plan.muon is not None and parameter.ndim >= 2 and not outer
            (matrices if use_muon else rest).append(parameter)
        self.pairs = [(p, nn.Parameter(p.detach().view(p.size(0), -1))) for p in matrices]
        self.parts: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(rest, lr=plan.rate, weight_decay=plan.decay, betas=(0.9, 0.99))
        ]
        if self.pairs:
            flat = [view for _, view in self.pairs]
            self.parts.append(Muon(flat, lr=plan.muon or 0.0))
        self.base = [part.param_groups[0]["lr"] for part in self.parts]

    def step(self, share: float) -> None:
        for parameter, view in self.pairs:
            view.grad = None if parameter.grad is None else parameter.grad.view_as(view)
            if view.grad is None:
                view.grad = torch.zeros_like(view)
        for part, base in zip(self.parts, self.base, strict=True):
            part.param_groups[0]["lr"] = base * share
            part.step()


def _save(path: Path, state: dict[str, object]) -> None:
    unfinished = path.with_suffix(".partial")
    torch.save(state, unfinished)
    unfinished.replace(path)


def fit(
    model: nn.Module,
    loss: Callable[[int], Tensor],
    plan: Plan,
    checkpoint: Path,
    progress: Progress,
    every: int = 250,
) -> nn.Module:
    """Trains a model, and resumes an interrupted training.

    Args:
        model: The model, trained in place.
        loss: The function that gives the scalar loss of step k. torch's random numbers are seeded by step; all others
            that it uses must depend on k alone.
        plan: The settings of the training.
        checkpoint: The file of the training's state; the caller deletes it at the end.
        progress: The progress callback; it gets the step and the running loss.
        every: The number of steps between checkpoints.

    Returns:
        The model with averaged weights (the model itself if ``plan.average`` is 0), in evaluation mode.

    Raises:
        FloatingPointError: The loss is not finite.
        ModelError: The checkpoint was begun with other settings.
    """
    averaged = copy.deepcopy(model) if plan.average else model
    optimizers = _Optimizers(model, plan)
    start, running = 0, math.nan
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        if state["plan"] != repr(plan):
            raise ModelError(f"{checkpoint} was begun with other settings; remove it to start again")
        start, running = state["step"], state["running"]
        model.load_state_dict(state["model"])
        averaged.load_state_dict(state["averaged"])
        for part, saved in zip(optimizers.parts, state["optimizers"], strict=True):
            part.load_state_dict(saved)
    model.train()
    for step in range(start, plan.steps):
        torch.manual_seed(plan.seed * 1_000_003 + step)
        model.zero_grad(set_to_none=True)
        value = loss(step)
        if not torch.isfinite(value):
            raise FloatingPointError(f"the loss became {value.item()} at step {step}")
        value.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizers.step(_schedule(step, plan))
        if plan.average:
            keep = min(plan.average, (1 + step) / (10 + step))
            with torch.no_grad():
                torch._foreach_lerp_(list(averaged.parameters()), list(model.parameters()), 1 - keep)
        running = value.item() if math.isnan(running) else 0.98 * running + 0.02 * value.item()
        progress(step + 1, plan.steps, f"loss {running:.4f}")
        if (step + 1) % every == 0 or step + 1 == plan.steps:
            _save(
                checkpoint,
                {
                    "plan": repr(plan),
                    "step": step + 1,
                    "running": running,
                    "model": model.state_dict(),
                    "averaged": averaged.state_dict(),
                    "optimizers": [part.state_dict() for part in optimizers.parts],
                },
            )
    return averaged.eval()
