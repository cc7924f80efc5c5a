"""transformers' Trainer with our losses, our order of the data, and curves from step 0 on."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from semdpo.errors import DataError
from semdpo.objective import KTOObjective, ObjectiveConfig, SemDPOObjective, SFTObjective
from semdpo.objectives import GapState
from semdpo.progress import Progress, say, silent
from semdpo.records import Curve
from semdpo.semantics import effective_sample_size
from semdpo.training.batches import Example, MicroBatch, draw_batches, micro_size, mismatched, split
from semdpo.training.criterion import START, Judged, Memory, judge, settled, weights_of
from semdpo.training.displacement import Displacement
from semdpo.training.logps import group_logps, prepare
from semdpo.training.memory import keep_freed_memory
from semdpo.training.packing import Group
from semdpo.training.precision import autocast
from semdpo.training.reference import reference_logps

NOT_CURVES = {"epoch", "step", "tokens_per_second", "grad_norm"}  # of the log; speeds differ from run to run


def training_arguments(
    output: Path,
    *,
    learning_rate: float,
    seed: int = 0,
    precision: str = "float32",
    checkpoint_steps: int | None = None,
    report_to: Sequence[str] = (),
    **more: Any,
) -> TrainingArguments:
    """Fused AdamW without weight decay; the learning rate rises linearly, then falls linearly to 0.

    Args:
        output: folder of the checkpoints.
        learning_rate: at its highest.
        seed: of dropout, where the model has any.
        precision: ``float32`` or ``bfloat16``.
        checkpoint_steps: updates between checkpoints; None writes none.
        report_to: trackers.
        more: any other ``TrainingArguments``.
    """
    settings: dict[str, Any] = {
        "output_dir": str(output),
        "learning_rate": learning_rate,
        "lr_scheduler_type": "linear",
        "optim": "adamw_torch_fused",
        "weight_decay": 0.0,
        "per_device_train_batch_size": 1,  # one micro-batch, which holds many rows
        "logging_strategy": "steps",
        "logging_steps": 1,
        "logging_first_step": True,
        "logging_nan_inf_filter": False,
        "save_strategy": "no" if checkpoint_steps is None else "steps",
        "save_steps": checkpoint_steps or 500,
        "save_total_limit": 2,
        "bf16": precision == "bfloat16",
        "report_to": list(report_to) or "none",
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "dataloader_pin_memory": False,
        "ddp_find_unused_parameters": False,
        "seed": seed,
        "use_cpu": not torch.cuda.is_available(),
    }
    return TrainingArguments(**(settings | more))


class PreferenceTrainer(Trainer):  # type: ignore[misc]
    """Trains a causal language model with any of our objectives.

    Everything else is transformers': several processes, FSDP, DeepSpeed, PEFT, checkpoints, trackers, callbacks.

    Args:
        model: the policy; it starts as the reference. With a PEFT model the reference is it without adapters.
        args: see ``training_arguments``; steps, warm-up and gradient accumulation are set here.
        examples: what is learnt.
        objective: what is minimised.
        beta: strength of the tie to the reference.
        batch_size: examples of one update, of all processes together.
        micro_batch_size: examples that one process computes at once; None takes its whole share.
        epochs: passes over the examples.
        steps: updates after which the last pass ends; None ends with the pass.
        warmup_ratio: share of the updates in which the learning rate rises.
        order_seed: of the order of examples.
        coefficient: of the additive baseline (``objectives.coefficient_of``).
        packs: what ``logps.prepare`` said of the model; None asks it.
        method: the curves' name; None is the objective's.
        progress: told after every step.
        callbacks: transformers', such as its EarlyStoppingCallback.
        held_out: examples that ``evaluate`` judges; with ``args.eval_strategy`` it does so while training.

    Raises:
        ConfigError: the batch cannot be divided among processes and micro-batches.
        DataError: there is nothing to learn; or, while training, a loss is not finite: the pairs are named, and the
            last checkpoint is as it was.
    """

    def __init__(
        self,
        model: Any,
        args: TrainingArguments,
        examples: Sequence[Example],
        *,
        objective: ObjectiveConfig,
        beta: float = 0.05,
        batch_size: int = 8,
        micro_batch_size: int | None = None,
        epochs: int = 1,
        steps: int | None = None,
        warmup_ratio: float = 0.1,
        order_seed: int = 0,
        coefficient: float = 0.0,
        packs: bool | None = None,
        method: str | None = None,
        progress: Progress = silent,
        callbacks: list[TrainerCallback] | None = None,
        held_out: Sequence[Example] = (),
    ) -> None:
        if not examples:
            raise DataError("there is nothing to learn; give at least one example")
        keep_freed_memory()
        if isinstance(objective, SemDPOObjective):
            objective = settled(objective, [each.distance for each in examples])
        self.objective, self.beta, self.coefficient = objective, beta, coefficient
        self.method = method or objective.name
        if not isinstance(objective, SFTObjective):
            disable_dropout(model)
        self.packs = prepare(model) if packs is None else packs
        size = micro_size(batch_size, micro_batch_size, args.world_size)
        self._own = slice(args.process_index * size, (args.process_index + 1) * size)
        rows = draw_batches([each.group.tokens for each in examples], batch_size, epochs, order_seed)[:steps]
        judged = draw_batches([each.group.tokens for each in held_out], batch_size, 1, order_seed)
        parts = batch_size // (size * args.world_size)
        args.max_steps, args.gradient_accumulation_steps = len(rows), parts
        args.warmup_steps = round(warmup_ratio * len(rows))
        precision = "bfloat16" if args.bf16 else "float32"

        def plan(steps: list[list[Example]]) -> _Plan:
            return _Plan(self._plan(steps, parts, size * args.world_size, model, precision))

        super().__init__(
            model=model,
            args=args,
            train_dataset=plan([[examples[row] for row in step] for step in rows]),
            eval_dataset=plan([[held_out[row] for row in step] for step in judged]),
            data_collator=_only,
            callbacks=callbacks or [],
        )
        self.loss_is_scaled_for_ga = True  # compute_loss divides by the whole step's pairs
        self.remove_callback(PrinterCallback)  # it would print into the user's terminal
        self.add_callback(_Report(self, progress))
        self.note = ""
        self._measured: dict[str, float] = {}
        self._weights: list[float] = []
        self._names: list[str] = []
        self._state = START
        self._displacement = Displacement()
        self._tokens, self._began = 0, 0.0

    def _plan(self, steps: list[list[Example]], parts: int, size: int, model: Any, precision: str) -> list[MicroBatch]:
        """Every micro-batch of the training, in order."""
        extra: list[list[tuple[Group, tuple[float, ...]]]] = [[] for _ in steps]
        if isinstance(self.objective, KTOObjective):
            groups = [group for examples in steps for group in mismatched(examples)]
            with autocast(precision):  # as the policy computes
                known = iter(zip(groups, reference_logps(model, groups, self.packs), strict=True))
            extra = [[next(known) for _ in examples] for examples in steps]
        plan = []
        for examples, added in zip(steps, extra, strict=True):
            tokens = sum(len(each.group.completions[0]) for each in examples)
            weight = float(weights_of(examples, self.objective).sum())
            for places, real in split(examples, parts, size):
                chosen = [examples[k] for k in places]
                more = [added[k] for k in places] if added else [(Group((), ()), ())] * len(places)
                packed = tuple(
                    Group(each.group.prompt, each.group.completions + other.completions)
                    for each, (other, _) in zip(chosen, more, strict=True)
                )
                reference = tuple(each.reference + values for each, (_, values) in zip(chosen, more, strict=True))
                plan.append(MicroBatch(tuple(chosen), tuple(real), packed, reference, len(examples), tokens, weight))
        return plan

    def get_train_dataloader(self) -> DataLoader[Any]:
        """The plan as it is: every process reads all of it, and computes its own rows."""
        return DataLoader(self.train_dataset, batch_size=1, collate_fn=_only, shuffle=False)

    def _prepare_inputs(self, inputs: Any) -> Any:
        return inputs  # examples, which become tensors in compute_loss

    def compute_loss(self, model: Any, inputs: MicroBatch, **_: Any) -> Tensor:
        """What this process adds to the step's loss, times the number of processes, over which gradients are averaged.

        Raises:
            DataError: a pair's loss is not finite; the pairs are named.
        """
        judged, logps = self._judge(model, inputs)
        self._refuse_not_finite(judged.losses, inputs)
        self._state = judged.state
        real = torch.tensor(inputs.real, device=logps.device)
        whole = (judged.losses * real) / self._denominator(inputs)
        self._measure(judged, logps.detach(), inputs, float(whole.detach().sum()))
        share: Tensor = whole[self._own].sum() * self.args.world_size
        return share

    def _judge(self, model: Any, batch: MicroBatch) -> tuple[Judged, Tensor]:
        own = group_logps(model, batch.groups[self._own], self.packs)
        logps = self._of_all_processes(own.view(self._own.stop - self._own.start, -1))
        return judge(self.objective, self.beta, logps, batch, self._memory()), logps

    def evaluate(self, *_: Any, metric_key_prefix: str = "eval", **__: Any) -> dict[str, float]:
        """The held-out examples' mean loss and reward accuracy; neither weights nor β-DPO's state change.

        Args:
            metric_key_prefix: of the metrics' names; transformers' other arguments are not used.

        Returns:
            ``eval_loss``, divided as the training's, and ``eval_reward_accuracy``.

        Raises:
            DataError: the trainer was given nothing to hold out.
        """
        batches = [self.eval_dataset[k] for k in range(len(self.eval_dataset))]
        if not batches:
            raise DataError("there is nothing to evaluate on; give PreferenceTrainer held_out examples")
        training, loss, right, count = self.model.training, 0.0, 0.0, 0
        self.model.eval()
        for batch in batches:
            with torch.no_grad(), self.compute_loss_context_manager():
                judged = self._judge(self.model, batch)[0]
            counted = torch.tensor(batch.real, device=judged.losses.device)
            # A step's losses are over its own denominator; weighted by its rows they make the mean over all.
            loss += float((judged.losses * counted).sum()) / self._denominator(batch) * batch.rows
            right += float(((judged.chosen_rewards > judged.rejected_rewards) & counted).sum())
            count += int(counted.sum())
        self.model.train(training)
        metrics = {f"{metric_key_prefix}_loss": loss / count, f"{metric_key_prefix}_reward_accuracy": right / count}
        super().log(metrics)
        self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _denominator(self, batch: MicroBatch) -> float:
        return batch.weight if self.objective.normalize == "mean" else batch.rows

    def _memory(self) -> Memory:
        if self._state == START:  # or resumed from a checkpoint, whose log has it
            known = [entry for entry in self.state.log_history if "gap_mean" in entry]
            self._state = GapState(known[-1]["gap_mean"], known[-1]["gap_std"]) if known else START
        # A draw depends on seed and step only, so that a resumed training draws the same.
        generator = torch.Generator().manual_seed(self.args.seed * 1_000_003 + self.state.global_step)
        return Memory(self.coefficient, self._state, generator)

    def _of_all_processes(self, own: Tensor) -> Tensor:
        """Everybody's log-probabilities, in order of rank; gradients go into our own."""
        if self.args.world_size == 1:
            return own
        shares = [torch.empty_like(own) for _ in range(self.args.world_size)]
        torch.distributed.all_gather(shares, own.detach().contiguous())
        shares[self.args.process_index] = own
        return torch.cat(shares)

    def _refuse_not_finite(self, losses: Tensor, batch: MicroBatch) -> None:
        bad = [each.name for each, good in zip(batch.examples, losses.isfinite().tolist(), strict=True) if not good]
        if bad:
            raise DataError(
                f"the loss of {len(bad)} of {len(batch.examples)} rows is not finite at step {self.state.global_step} "
                f"({_some(bad)}); lower the learning rate or remove these rows"
            )

    def _refuse_broken_gradient(self, norm: float) -> None:
        if not math.isfinite(norm):
            raise DataError(
                f"the gradient is {norm} at step {self.state.global_step - 1} ({_some(self._names)}), although every "
                "loss is finite; lower the learning rate or beta, or remove these rows"
            )

    def _measure(self, judged: Judged, logps: Tensor, batch: MicroBatch, loss: float) -> None:
        """Adds a micro-batch to what is known of the current step; the values are those *before* its update."""
        if not self._began:
            self._began = time.monotonic()
        real = torch.tensor(batch.real)
        share = float(real.sum()) / batch.rows

        def mean(values: Tensor) -> float:
            return share * float(values.cpu()[real].float().mean()) if share else 0.0

        found = {"loss": loss}
        if not isinstance(self.objective, SFTObjective):
            change = logps - torch.tensor(batch.reference, device=logps.device)
            margin = judged.chosen_rewards - judged.rejected_rewards
            weights = weights_of(batch.examples, self.objective)
            found |= {
                "reward_margin": mean(margin),
                "reward_accuracy": mean(margin > 0),
                "chosen_logp_change": mean(change[:, 0]),
                "rejected_logp_change": mean(change[:, 1]),
                "mean_weight": mean(weights),
            }
            self._weights += weights[real].tolist()
        found["tokens"] = float(sum(group.tokens for group in batch.groups))
        found["completion_length"] = mean(torch.tensor([len(each.group.completions[0]) for each in batch.examples]))
        self._names = [each.name for each in batch.examples]
        for name, value in found.items():
            self._measured[name] = self._measured.get(name, 0.0) + value
        self._measured |= judged.more
        self._tokens += int(found["tokens"])

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Puts our own measurements into Trainer's log, from where trackers, checkpoints and ``curves`` have them."""
        if self._measured:
            self._refuse_broken_gradient(logs.get("grad_norm", 0.0))  # before a checkpoint is written
            speed = self._tokens / max(time.monotonic() - self._began, 1e-6)
            if self._weights:
                self._measured["effective_sample_size"] = effective_sample_size(self._weights)
            logs = logs | self._measured | {"tokens_per_second": round(speed, 1)}
            self.note = f"loss {self._measured['loss']:.4f}, {speed:.0f} tokens/s"
            if warning := self._displacement.seen(self._measured.get("chosen_logp_change", 0.0)):
                say(warning)
            self._measured, self._weights = {}, []
            super().log(logs, start_time)

    @property
    def curves(self) -> list[Curve]:
        """The training's curves; a value at step k was measured before update k + 1."""
        return [
            Curve(self.method, entry["step"] - ("eval_loss" not in entry), name, float(value))
            for entry in self.state.log_history
            for name, value in sorted(entry.items())  # as a checkpoint keeps them
            if name not in NOT_CURVES
        ]


def _some(names: Sequence[str]) -> str:
    distinct = list(dict.fromkeys(names))
    return ", ".join(distinct[:5]) + (" …" if len(distinct) > 5 else "")


class _Plan(Dataset[MicroBatch]):
    """A list as torch wants it."""

    def __init__(self, batches: Sequence[MicroBatch]) -> None:
        self._batches = batches

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, index: int) -> MicroBatch:
        return self._batches[index]


def _only(rows: list[MicroBatch]) -> MicroBatch:
    return rows[0]


class _Report(TrainerCallback):  # type: ignore[misc]
    """Tells our progress of Trainer's steps."""

    def __init__(self, trainer: PreferenceTrainer, progress: Progress) -> None:
        self._trainer, self._progress = trainer, progress

    def on_step_end(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
        self._progress(state.global_step, state.max_steps, self._trainer.note)


def disable_dropout(model: Any) -> None:
    """Sets every dropout to 0: with it, policy and reference would differ before anything is learnt."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
