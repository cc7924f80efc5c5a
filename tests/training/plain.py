"""Preference training in its plainest form: one sequence at a time, each loss as its paper writes it, AdamW by hand.

What the product computes is compared with this. Nothing of semdpo is used here.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

Tokens = tuple[int, ...]


class _Wide(TorchFunctionMode):
    """Keeps float64 tensors in float64 where transformers asks for float32: softmax, norms, rotary positions."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if any(isinstance(each, Tensor) and each.dtype == torch.float64 for each in args):
            if func is torch.Tensor.float:
                return args[0]
            args = tuple(torch.float64 if each is torch.float32 else each for each in args)
            kwargs = {k: torch.float64 if each is torch.float32 else each for k, each in kwargs.items()}
        return func(*args, **kwargs)


def widened(model: Any) -> Any:
    """The model in float64, every one of its operations included."""
    model.double()
    forward = model.forward

    def wide_forward(*args: Any, **kwargs: Any) -> Any:
        with _Wide():
            return forward(*args, **kwargs)

    model.forward = wide_forward
    return model


@dataclass(frozen=True)
class Row:
    """A pair as tokens, and what is known of it; ``scores`` are (chosen, rejected)."""

    prompt: Tokens
    chosen: Tokens
    rejected: Tokens
    weight: float
    distance: float
    preferences: tuple[float, float]
    fidelities: tuple[float, float]


@dataclass(frozen=True)
class Settings:
    """Everything that the formulas name."""

    objective: str
    beta: float = 0.1
    alpha: float = 4.0
    sensitivity: float = 0.6
    share: float = 0.8
    desirable_weight: float = 1.0
    undesirable_weight: float = 1.0
    odds_weight: float = 0.1
    reward_scale: float = 2.0
    margin: float = 1.0
    strength: float = 1.0
    nll_coef: float = 0.0
    normalize: str = "pairs"
    learning_rate: float = 1e-2
    warmup: int = 0
    seed: int = 0


@dataclass
class History:
    """What was measured before each update, the first (clipped) gradients, and the parameters at the end.

    ``more`` is what an objective computes for the whole batch: KTO's KL, β-DPO's mean, deviation and β.
    """

    losses: list[float] = field(default_factory=list)
    more: list[dict[str, float]] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    gradients: dict[str, Tensor] = field(default_factory=dict)
    parameters: dict[str, Tensor] = field(default_factory=dict)


def logp(model: Any, prompt: Tokens, completion: Tokens) -> Tensor:
    """log π(completion | prompt) of one sequence alone."""
    logits = model(input_ids=torch.tensor([[*prompt, *completion]])).logits[0]
    total = torch.zeros((), dtype=torch.float64)
    for place, token in enumerate(completion, start=len(prompt)):
        row = logits[place - 1]
        total = total + row[token] - torch.logsumexp(row, 0)
    return total


class Training:
    """Losses of one objective, and what it remembers from step to step."""

    def __init__(self, model: Any, rows: Sequence[Row], settings: Settings, known: dict[Any, float]) -> None:
        self.model, self.rows, self.settings = model, rows, settings
        self._start, self._known = copy.deepcopy(model), known
        self._start.forward = _forward_of(self._start)
        self._gap_mean = self._gap_std = 0.0
        self._more: dict[str, float] = {}
        self._step = 0

    def policy(self, prompt: Tokens, completion: Tokens) -> Tensor:
        return logp(self.model, prompt, completion)

    def reference(self, prompt: Tokens, completion: Tokens) -> float:
        if (prompt, completion) not in self._known:
            with torch.no_grad():
                self._known[prompt, completion] = float(logp(self._start, prompt, completion))
        return self._known[prompt, completion]

    def ratio(self, prompt: Tokens, completion: Tokens) -> Tensor:
        """log π_θ − log π_ref."""
        return self.policy(prompt, completion) - self.reference(prompt, completion)

    def gap(self, row: Row) -> Tensor:
        return self.ratio(row.prompt, row.chosen) - self.ratio(row.prompt, row.rejected)

    def loss(self, step: Sequence[Row]) -> Tensor:
        """Of one update's rows."""
        one: Callable[[Sequence[Row]], Tensor] = getattr(self, self.settings.objective)
        total = one(step)
        if self.settings.nll_coef:
            total = total + self.settings.nll_coef * self.sft(step)
        return total

    def over(self, step: Sequence[Row], losses: Sequence[Tensor]) -> Tensor:
        """The sum of weighted losses over the number of pairs, or over the sum of their weights."""
        if self.settings.normalize == "pairs":
            return _sum(losses) / len(step)
        semantic = self.settings.objective == "sem_dpo"
        return _sum(losses) / sum(row.weight * (self.semantic(row) if semantic else 1.0) for row in step)

    def sft(self, step: Sequence[Row]) -> Tensor:
        """Negative log-likelihood a token of the step; the weights count too."""
        mean_tokens = sum(len(row.chosen) for row in step) / len(step)
        return self.over(step, [-row.weight * self.policy(row.prompt, row.chosen) / mean_tokens for row in step])

    def dpo(self, step: Sequence[Row]) -> Tensor:
        """Rafailov et al. 2023, equation 7."""
        return self.over(step, [-row.weight * _log_sigmoid(self.settings.beta * self.gap(row)) for row in step])

    def semantic(self, row: Row) -> float:
        return math.exp(-self.settings.alpha * row.distance)

    def sem_dpo(self, step: Sequence[Row]) -> Tensor:
        """arXiv 2507.20133, equations 3 and 4."""
        beta = self.settings.beta
        return self.over(step, [-row.weight * self.semantic(row) * _log_sigmoid(beta * self.gap(row)) for row in step])

    def additive(self, step: Sequence[Row]) -> Tensor:
        """arXiv 2507.20133, appendix D: the sum of scores decides who is chosen; a tie teaches nothing."""
        spread = [
            torch.tensor([score for row in self.rows for score in scores(row)], dtype=torch.float64).std()
            for scores in (lambda row: row.preferences, lambda row: row.fidelities)
        ]
        coefficient = self.settings.strength * float(spread[0] / spread[1])
        losses = []
        for row in step:
            chosen, rejected = (p + coefficient * f for p, f in zip(row.preferences, row.fidelities, strict=True))
            side = (chosen > rejected) - (chosen < rejected)
            if side:
                losses.append(-row.weight * _log_sigmoid(self.settings.beta * side * self.gap(row)))
        return self.over(step, losses)

    def beta_dpo(self, step: Sequence[Row]) -> Tensor:
        """Wu et al. 2024, equations 7 to 10: the running mean and deviation first, then the draw, then β."""
        gaps = [self.gap(row) for row in step]
        values = torch.stack(gaps).detach()
        self._gap_mean = 0.9 * self._gap_mean + 0.1 * float(values.mean())
        self._gap_std = 0.9 * self._gap_std + 0.1 * float(values.std())
        kept, beta = list(range(len(step))), self.settings.beta
        count = int(self.settings.share * len(step))
        if count and self._gap_std:
            chances = torch.exp(-((values - self._gap_mean) ** 2) / (2 * self._gap_std**2))
            generator = torch.Generator().manual_seed(self.settings.seed * 1_000_003 + self._step)
            kept = torch.multinomial(chances, count, replacement=False, generator=generator).tolist()
            quality = sum(float(values[k]) for k in kept) / len(kept)
            beta = max(beta + beta * self.settings.sensitivity * (quality - self._gap_mean), 1e-3)
        self._more = {"gap_mean": self._gap_mean, "gap_std": self._gap_std, "beta": beta}
        return _sum([-step[k].weight * _log_sigmoid(beta * gaps[k]) for k in kept]) / len(kept)

    def ipo(self, step: Sequence[Row]) -> Tensor:
        """Azar et al. 2023, equation 17, of means over tokens."""
        losses = []
        for row in step:
            good = self.ratio(row.prompt, row.chosen) / len(row.chosen)
            bad = self.ratio(row.prompt, row.rejected) / len(row.rejected)
            losses.append(row.weight * (good - bad - 1 / (2 * self.settings.beta)) ** 2)
        return self.over(step, losses)

    def kto(self, step: Sequence[Row]) -> Tensor:
        """Ethayarajh et al. 2024, equations 7 and 8: λ − v, KL from the completions of other prompts."""
        examples = [(row.prompt, row.chosen, True, row.weight) for row in step]
        examples += [(row.prompt, row.rejected, False, row.weight) for row in step]
        ratios = []
        with torch.no_grad():
            for k, (prompt, _, _, _) in enumerate(examples):
                ratios.append(float(self.ratio(prompt, self._of_another(examples, k))))
        kl = max(sum(ratios) / max(sum(ratio != 0 for ratio in ratios), 1), 0.0)
        self._more = {"kl": kl}
        losses = []
        for prompt, completion, good, weight in examples:
            above = self.settings.beta * (self.ratio(prompt, completion) - kl)
            most = self.settings.desirable_weight if good else self.settings.undesirable_weight
            losses.append(weight * (most - most / (1 + torch.exp(-above if good else above))))
        return self.over(step, losses) / 2

    def _of_another(self, examples: Sequence[tuple[Tokens, Tokens, bool, float]], k: int) -> Tokens:
        """The completion of the next example (cyclic) of another prompt; of the whole data if the step has none."""
        following = [*examples[k + 1 :], *examples[:k]]
        everything = [(row.prompt, row.chosen) for row in self.rows]
        everything += [(row.prompt, row.rejected) for row in self.rows]
        candidates = [(prompt, completion) for prompt, completion, _, _ in following] + everything
        return next(completion for prompt, completion in candidates if prompt != examples[k][0])

    def orpo(self, step: Sequence[Row]) -> Tensor:
        """Hong et al. 2024, equations 6 and 7: the likelihood a token, and the ratio of the odds."""
        mean_tokens = sum(len(row.chosen) for row in step) / len(step)
        losses = []
        for row in step:
            whole = self.policy(row.prompt, row.chosen)
            good = torch.exp(whole / len(row.chosen))
            bad = torch.exp(self.policy(row.prompt, row.rejected) / len(row.rejected))
            odds_ratio = (good / (1 - good)) / (bad / (1 - bad))
            nll = -whole / mean_tokens
            losses.append(row.weight * (nll - self.settings.odds_weight * _log_sigmoid(torch.log(odds_ratio))))
        return self.over(step, losses)

    def simpo(self, step: Sequence[Row]) -> Tensor:
        """Meng et al. 2024, equation 6."""
        scale, losses = self.settings.reward_scale, []
        for row in step:
            good = scale / len(row.chosen) * self.policy(row.prompt, row.chosen)
            bad = scale / len(row.rejected) * self.policy(row.prompt, row.rejected)
            losses.append(-row.weight * _log_sigmoid(good - bad - self.settings.margin))
        return self.over(step, losses)

    def run(self, steps: Sequence[Sequence[int]]) -> History:
        """Updates with AdamW without decay, gradients clipped to norm 1, a linear rise and fall of the rate."""
        history, named = History(), dict(self.model.named_parameters())
        first, second = ({name: torch.zeros_like(each) for name, each in named.items()} for _ in range(2))
        for step, places in enumerate(steps):
            self._step = step
            loss = self.loss([self.rows[k] for k in places])
            slopes = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
            found = {n: torch.zeros_like(named[n]) if g is None else g for n, g in zip(named, slopes, strict=True)}
            norm = math.sqrt(sum(float((each**2).sum()) for each in found.values()))
            found = {name: each * min(1.0, 1.0 / (norm + 1e-6)) for name, each in found.items()}
            history.losses.append(float(loss.detach()))
            history.norms.append(norm)
            history.more.append(self._more)
            history.gradients = history.gradients or found
            rate = self.settings.learning_rate * _share(step, self.settings.warmup, len(steps))
            with torch.no_grad():
                for name, slope in found.items():
                    first[name] = 0.9 * first[name] + 0.1 * slope
                    second[name] = 0.999 * second[name] + 0.001 * slope**2
                    mean, square = first[name] / (1 - 0.9 ** (step + 1)), second[name] / (1 - 0.999 ** (step + 1))
                    named[name] -= rate * mean / (square.sqrt() + 1e-8)
        history.parameters = {name: each.detach().clone() for name, each in named.items()}
        return history


def _forward_of(model: Any) -> Callable[..., Any]:
    """A copy's own forward pass: the widened one that was copied along belongs to the original."""

    def forward(*args: Any, **kwargs: Any) -> Any:
        with _Wide():
            return type(model).forward(model, *args, **kwargs)

    return forward


def _share(step: int, warmup: int, steps: int) -> float:
    """Of the highest learning rate, at this step counted from 0."""
    return step / warmup if step < warmup else (steps - step) / (steps - warmup)


def _sum(values: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(values)).sum() if values else torch.zeros((), dtype=torch.float64, requires_grad=True)


def _log_sigmoid(value: Tensor) -> Tensor:
    return -torch.log1p(torch.exp(-value))


@contextmanager
def counted(patch: Any, module: Any, *names: str) -> Iterator[dict[str, int]]:
    """How often each of a module's functions is called."""
    calls = dict.fromkeys(names, 0)

    def counting(name: str) -> Callable[..., Any]:
        real = getattr(module, name)

        def called(*args: Any, **kwargs: Any) -> Any:
            calls[name] += 1
            return real(*args, **kwargs)

        return called

    with patch.context() as inside:
        for name in names:
            inside.setattr(module, name, counting(name))
        yield calls
