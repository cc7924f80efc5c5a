"""``semdpo train``: trains a rewriter on the preference pairs of a file."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from semdpo.cli.closing import optimize_command, training_summary
from semdpo.cli.ending import interruptible
from semdpo.cli.options import NOBODY, PairsFile, named_as_options, typed_by_user
from semdpo.errors import DataError
from semdpo.progress import bar, is_first_process, say, show
from semdpo.recipe import defaults

if TYPE_CHECKING:
    from semdpo.data.records import Pair
    from semdpo.recipe.objectives import ObjectiveSettings
    from semdpo.training.to_folder import Training


def train(
    pairs: PairsFile,
    model: Annotated[str | None, typer.Option(help="The rewriter to start from: a folder or a name.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The trained rewriter's folder; it must not exist.")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="A .yaml file of these options, such as `batch_size: 16`; options given here win."),
    ] = None,
    eval_: Annotated[
        str | None,
        typer.Option("--eval", metavar="FILE", help="Held-out pairs; loss and accuracy on them are shown at the end."),
    ] = None,
    objective: Annotated[
        str, typer.Option(help="The loss: sft, dpo, sem_dpo, beta_dpo, ipo, kto, orpo, simpo or additive.")
    ] = defaults.OBJECTIVE,
    alpha: Annotated[
        str | None,
        typer.Option(help="Strength of sem_dpo's weight: a number or auto.", show_default=f"{defaults.ALPHA:g}"),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="Another setting of the objective, such as nll_coef=0.1; repeatable."),
    ] = None,
    beta: Annotated[
        float, typer.Option(help="Beta of the loss; a larger one keeps the rewriter closer to the reference.")
    ] = defaults.BETA,
    learning_rate: Annotated[float, typer.Option(help="The highest learning rate.")] = defaults.LEARNING_RATE,
    epochs: Annotated[int, typer.Option(help="Number of passes over the pairs.")] = defaults.EPOCHS,
    batch_size: Annotated[int, typer.Option(help="Pairs in one update.")] = defaults.BATCH_SIZE,
    micro_batch_size: Annotated[
        int | None, typer.Option(help="Pairs computed at once, to save memory; by default, the whole batch.")
    ] = None,
    max_length: Annotated[
        int, typer.Option(help="Most tokens of prompt and rewrite together; longer pairs are refused.")
    ] = defaults.MAX_LENGTH,
    warmup_ratio: Annotated[
        float, typer.Option(help="Share of the updates over which the learning rate rises.")
    ] = defaults.WARMUP_RATIO,
    seed: Annotated[int, typer.Option(help="Seed of the order of the pairs.")] = defaults.SEED,
    precision: Annotated[
        str, typer.Option(help="Precision of the arithmetic: auto, float32 or bfloat16.")
    ] = defaults.PRECISION,
    checkpoint_steps: Annotated[
        int, typer.Option(help="Number of updates between checkpoints.")
    ] = defaults.CHECKPOINT_STEPS,
    lora_rank: Annotated[
        int | None, typer.Option(help="Train LoRA adapters of this rank (alpha 32) instead of all weights.")
    ] = None,
    template: Annotated[
        str | None,
        typer.Option(
            help="The text that the rewriter reads, with {prompt} in it; or chat, its tokenizer's chat template; by "
            "default, the model's own."
        ),
    ] = None,
    system: Annotated[str | None, typer.Option(help="The system message of --template chat.")] = None,
    report_to: Annotated[
        list[str] | None, typer.Option(help="A tracker to report to, such as tensorboard or wandb; repeatable.")
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the reference's log-probabilities; by default, $SEMDPO_CACHE or the user's cache."
        ),
    ] = None,
    context: typer.Context = NOBODY,
) -> None:
    """Train a rewriter on preference pairs. The same command resumes a stopped training."""
    options = {
        "model": model,
        "out": out,
        "eval": eval_,
        "objective": objective,
        "alpha": alpha,
        "beta": beta,
        "learning_rate": learning_rate,
        "epochs": epochs,
        "batch_size": batch_size,
        "micro_batch_size": micro_batch_size,
        "max_length": max_length,
        "warmup_ratio": warmup_ratio,
        "seed": seed,
        "precision": precision,
        "checkpoint_steps": checkpoint_steps,
        "lora_rank": lora_rank,
        "template": template,
        "system": system,
        "report_to": report_to,
        "cache": cache,
    }
    typed = {name for name in options if typed_by_user(context, "eval_" if name == "eval" else name)}
    from semdpo.cli import train_settings
    from semdpo.training.memory import keep_freed_memory
    from semdpo.training.to_folder import where_it_goes_on

    with named_as_options(*(name for name in options if "_" in name)):
        training = train_settings.training_of(train_settings.collect(options, typed, set_ or [], config))
        keep_freed_memory()
        with interruptible(lambda: where_it_goes_on(training.out)):
            train_file(pairs, training)


def train_file(pairs: str, training: Training) -> None:
    """Trains on a file of pairs, and shows how the training went.

    Args:
        pairs: The file or folder of pairs: columns prompt, chosen, rejected, and distance for sem_dpo.
        training: The model to start from, the folder to write, the objective and the settings.

    Raises:
        SemdpoError: An option, the file or the model cannot be used, or the folder cannot be written.
    """
    from semdpo.training.to_folder import refuse_impossible, train_to_folder

    refuse_impossible(training.config, training.out)
    rows = _read(pairs, training.objective)
    held_out = [] if training.held_out is None else _read(training.held_out, training.objective)
    with bar("training") as progress:
        curves = train_to_folder(rows, held_out, training, progress)
    if is_first_process():
        show(training_summary(curves, training.held_out, len(held_out)))
        say(_closing(training.out))
    _leave_together()


def _read(pairs: str, objective: ObjectiveSettings) -> list[Pair]:
    from semdpo.data.pairs import read_pairs

    rows = read_pairs(pairs)
    if objective.needs_distance and any(row.distance is None for row in rows):
        raise DataError(f"{pairs} has rows without a distance; run `semdpo weigh {pairs} -o weighed.parquet` first")
    return rows


def _closing(out: Path) -> str:
    """What was written, and a command that uses it."""
    from semdpo.models.rewriter_settings import read_settings

    settings = read_settings(out)
    command = f"next:  {optimize_command(out, settings.encoder or '')}"
    if settings.encoder is None:
        return f"wrote {out} (the pairs do not name the encoder that measured their drift)\n{command} --encoder NAME"
    which = "" if settings.encoder_fingerprint is None else f" (SHA-256 {settings.encoder_fingerprint[:16]}…)"
    longest = f"rewrites of up to {settings.max_new_tokens} tokens"
    return f"wrote {out}: {longest}, drift measured by {settings.encoder}{which}\n{command}"


def _leave_together() -> None:
    """Ends this process if it is one of several; gloo's threads can make an ordinary exit abort."""
    from torch import distributed

    if distributed.is_initialized():
        distributed.barrier()
        sys.stderr.flush()
        os._exit(0)
