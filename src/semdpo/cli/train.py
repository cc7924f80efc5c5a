"""``semdpo train``: a rewriter learns from the preference pairs of a file."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import astuple, dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Annotated

import typer

from semdpo import disk
from semdpo.cli.closing import training_summary
from semdpo.cli.ending import interruptible
from semdpo.cli.options import NOBODY, PairsFile, named_as_options, typed_by_user
from semdpo.errors import DataError, StoreError
from semdpo.progress import bar, say, show
from semdpo.recipe import defaults

if TYPE_CHECKING:
    from semdpo.cli.train_settings import Training
    from semdpo.data.records import Curve, Pair
    from semdpo.engine.store import Plan
    from semdpo.recipe.objectives import ObjectiveSettings
    from semdpo.recipe.schema import TrainConfig


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

    with named_as_options(*(name for name in options if "_" in name)):
        training = train_settings.training(train_settings.given(options, typed, set_ or [], config))
        keep_freed_memory()
        with interruptible(lambda: where_it_goes_on(training.out)):
            train_file(pairs, training)


def train_file(pairs: str, training: Training) -> None:
    """Trains a rewriter on a file of pairs and writes its folder; interrupted, the same command goes on.

    The reference's log-probabilities are kept for the next objective, under a key of the model's whole content.

    Args:
        pairs: file or folder with columns prompt, chosen, rejected, and distance for sem_dpo.
        training: the model to start from, the output, the objective and how.

    Raises:
        SemdpoError: an option, the file or the model cannot be used, or the folder cannot be written.
    """
    from semdpo.engine import fingerprint, store
    from semdpo.recipe import trackers

    config, out = training.config, training.out
    trackers.refuse_absent(config.report_to)
    disk.refuse_unwritable(out, folder=True)
    if out.exists():
        raise StoreError(f"{out} is there already; remove it or choose another folder")
    rows = _read(pairs, training.objective)
    held_out = [] if training.held_out is None else _held_out(training.held_out, training.objective, rows)
    started = fingerprint.model(training.model)
    cache = _cache(training.cache, out)
    from semdpo.models.registry import resolve
    from semdpo.models.rewriter import load_template

    if training.own_template:
        config = config.model_copy(update={"template": load_template(resolve(training.model).folder())})
    plan = store.Plan(
        {
            "objective": training.objective.model_dump(mode="json"),
            "train": config.model_dump(mode="json", exclude={"methods"}),
        },
        {"model": started, "pairs": _digest(rows)} | ({"eval": _digest(held_out)} if held_out else {}),
    )
    work = _Work(rows, held_out, training.model, training.objective, config, cache)
    if store.is_first_process():
        with alone(out):
            curves = _written(work, out, plan)
        show(training_summary(curves, training.held_out, len(held_out)))
        say(_closing(out))
    else:
        work.train(store.partial(out))
    _leave_together()


def _read(pairs: str, objective: ObjectiveSettings) -> list[Pair]:
    from semdpo.data.pairs import read_pairs

    rows = read_pairs(pairs)
    if objective.needs_distance and any(row.distance is None for row in rows):
        raise DataError(f"{pairs} has rows without a distance; run `semdpo weigh {pairs} -o weighed.parquet` first")
    return rows


def _held_out(file: str, objective: ObjectiveSettings, learnt: Sequence[Pair]) -> list[Pair]:
    """The pairs to evaluate on; a remark where their prompts are trained on, which makes the result too good."""
    from semdpo.data.prompts import normalised

    rows = _read(file, objective)
    if not rows:
        raise DataError(f"{file} has no pairs to evaluate on; give some, or leave --eval out")
    known = {normalised(pair.prompt) for pair in learnt}
    if seen := sum(normalised(pair.prompt) in known for pair in rows):
        say(f"{file}: {seen} of its {len(rows)} pairs have a prompt that is trained on, and are not held out")
    return rows


def _digest(rows: Sequence[Pair]) -> str:
    from semdpo.engine import store

    return store.digest(store.canonical([astuple(row) for row in rows]))


@dataclass(frozen=True)
class _Work:
    """What each process trains."""

    rows: Sequence[Pair]
    held_out: Sequence[Pair]
    model: str
    objective: ObjectiveSettings
    config: TrainConfig
    cache: Path

    def train(self, folder: Path) -> list[Curve]:
        from semdpo.training.preference import train

        with bar("training") as progress, disk.full_disk_told(folder):
            return train(
                self.rows, self.model, self.objective, self.config, folder, self.cache, progress, self.held_out
            )


def _written(work: _Work, out: Path, plan: Plan) -> list[Curve]:
    """Trains, writes the whole folder, and gives the curves."""
    from semdpo.data.records import Curve
    from semdpo.engine import parquet, store
    from semdpo.training import checkpoints

    folder = store.start_model(out, plan)
    try:
        curves = work.train(folder)
        disk.write_bytes(folder / store.CURVES, parquet.encode(Curve, curves, {}))
        store.finish_model(out, plan, {"rows": len(curves)})
    finally:
        disk.remove(folder)
        checkpoints.sweep(checkpoints.folder_of(folder))
    return curves


def where_it_goes_on(out: Path) -> str:
    """What an interrupted training says of the next one."""
    from semdpo.engine import store
    from semdpo.training import checkpoints

    work = store.partial(out)
    if any(checkpoints.folder_of(work).glob("checkpoint-*")):
        return "the same command goes on from here (its last checkpoint)"
    return "no checkpoint was reached, so the same command begins again"


def alone(out: Path) -> AbstractContextManager[None]:
    """Holds a training's output for this process; the lock lies in the cache folder, not beside the user's data.

    Raises:
        StoreError: another process trains into it.
    """
    from semdpo.engine import store

    name = store.digest(str(out.absolute()).encode("utf-8", "surrogateescape"))[:32]
    refusal = f"{out} is being trained by process {{}}; wait until it ends, or choose another folder"
    locks = disk.cache_folder() / "locks"
    try:
        locks.mkdir(parents=True, exist_ok=True)
    except OSError:
        locks = out.absolute().parent
    if not os.access(locks, os.W_OK):
        locks = out.absolute().parent
    return disk.held(locks / f".{name}.lock", refusal)


def _cache(named: Path | None, out: Path) -> Path:
    """Where the reference's log-probabilities go.

    Raises:
        StoreError: the folder that the user named cannot be written.
    """
    folder = (disk.cache_folder() if named is None else named) / "reference"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        if named is not None:
            raise disk.unwritable(folder, error) from error
    beside = out.with_name(f"{out.name}.reference")
    say(f"{folder} cannot be written; keeping the reference's log-probabilities in {beside} (--cache names another)")
    return beside


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
