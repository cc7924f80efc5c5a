"""Commands on a user's own preference pairs: for somebody with pairs and no renderer."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import astuple
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from semdpo import disk
from semdpo.analysis.drift import measure, refuse_unknown_words, with_drift
from semdpo.analysis.semantics import effective_sample_size, semantic_weight
from semdpo.cli import output
from semdpo.data import tables, writers
from semdpo.data.pairs import (
    kept,
    other_scores,
    pairs_of,
    read_pairs,
    refuse_own_columns,
    write_pairs,
)
from semdpo.data.records import Curve, Pair
from semdpo.disk import cache_folder
from semdpo.engine import fingerprint, parquet, store
from semdpo.engine.providers import own_models
from semdpo.errors import DataError, StoreError
from semdpo.models.registry import lasting
from semdpo.progress import bar, say, show
from semdpo.recipe import trackers
from semdpo.recipe.base import TEMPLATE
from semdpo.recipe.load import options
from semdpo.recipe.objectives import ObjectiveSettings
from semdpo.recipe.schema import TrainConfig
from semdpo.training import checkpoints


def weigh_file(pairs: str, out: Path, encoder: str, alpha: float, batch_size: int) -> None:
    """Writes a file of pairs with their distances; all of the user's other columns are kept.

    Args:
        pairs: file of columns prompt, chosen, rejected.
        out: file to write; its suffix says how.
        encoder: name of the frozen encoder.
        alpha: for the summary that is printed, ≥ 0.
        batch_size: texts at a time, ≥ 1.

    Raises:
        SemdpoError: the file or the encoder cannot be used, or the encoder does not know the words.
    """
    writers.check_suffix(out)
    disk.refuse_unwritable(out)
    output.refuse_inputs(out, [pairs])
    table = tables.read_table(pairs)
    rows = pairs_of(table)
    refuse_own_columns(table)
    writers.encoded(out.suffix.lower(), kept(table.columns), source=table.columns)  # before hours are spent
    known = fingerprint.model(encoder)  # an unknown name is told before torch is imported
    model = own_models().encoder(encoder)
    with bar("measuring drift") as progress:
        drift = measure(rows, model, batch_size, progress)
    refuse_unknown_words(drift.unknown, encoder)
    before = out.exists()
    write_pairs(out, with_drift(rows, drift, lasting(encoder), known), table.columns)
    if before:
        say(f"replaced {out}")
    if any(row.distance is not None for row in rows):
        say(f"{pairs} has distances; those in {out} are measured again, by {encoder}")
    if note := other_scores(table).note:
        say(f"{pairs}: {note}")
    weights = semantic_weight(drift.distance, alpha)
    unknown = "not told by this encoder" if drift.unknown is None else f"{drift.unknown:.1%}"
    show(f"{len(rows)} pairs → {out}")
    show(f"distance of prompt and chosen: mean {drift.distance.mean():.3f}, largest {drift.distance.max():.3f}")
    show(f"weight at alpha {alpha:g}: mean {weights.mean():.3f}")
    show(f"effective sample size: {effective_sample_size(weights):.0f} of {len(rows)}")
    show(f"unknown words: {unknown}; pairs longer than the encoder reads: {int(drift.truncated.sum())}")


def train_file(
    pairs: str,
    model: str,
    out: Path,
    goal: ObjectiveSettings,
    template: str | None,
    shared: Mapping[str, Any],
    cache: Path | None = None,
) -> None:
    """Trains a rewriter on a file of pairs and writes its folder; interrupted, the same command goes on.

    The reference's log-probabilities are kept for the next objective, under a key of the model's whole content.

    Args:
        pairs: file or folder with columns prompt, chosen, rejected, and distance for sem_dpo.
        model: the rewriter to start from.
        out: folder to write; must not exist.
        goal: the objective.
        template: with ``{prompt}`` in it; None takes the model's own.
        shared: the other settings of ``TrainConfig``.
        cache: folder of the reference's log-probabilities; None takes the user's cache folder, or one beside ``out``
            where that cannot be written.

    Raises:
        SemdpoError: an option, the file or the model cannot be used, or the folder cannot be written.
    """
    methods, used = {"trained": goal.model_dump()}, TEMPLATE if template is None else template
    config = options(TrainConfig, {("lora", "rank"): "--lora-rank"}, methods=methods, template=used, **shared)
    trackers.refuse_absent(config.report_to)
    disk.refuse_unwritable(out, folder=True)
    if out.exists():
        raise StoreError(f"{out} is there already; remove it or choose another folder")
    rows = read_pairs(pairs)
    if goal.name == "sem_dpo" and any(row.distance is None for row in rows):
        raise DataError(f"{pairs} has rows without a distance; run `semdpo weigh {pairs} -o weighed.parquet` first")
    started = fingerprint.model(model)
    kept_in = _cache(cache, out)
    from semdpo.models.registry import resolve
    from semdpo.models.rewriter import load_template

    if template is None:
        config = config.model_copy(update={"template": load_template(resolve(model).folder())})
    plan = store.Plan(
        {"objective": goal.model_dump(mode="json"), "train": config.model_dump(mode="json", exclude={"methods"})},
        {"model": started, "pairs": store.digest(store.canonical([astuple(row) for row in rows]))},
    )
    if store.is_first_process():
        with alone(out):
            work = store.start_model(out, plan)
            try:
                curves = _trained(rows, model, goal, config, work, kept_in)
                disk.write_bytes(work / store.CURVES, parquet.encode(Curve, curves, {}))
                store.finish_model(out, plan, {"rows": len(curves)})
            finally:
                disk.remove(work)
                checkpoints.sweep(checkpoints.folder_of(work))
        say(_closing(out))
    else:
        _trained(rows, model, goal, config, store.partial(out), kept_in)
    _leave_together()


def where_it_goes_on(out: Path) -> str:
    """What an interrupted training says of the next one."""
    work = store.partial(out)
    if any(checkpoints.folder_of(work).glob("checkpoint-*")):
        return "the same command goes on from here (its last checkpoint)"
    return "no checkpoint was reached, so the same command begins again"


def _trained(
    rows: Sequence[Pair], model: str, goal: ObjectiveSettings, config: TrainConfig, work: Path, cache: Path
) -> list[Curve]:
    from semdpo.training.preference import train  # here, since it imports torch

    with bar("training") as progress, disk.full_disk_told(work):
        return train(rows, model, goal, config, work, cache, progress)


def alone(out: Path) -> AbstractContextManager[None]:
    """Holds a training's output for this process; the lock lies in the cache folder, not beside the user's data.

    Raises:
        StoreError: another process trains into it.
    """
    name = store.digest(str(out.absolute()).encode("utf-8", "surrogateescape"))[:32]
    refusal = f"{out} is being trained by process {{}}; wait until it ends, or choose another folder"
    locks = cache_folder() / "locks"
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
    folder = (cache_folder() if named is None else named) / "reference"
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
