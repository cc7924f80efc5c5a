"""``semdpo train``: a rewriter learns from the preference pairs of a file."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from semdpo.cli.closing import training_summary
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
        Path | None, typer.Option("--out", "-o", help="The trained rewriter's folder; must not exist.")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="A .yaml file of these options, such as `batch_size: 16`; options given here win."),
    ] = None,
    eval_: Annotated[
        str | None,
        typer.Option("--eval", metavar="FILE", help="Pairs whose loss and accuracy are measured at the end."),
    ] = None,
    objective: Annotated[
        str, typer.Option(help="sft, dpo, sem_dpo, beta_dpo, ipo, kto, orpo, simpo or additive.")
    ] = defaults.OBJECTIVE,
    alpha: Annotated[
        str | None,
        typer.Option(help="Strength of sem_dpo's weight: a number or auto.", show_default=f"{defaults.ALPHA:g}"),
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Another setting of the objective, such as --set nll_coef=0.1")
    ] = None,
    beta: Annotated[float, typer.Option(help="Strength of the tie to the reference.")] = defaults.BETA,
    learning_rate: Annotated[float, typer.Option(help="At its highest.")] = defaults.LEARNING_RATE,
    epochs: Annotated[int, typer.Option(help="Passes over the pairs.")] = defaults.EPOCHS,
    batch_size: Annotated[int, typer.Option(help="Pairs of one update.")] = defaults.BATCH_SIZE,
    micro_batch_size: Annotated[int | None, typer.Option(help="Pairs computed at once; all when not given.")] = None,
    max_length: Annotated[int, typer.Option(help="Tokens of prompt and rewrite.")] = defaults.MAX_LENGTH,
    warmup_ratio: Annotated[
        float, typer.Option(help="Share of the updates in which the learning rate rises.")
    ] = defaults.WARMUP_RATIO,
    seed: Annotated[int, typer.Option(help="Of the order of pairs.")] = defaults.SEED,
    precision: Annotated[str, typer.Option(help="auto, float32 or bfloat16.")] = defaults.PRECISION,
    checkpoint_steps: Annotated[int, typer.Option(help="Updates between checkpoints.")] = defaults.CHECKPOINT_STEPS,
    lora_rank: Annotated[
        int | None, typer.Option(help="Train adapters of this rank (alpha 32) instead of all weights.")
    ] = None,
    template: Annotated[str | None, typer.Option(help="With {prompt} in it; the model's own when not given.")] = None,
    report_to: Annotated[list[str] | None, typer.Option(help="A tracker, such as tensorboard or wandb.")] = None,
    cache: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the reference's log-probabilities; $SEMDPO_CACHE or the user's cache when not given."
        ),
    ] = None,
    context: typer.Context = NOBODY,
) -> None:
    """Train a rewriter on preference pairs; started again, it goes on from its last checkpoint."""
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
        "report_to": report_to,
        "cache": cache,
    }
    typed = {name for name in options if typed_by_user(context, "eval_" if name == "eval" else name)}
    from semdpo.cli import train_settings
    from semdpo.training.memory import keep_freed_memory
    from semdpo.training.to_folder import where_it_goes_on

    with named_as_options(*(name for name in options if "_" in name)):
        training = train_settings.training(train_settings.given(options, typed, set_ or [], config))
        keep_freed_memory()
        with interruptible(lambda: where_it_goes_on(training.out)):
            train_file(pairs, training)


def train_file(pairs: str, training: Training) -> None:
    """Trains on a file of pairs, and says what came of it.

    Args:
        pairs: file or folder with columns prompt, chosen, rejected, and distance for sem_dpo.
        training: the model to start from, the output, the objective and how.

    Raises:
        SemdpoError: an option, the file or the model cannot be used, or the folder cannot be written.
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
    """What to do with a trained rewriter, and what it keeps."""
    from semdpo.models.rewriter_settings import read_settings

    kept = read_settings(out)
    command = f"wrote {out}; try: semdpo optimize 'your prompt' --model {out}"
    if kept.encoder is None:
        return f"{command} --encoder NAME (the pairs do not say which encoder measured their drift)"
    which = "" if kept.encoder_fingerprint is None else f", SHA-256 {kept.encoder_fingerprint[:16]}…"
    return f"{command} (drift measured by {kept.encoder}{which}; rewrites of up to {kept.max_new_tokens} tokens)"


def _leave_together() -> None:
    """Ends this process where it is one of several; gloo's threads may abort a Python that closes in the usual way."""
    from torch import distributed

    if distributed.is_initialized():
        distributed.barrier()
        sys.stderr.flush()
        os._exit(0)
