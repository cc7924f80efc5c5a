"""Training loops: transformers' Trainer with our losses, which records its curves and prints nothing."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from semdpo import objectives
from semdpo.config import ObjectiveConfig
from semdpo.errors import DataError
from semdpo.objectives import IGNORED, PairLosses, sequence_logps
from semdpo.progress import Progress, silent
from semdpo.records import Curve
from semdpo.semantics import effective_sample_size
from semdpo.training.batches import Batch, Tokens, pad

# of the chosen and the rejected, under the policy and then under the reference; each [n]
FourLogps = tuple[Tensor, Tensor, Tensor, Tensor]


class PairItem(NamedTuple):
    """One pair, ready to be learnt: its sequences, their reference log-probabilities, and its distance."""

    pair_id: str
    chosen: Tokens
    rejected: Tokens
    reference_chosen: float
    reference_rejected: float
    distance: float


class _Items(Dataset[Any]):
    """A list as torch wants it."""

    def __init__(self, items: Sequence[Any]) -> None:
        self._items = items

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> Any:
        return self._items[index]


def arguments(
    output: Path,
    *,
    batch_size: int,
    learning_rate: float,
    steps: int,
    warmup_ratio: float,
    seed: int,
) -> TrainingArguments:
    """AdamW without weight decay; the learning rate rises linearly, then falls linearly to 0; nothing is written.

    Args:
        output: a folder that Trainer insists on, and leaves empty.
        batch_size: rows of a step.
        learning_rate: at its highest.
        steps: in all.
        warmup_ratio: share of the steps in which it rises.
        seed: of the order of rows, and of dropout.
    """
    return TrainingArguments(
        output_dir=str(output),
        per_device_train_batch_size=batch_size,
        max_steps=steps,
        learning_rate=learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=int(warmup_ratio * steps),
        weight_decay=0.0,
        optim="adamw_torch",
        seed=seed,
        data_seed=seed,
        use_cpu=True,
        dataloader_pin_memory=False,
        remove_unused_columns=False,
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        logging_nan_inf_filter=False,
    )


class RecordingTrainer(Trainer):  # type: ignore[misc]
    """A Trainer that keeps curves in memory, from step 0 on, and tells ``progress`` of every step.

    Args:
        model: a causal language model.
        args: as ``arguments`` makes them.
        items: the data set.
        pad_id: fills up batches.
        method: the curves' name.
        progress: told after every step, with the loss and the speed.
    """

    def __init__(
        self,
        model: Any,
        args: TrainingArguments,
        items: Sequence[Any],
        pad_id: int,
        method: str,
        progress: Progress = silent,
    ) -> None:
        super().__init__(model=model, args=args, train_dataset=_Items(items), data_collator=list)
        # Both would print into the user's terminal.
        self.remove_callback(PrinterCallback)
        self.add_callback(_Report(self, progress))
        self.curves: list[Curve] = []
        self.pad_id = pad_id
        self.method = method
        self.note = ""
        self._began: float | None = None
        self._tokens = 0

    def record(self, values: dict[str, float], tokens: int) -> None:
        """Adds the values of the current step, which are those *before* its update."""
        self._began = time.monotonic() if self._began is None else self._began
        step = self.state.global_step
        values = values | {"learning_rate": float(self.lr_scheduler.get_last_lr()[0])}
        self.curves += [Curve(self.method, step, name, value) for name, value in values.items()]
        self._tokens += tokens
        speed = self._tokens / max(time.monotonic() - self._began, 1e-6)
        self.note = f"loss {values['loss']:.4f}" + (f", {speed:.0f} tokens/s" if step else "")

    def _prepare_inputs(self, inputs: Any) -> Any:
        return inputs  # lists of our own items, put into tensors by compute_loss


class _Report(TrainerCallback):  # type: ignore[misc]
    """Tells our progress of Trainer's steps."""

    def __init__(self, trainer: RecordingTrainer, progress: Progress) -> None:
        self._trainer, self._progress = trainer, progress

    def on_step_end(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
        self._progress(state.global_step, state.max_steps, self._trainer.note)


class SupervisedTrainer(RecordingTrainer):
    """Maximises the log-probability of completions: −Σ log π(y|x), divided by the batch's completion tokens."""

    def compute_loss(self, model: Any, inputs: list[Tokens], **_: Any) -> Tensor:
        """The batch's loss, a scalar.

        Raises:
            DataError: it is not finite.
        """
        batch = pad(inputs, self.pad_id)
        counted = int((batch.labels[:, 1:] != IGNORED).sum())
        loss = -_logps(model, batch).sum() / counted
        if not bool(torch.isfinite(loss)):
            raise DataError(
                f"the loss is {loss.item()} at step {self.state.global_step}; lower sft.learning_rate, or check that "
                "the model's weights are finite"
            )
        self.record({"loss": loss.item()}, int(batch.attention_mask.sum()))
        return loss


class PreferenceTrainer(RecordingTrainer):
    """Trains on pairs: chosen and rejected in one batch, the reference precomputed, the loss Σ W·ℓ / N.

    Args:
        model: the policy; it starts as the reference.
        args: as ``arguments`` makes them.
        items: the pairs.
        pad_id: fills up batches.
        method: the curves' name.
        progress: told after every step.
        objective: what is minimised.
        beta: strength of the tie to the reference.
    """

    def __init__(
        self,
        model: Any,
        args: TrainingArguments,
        items: Sequence[PairItem],
        pad_id: int,
        method: str,
        progress: Progress = silent,
        *,
        objective: ObjectiveConfig,
        beta: float,
    ) -> None:
        super().__init__(model, args, items, pad_id, method, progress)
        self.objective = objective
        self.beta = beta

    def compute_loss(self, model: Any, inputs: list[PairItem], **_: Any) -> Tensor:
        """The batch's loss, a scalar.

        Raises:
            DataError: a pair's loss is not finite; the pairs are named.
        """
        # Without dropout, which would make policy and reference differ before anything is learnt.
        model.eval()
        batch = pad([each.chosen for each in inputs] + [each.rejected for each in inputs], self.pad_id)
        chosen, rejected = _logps(model, batch).chunk(2)
        reference_chosen = torch.tensor([each.reference_chosen for each in inputs])
        reference_rejected = torch.tensor([each.reference_rejected for each in inputs])
        result, weights = self._objective(inputs, (chosen, rejected, reference_chosen, reference_rejected))
        self._refuse_not_finite(result.losses, inputs)
        loss = result.losses.sum() / len(inputs)
        margins = result.chosen_rewards - result.rejected_rewards
        self.record(
            {
                "loss": loss.item(),
                "reward_margin": margins.mean().item(),
                "reward_accuracy": (margins > 0).float().mean().item(),
                "chosen_logp_change": (chosen.detach() - reference_chosen).mean().item(),
                "rejected_logp_change": (rejected.detach() - reference_rejected).mean().item(),
                "mean_weight": weights.mean().item(),
                "effective_sample_size": effective_sample_size(weights.numpy()),
            },
            int(batch.attention_mask.sum()),
        )
        return loss

    def _objective(self, inputs: list[PairItem], logps: FourLogps) -> tuple[PairLosses, Tensor]:
        """Weighted losses, and the weights that are in them."""
        match self.objective.name:
            case "dpo":
                return objectives.dpo(*logps, beta=self.beta), torch.ones(len(inputs))
            case "sem_dpo":
                distance = torch.tensor([each.distance for each in inputs])
                alpha = self.objective.alpha
                return (
                    objectives.sem_dpo(*logps, beta=self.beta, distance=distance, alpha=alpha),
                    objectives.weight(distance, alpha),
                )

    def _refuse_not_finite(self, losses: Tensor, inputs: list[PairItem]) -> None:
        bad = [each.pair_id for each, good in zip(inputs, torch.isfinite(losses).tolist(), strict=True) if not good]
        if bad:
            raise DataError(
                f"the loss of {len(bad)} pairs is not finite at step {self.state.global_step} (pair_id "
                f"{', '.join(bad[:5])}{' …' if len(bad) > 5 else ''}); lower train.learning_rate or remove them"
            )


def _logps(model: Any, batch: Batch) -> Tensor:
    logits = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False).logits
    return sequence_logps(logits, batch.labels)
