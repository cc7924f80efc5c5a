"""transformers' Trainer with semdpo's losses and order of the data, and with curves from step 0 on."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import EvalPrediction, PrinterCallback, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_utils import speed_metrics

from semdpo.data.records import Curve
from semdpo.disk import write_bytes
from semdpo.engine import store
from semdpo.errors import DataError
from semdpo.objectives.apply import objective_of
from semdpo.objectives.base import Computed, State
from semdpo.progress import Progress, say, silent
from semdpo.recipe import defaults
from semdpo.recipe.objectives import ObjectiveSettings
from semdpo.training.arguments import seeded
from semdpo.training.batches import Example, MicroBatch, micro_size
from semdpo.training.checkpoints import seal
from semdpo.training.criterion import criterion_for, data_of
from semdpo.training.displacement import Displacement
from semdpo.training.guard import (
    refuse_another_start,
    refuse_divided_batches,
    refuse_randomness,
    refuse_too_few,
    refuse_without_reference,
    refuse_without_weight,
    without_dropout,
)
from semdpo.training.logps import group_logps
from semdpo.training.measurements import Measurements, some_of
from semdpo.training.plan import Plan, Planner, longest_of, only
from semdpo.training.prepare import prepare

STATE = "objective_state.json"  # in a checkpoint: what the objective keeps from one batch to the next
# Log entries that are not curves, or that differ from run to run.
NOT_CURVES = {
    *("epoch", "step", "tokens_per_second", "grad_norm", "total_flos", "train_loss"),
    *("train_runtime", "train_samples_per_second", "train_steps_per_second"),
}
SPEEDS = ("_runtime", "_per_second")  # ends of the names of an evaluation's speeds


class ExampleTrainer(Trainer):  # type: ignore[misc]
    """Trains a causal language model with any of semdpo's objectives.

    transformers provides the rest: several processes, FSDP, DeepSpeed, PEFT, checkpoints, trackers, callbacks.
    Preference objectives compare the policy with a reference that is computed without dropout, so they train without
    dropout too: the model computes in evaluation mode.

    Args:
        model: the starting policy, including adapters, which is also the reference.
        args: arguments as from ``training_arguments``; steps, warm-up and gradient accumulation are set here.
        examples: the training examples.
        objective: settings of the objective.
        beta: strength of the regularisation towards the reference.
        batch_size: number of examples per update, over all processes.
        micro_batch_size: number of examples that one process computes at once; None is its whole share.
        epochs: number of passes over the examples.
        steps: number of updates after which training ends; None ends with the last pass.
        warmup_ratio: share of the updates in which the learning rate rises; None uses that of ``args``.
        order_seed: seed of the order of examples.
        can_pack: whether ``prepare.prepare`` accepted the model for packing; None calls it.
        method: name of the method in the curves; None is the objective's name.
        progress: called after every step.
        callbacks: callbacks of transformers, such as EarlyStoppingCallback.
        held_out: examples for ``evaluate``, or sets of them by name; ``args.eval_strategy`` also evaluates them during
            training.
        more: further arguments of transformers' Trainer, such as processing_class, compute_metrics and optimizers.

    Raises:
        ConfigError: the batch cannot be divided among processes and micro-batches, or the objective needs it whole.
        DataError: there are no examples, too few for the objective, or none with a weight; during training: a loss is
            not finite (the message names the pairs, and the last checkpoint stays).
        ModelError: during training: the policy differs from the reference before the first update.
    """

    def __init__(
        self,
        model: Any,
        args: TrainingArguments,
        examples: Sequence[Example],
        *,
        objective: ObjectiveSettings,
        beta: float = defaults.BETA,
        batch_size: int = defaults.BATCH_SIZE,
        micro_batch_size: int | None = None,
        epochs: int = defaults.EPOCHS,
        steps: int | None = None,
        warmup_ratio: float | None = defaults.WARMUP_RATIO,
        order_seed: int = defaults.SEED,
        can_pack: bool | None = None,
        method: str | None = None,
        progress: Progress = silent,
        callbacks: list[TrainerCallback] | None = None,
        held_out: Sequence[Example] | Mapping[str, Sequence[Example]] = (),
        **more: Any,
    ) -> None:
        if not examples:
            raise DataError("there are no examples to train on; give at least one")
        args = copy.copy(args)  # some are set here, and another trainer may use the same
        refuse_too_few(objective, [example.group.prompt for example in examples], batch_size)
        sets = held_out if isinstance(held_out, Mapping) else {"": held_out}
        all_held_out = [example for one_set in sets.values() for example in one_set]
        refuse_without_reference(objective, [*examples, *all_held_out])
        self.criterion = criterion_for(objective, beta, data_of(examples))
        refuse_without_weight(self.criterion.weights(examples))
        self.objective = objective
        self.method = method or objective.name
        if _is_moved_here(model, args):
            model.to(args.device)  # before attention is set and KTO's reference is computed
        longest = longest_of(objective, [example.group for example in (*examples, *all_held_out)])
        self.can_pack = prepare(model, longest) if can_pack is None else can_pack
        self._precision = "bfloat16" if args.bf16 else "float32"
        size = micro_size(batch_size, micro_batch_size, args.world_size)
        parts = batch_size // (size * args.world_size)
        refuse_divided_batches(objective, parts)
        self._planner = Planner(
            *(self.criterion, tuple(examples), batch_size, parts, size * args.world_size),
            *(order_seed, self.can_pack, self._precision),
        )
        planned = self._planner.training(model, epochs, steps)
        args.max_steps, args.gradient_accumulation_steps = len(planned), parts
        if warmup_ratio is not None:
            args.warmup_steps = round(warmup_ratio * len(planned))
        self._steps_of_epoch = self._planner.steps_of_epoch
        _count_in_steps(args, self._steps_of_epoch)
        plans = {name: self._planner.once(one_set, model) for name, one_set in sets.items()}
        with seeded(args.seed):  # Trainer seeds the whole process
            super().__init__(
                model=model,
                args=args,
                train_dataset=Plan([batch for step in planned for batch in step]),
                eval_dataset=plans if isinstance(held_out, Mapping) else plans[""],
                data_collator=only,
                callbacks=callbacks or [],
                **more,
            )
        self.loss_is_scaled_for_ga = True  # compute_loss divides by the whole step's pairs
        self.remove_callback(PrinterCallback)  # it would print into the user's terminal
        self.add_callback(_Report(self, progress))
        self.note = ""
        self._measurements = Measurements(self.criterion)
        self._randomness_checked = not objective.needs_rejected  # fine-tuning may have dropout
        self._state: State = {}
        self._displacement = Displacement()

    def train(self, *args: Any, **more: Any) -> Any:
        """Trains like transformers' Trainer; its randomness (dropout in fine-tuning) follows ``args.seed``."""
        with seeded(self.args.seed):
            output = super().train(*args, **more)
        self._refuse_broken_weights()
        return output

    def get_train_dataloader(self) -> DataLoader[Any]:
        """A loader of the unchanged plan: every process reads all of it and computes its own rows."""
        return DataLoader(self.train_dataset, batch_size=1, collate_fn=only, shuffle=False)

    def _prepare_inputs(self, inputs: Any) -> Any:
        return inputs  # examples, which compute_loss turns into tensors

    def compute_loss(self, model: Any, inputs: MicroBatch, **_: Any) -> Tensor:
        """This process's part of the step's loss, times the number of processes, over which gradients are averaged.

        Args:
            model: the policy, in its wrappers.
            inputs: the micro-batch.

        Raises:
            DataError: a pair's loss is not finite; the message names the pairs.
        """
        if self.objective.needs_rejected:
            without_dropout(self.model)
        if not self._randomness_checked:
            self._randomness_checked, groups = True, inputs.groups[self._own(inputs)][:1]
            name = type(self.model).__name__
            refuse_randomness(name, lambda: group_logps(model, groups, self.can_pack), self._precision)
        computed, logps = self._compute(model, inputs)
        self._refuse_not_finite(computed.losses, inputs)
        if self.state.global_step == 0:
            refuse_another_start(self.criterion, computed.losses, logps, inputs, self._precision)
        self._state = computed.state
        real = torch.tensor(inputs.real, device=logps.device)
        whole = (computed.losses * real) / self._denominator(inputs)
        self._measurements.add(computed, logps.detach(), inputs, float(whole.detach().sum()), self.state.global_step)
        share: Tensor = whole[self._own(inputs)].sum() * self.args.world_size
        return share

    def _own(self, batch: MicroBatch) -> slice:
        """This process's rows of a micro-batch."""
        size = len(batch.examples) // self.args.world_size
        return slice(self.args.process_index * size, (self.args.process_index + 1) * size)

    def _compute(self, model: Any, batch: MicroBatch) -> tuple[Computed, Tensor]:
        groups = batch.groups[self._own(batch)]
        logps = self._of_all_processes(group_logps(model, groups, self.can_pack).view(len(groups), -1))
        # Sampling depends on seed and step only, so that a resumed training samples the same.
        generator = torch.Generator().manual_seed(self.args.seed * 1_000_003 + self.state.global_step)
        first = self._is_still_the_reference()
        return self.criterion.losses(logps, batch, self._current_state(), generator, first), logps

    def evaluate(
        self,
        eval_dataset: Sequence[Example] | Mapping[str, Sequence[Example]] | str | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """The mean loss and reward accuracy of held-out examples; the model and β-DPO's state stay unchanged.

        Args:
            eval_dataset: examples, several sets of them by name, or the name of one set of the trainer's ``held_out``;
                None uses all of ``held_out``.
            ignore_keys: not used; part of transformers' signature.
            metric_key_prefix: prefix of the metrics' names.

        Returns:
            ``eval_loss``, normalised like the training loss; ``eval_reward_accuracy`` where the objective has rewards;
            ``eval_runtime`` in seconds and ``eval_samples_per_second``.

        Raises:
            DataError: there are no examples to evaluate.
        """
        given: Any = self.eval_dataset if eval_dataset is None else eval_dataset
        if isinstance(given, str):
            given = self.eval_dataset[given]
        began = time.time()
        if isinstance(given, Mapping):
            of_all_sets: dict[str, float] = {}
            for name, examples in given.items():
                of_all_sets |= self.evaluate(examples, ignore_keys, f"{metric_key_prefix}_{name}")
            return of_all_sets
        plan = given if isinstance(given, Plan) else self._planner.once(list(given or ()), self.model)
        if not len(plan):
            raise DataError("there are no examples to evaluate; give held-out ones as eval_dataset")
        training, loss, right, count = self.model.training, 0.0, 0.0, 0
        rewards: list[Tensor] = []
        self.model.eval()
        for batch in plan:
            with torch.no_grad(), self.compute_loss_context_manager():
                computed = self._compute(self.model, batch)[0]
            counted = torch.tensor(batch.real, device=computed.losses.device)
            # Every step's loss has its own denominator; weighted by rows they give the mean over all examples.
            loss += float((computed.losses * counted).sum()) / self._denominator(batch) * batch.rows
            right += float(((computed.chosen_rewards > computed.rejected_rewards) & counted).sum())
            count += int(counted.sum())
            rewards.append(torch.stack([computed.chosen_rewards, computed.rejected_rewards], 1)[counted].float().cpu())
        self.model.train(training)
        metrics = {f"{metric_key_prefix}_loss": loss / count}
        if self.objective.needs_rejected:
            metrics[f"{metric_key_prefix}_reward_accuracy"] = right / count
        if self.compute_metrics is not None:
            predicted = EvalPrediction(torch.cat(rewards).numpy(), np.zeros(count, np.int64))
            computed_metrics = self.compute_metrics(predicted)
            start = f"{metric_key_prefix}_"
            metrics |= {start + name.removeprefix(start): value for name, value in computed_metrics.items()}
        metrics |= speed_metrics(metric_key_prefix, began, count)
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)  # type: ignore[has-type]
        return metrics

    def _denominator(self, batch: MicroBatch) -> float:
        if self.objective.normalize == "mean":
            return batch.weight or 1.0  # if all weights are 0, so are all losses
        return batch.rows

    def _load_optimizer_and_scheduler(self, checkpoint: Any) -> None:
        """Loads the objective's state as well."""
        super()._load_optimizer_and_scheduler(checkpoint)
        path = Path(str(checkpoint), STATE)
        if checkpoint is not None and path.is_file():
            self._state = store.read_json(path)

    def _save_checkpoint(self, *args: Any, **more: Any) -> None:
        """Saves a checkpoint like transformers' Trainer, but never one whose weights are broken."""
        self._refuse_broken_weights()
        super()._save_checkpoint(*args, **more)

    def _refuse_broken_weights(self) -> None:
        trained = (parameter for parameter in self.model.parameters() if parameter.requires_grad)
        if not all(bool(parameter.isfinite().all()) for parameter in trained):
            raise DataError(
                f"some weights are not finite after update {self.state.global_step}; lower the learning rate or beta, "
                "and resume from the last checkpoint"
            )

    def _current_state(self) -> State:
        """The objective's state; without one in the checkpoint, the last one in the log."""
        names = objective_of(self.objective).state_names
        if not self._state and names:
            entries = [entry for entry in self.state.log_history if names[0] in entry]
            self._state = {name: entries[-1][name] for name in names} if entries else {}
        return self._state

    def _is_still_the_reference(self) -> bool:
        """Whether no update has changed the policy: there was none, or warm-up started with a learning rate of 0."""
        schedules = getattr(self.lr_scheduler, "lr_lambdas", None) or [lambda _step: 1.0]
        return all(share(step) == 0 for step in range(self.state.global_step) for share in schedules)

    def _of_all_processes(self, own: Tensor) -> Tensor:
        """The log-probabilities of all processes in order of rank; only those of this process have gradients."""
        if self.args.world_size == 1:
            return own
        shares = [torch.empty_like(own) for _ in range(self.args.world_size)]
        torch.distributed.all_gather(shares, own.detach().contiguous())
        shares[self.args.process_index] = own
        return torch.cat(shares)

    def _refuse_not_finite(self, losses: Tensor, batch: MicroBatch) -> None:
        finite = losses.isfinite().tolist()
        bad = [example.name for example, good in zip(batch.examples, finite, strict=True) if not good]
        if bad:
            raise DataError(
                f"the loss of {len(bad)} of {len(batch.examples)} rows is not finite at step {self.state.global_step} "
                f"({some_of(bad)}); lower the learning rate or remove these rows"
            )

    def _refuse_broken_gradient(self, norm: float) -> None:
        if not math.isfinite(norm):
            names = some_of(self._measurements.names)
            raise DataError(
                f"the gradient is {norm} at step {self.state.global_step - 1} ({names}), although every loss is "
                "finite; lower the learning rate or beta, or remove these rows"
            )

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds the measurements of this class to the Trainer's log entries of steps; other entries stay unchanged."""
        if self._measurements and "loss" in logs:
            self._refuse_broken_gradient(logs.get("grad_norm", 0.0))  # before a checkpoint is written
            measured = self._measurements.entry()
            logs = logs | measured
            self.note = f"loss {measured['loss']:.4f}, {measured['tokens_per_second']:.0f} tokens/s"
            if warning := self._displacement.seen(measured.get("chosen_logp_change", 0.0)):
                say(warning)
        super().log(logs, start_time)

    @property
    def curves(self) -> list[Curve]:
        """The training's curves; a value at step k was measured before update k + 1."""
        return [
            Curve(self.method, entry["step"] - ("loss" in entry), name, float(value))
            for entry in self.state.log_history
            for name, value in sorted(entry.items())  # in the order in which a checkpoint stores them
            if name not in NOT_CURVES and not name.endswith(SPEEDS) and isinstance(value, int | float)
        ]


class _Report(TrainerCallback):  # type: ignore[misc]
    """Reports the Trainer's steps to a ``Progress``, and seals its checkpoints."""

    def __init__(self, trainer: ExampleTrainer, progress: Progress) -> None:
        self._trainer, self._progress = trainer, progress

    def on_save(self, args: Any, state: Any, _control: Any, **_: Any) -> None:
        if state.is_world_process_zero:
            checkpoint = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            if self._trainer._state:
                write_bytes(checkpoint / STATE, store.canonical(self._trainer._state))
            seal(checkpoint)

    def on_step_end(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
        state.epoch = state.global_step / self._trainer._steps_of_epoch  # transformers sees all passes as one
        self._progress(state.global_step, state.max_steps, self._trainer.note)


def _count_in_steps(args: TrainingArguments, steps: int) -> None:
    """Turns the strategy ``epoch`` of evaluation, saving and logging into steps: transformers sees only one pass."""
    for what in ("eval", "save", "logging"):
        if getattr(args, f"{what}_strategy") == "epoch":
            setattr(args, f"{what}_strategy", type(getattr(args, f"{what}_strategy"))("steps"))
            setattr(args, f"{what}_steps", steps)
            if what == "eval":
                args.eval_delay *= steps


def _is_moved_here(model: Any, args: TrainingArguments) -> bool:
    """Whether to move the whole model to the device; a quantised model or one spread over devices stays in place."""
    spread = getattr(model, "hf_device_map", None) or getattr(model, "is_quantized", False)
    if spread or args.place_model_on_device is not None:
        return bool(args.place_model_on_device) and not spread
    return not (args.fsdp or args.deepspeed)  # these place the model's parts themselves
