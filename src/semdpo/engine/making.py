"""Makes a stage: the shards of a table that are missing, or a model. Several processes may share the work."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from semdpo import disk
from semdpo.data.records import Curve
from semdpo.engine import model_folders, parquet, shard_files, store, timing
from semdpo.engine.claims import Claims
from semdpo.engine.stage import AnyStage, ModelStage, Run, Shard, TableStage
from semdpo.errors import ModelError, SemdpoError, StoreError, out_of_memory
from semdpo.models.attempts import reason
from semdpo.progress import Progress, progress_of_part


def make(stage: AnyStage, plan: store.Plan, run: Run, progress: Progress) -> None:
    """Makes what is missing of a stage, and its manifest; returns when the stage is complete, whoever made it.

    Args:
        stage: the stage, whose inputs are complete.
        plan: what determines its files.
        run: the run.
        progress: called as the work goes on.

    Raises:
        SemdpoError: it cannot be made; the message gives the reason and the cure.
    """
    if isinstance(stage, TableStage):
        _make_table(stage, plan, run, progress)
    elif run.claims is None:
        _make_model(stage, plan, run, progress)
    else:
        _make_or_await_model(stage, plan, run, run.claims, progress)


def encoded(stage: TableStage, shard: Shard, progress: Progress) -> tuple[bytes, int]:
    """Makes a shard: the content of its file, and with how many threads it was made."""
    with _memory_explained(stage):
        rows, counts = shard.make(progress)
    return parquet.encode(stage.kind, rows, counts), store.thread_count()


@contextmanager
def _memory_explained(stage: AnyStage) -> Iterator[None]:
    """Turns a lack of memory, which torch reports in its own words, into one sentence that names the cure.

    Raises:
        ModelError: there was not enough memory for the stage.
    """
    try:
        yield
    except Exception as error:
        if not out_of_memory(error):
            raise
        cure = "set a lower micro_batch_size, or train adapters (train.lora)"
        if isinstance(stage, TableStage):
            cure = "lower the batch_size of the models that it uses, set renderer.offload, or give fewer --workers"
        raise ModelError(
            f"there is not enough memory for {stage.name} ({reason(error)}); {cure}, then run the same command again"
        ) from error


def _make_table(stage: TableStage, plan: store.Plan, run: Run, progress: Progress) -> None:
    """Makes a stage of rows.

    One that is refused before its first shard leaves nothing, so that the user can correct a setting and give the
    command again.
    """
    folder = run.folder / stage.name
    begun_here = shard_files.start(folder, plan)
    try:
        _make_shards(stage, plan, run, progress)
    except SemdpoError:
        if begun_here and run.claims is None and not shard_files.has_any(folder):
            with suppress(SemdpoError):  # an object storage that does not answer keeps the note; the error says why
                run.mirror.remove(folder)
            shard_files.forget_start(folder)
        raise


def _make_shards(stage: TableStage, plan: store.Plan, run: Run, progress: Progress) -> None:
    folder = run.folder / stage.name
    shards = stage.shards(run)
    run.mirror.push(folder)
    for index in range(len(shards)):
        if shard_files.is_noted(folder, index) and not shard_files.has_shard(folder, index):
            shard_files.forget_shard(folder, index)
    total, threads, begun = sum(shard.size for shard in shards), store.thread_count(), time.monotonic()
    written: list[int] = []
    while missing := [index for index in range(len(shards)) if not shard_files.is_noted(folder, index)]:
        done = total - sum(shards[index].size for index in missing)
        mine = _claimed(stage, missing, len(shards), run)
        for index, data, used in _made(stage, shards, mine, run, done, progress):
            threads = used
            shard_files.write_shard(folder, index, data, time.monotonic() - begun)
            written.append(index)
            for path in shard_files.files_of_shard(folder, index):
                run.mirror.push(path)
            begun = time.monotonic()
            if run.claims is not None:
                run.claims.release(stage.name, index)
        if store.is_complete(folder):  # another process was faster
            return
        if run.claims is not None and not all(shard_files.is_noted(folder, index) for index in missing):
            run.claims.wait()
    progress(total, total)
    if written and stage.pool is not None:
        _refuse_replaced(stage, plan, run, written)
    _finish_table(folder, plan, len(shards), threads)


def _refuse_replaced(stage: TableStage, plan: store.Plan, run: Run, written: Sequence[int]) -> None:
    """Refuses shards while whose making, or since the run began, a model has got other files; they are made again.

    Args:
        stage: a stage that reads nothing but models from outside.
        plan: what its files are made from, as its manifest would say.
        run: the run.
        written: the shards that this process has written.

    Raises:
        StoreError: a model has changed; the message names it.
    """
    for key, name in stage.outside.items():
        if run.models.fingerprint(name) != plan.inputs[key]:
            for index in written:
                shard_files.forget_shard(run.folder / stage.name, index)
            raise StoreError(
                f"{key}: '{name}' was changed while {run.folder / stage.name} was made; run again with --fresh to make "
                "it and all that depends on it with the model as it is now"
            )


def _claimed(stage: TableStage, missing: Sequence[int], total: int, run: Run) -> Iterator[int]:
    """The missing shards, each when it is asked for; of a shared run, those that no other process makes."""
    if run.claims is None:
        yield from missing
        return
    folder = run.folder / stage.name
    for index in run.claims.in_order(missing, total):
        if store.is_complete(folder):
            return
        if not shard_files.is_noted(folder, index) and run.claims.take(stage.name, index):
            if shard_files.is_noted(folder, index) or store.is_complete(folder):  # made between the two questions
                run.claims.release(stage.name, index)
            else:
                yield index


def _made(
    stage: TableStage, shards: Sequence[Shard], indices: Iterable[int], run: Run, done: int, progress: Progress
) -> Iterator[tuple[int, bytes, int]]:
    """Makes shards, here or in workers: each one's index, its file's bytes, and the number of threads."""
    total = sum(shard.size for shard in shards)
    if run.workers is not None and stage.pool is not None:
        progress(done, total)
        for index, (data, threads) in run.workers.made(stage.name, indices):
            done += shards[index].size
            progress(done, total)
            yield index, data, threads
        return
    for index in indices:
        progress(done, total)
        yield index, *encoded(stage, shards[index], progress_of_part(progress, done, total))
        done += shards[index].size


def _finish_table(folder: Path, plan: store.Plan, shards: int, threads: int) -> None:
    try:
        shard_files.finish(folder, plan, shards, threads)
    except StoreError:
        if not store.is_complete(folder):  # else another process has finished it, and removed the notes
            raise


def _make_model(stage: ModelStage, plan: store.Plan, run: Run, progress: Progress) -> None:
    folder = run.folder / stage.name
    if run.workers is not None:
        run.workers.stop()  # the training needs the memory
    run.models.release()  # and that of this process
    clock, work = timing.Clock(folder), model_folders.start(folder, plan)

    def advance(done: int, total: int, note: str = "") -> None:
        clock.tick()
        progress(done, total, note)

    with disk.explain_full_disk(work), _memory_explained(stage):
        curves = stage.train(run, work, advance)
    run.models.release()  # of the trainer and its optimizer
    disk.write_bytes(work / model_folders.CURVES, parquet.encode(Curve, curves, {}))
    timing.note_seconds(work, clock.seconds)
    if run.claims is not None and run.claims.has_lost(stage.name, 0):
        raise StoreError(
            f"another process took {folder} over, because this one did not answer for too long; it goes on there"
        )
    model_folders.finish(folder, plan, {"rows": len(curves)})
    model_folders.remove_time_note(folder)


def _make_or_await_model(stage: ModelStage, plan: store.Plan, run: Run, claims: Claims, progress: Progress) -> None:
    folder = run.folder / stage.name
    while not store.is_complete(folder):
        if not claims.take(stage.name, 0):
            claims.wait()
        elif not store.is_complete(folder):  # it may have become so between the two questions
            _make_model(stage, plan, run, progress)
    claims.release(stage.name, 0)
