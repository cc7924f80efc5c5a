"""Runs a recipe's stages: skips finished ones, resumes unfinished ones, refuses those that another recipe made."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from semdpo import disk, extras
from semdpo.engine import claims, fingerprint, making, mirror, model_folders, shard_files, store, timing
from semdpo.engine.counts import described
from semdpo.engine.providers import Models, own_models, refuse_blind_fidelity, refuse_remote_code
from semdpo.engine.stage import AnyStage, Run, TableStage, shown_name
from semdpo.errors import ConfigError, StoreError, did_you_mean
from semdpo.preflight.doctor import refuse_the_impossible
from semdpo.preflight.libraries import of_report
from semdpo.progress import Progress, bar, progress_of_step, say
from semdpo.recipe.load import read_yaml, validate
from semdpo.recipe.schema import Recipe
from semdpo.reporting import limits
from semdpo.stages.benchmarks import refuse_unreadable, with_kept
from semdpo.stages.flow import flow, is_file
from semdpo.stages.sweep import refuse_below_budget, sweep_flow
from semdpo.workforce import Opener, workforce

REPLACED = " (replaced)"


def run(
    recipe: Recipe,
    folder: str | Path | None = None,
    only: str | None = None,
    fresh: bool = False,
    models: Models | None = None,
    workers: int | None = None,
    shard: tuple[int, int] | None = None,
) -> Path:
    """Runs the stages of a recipe that are not finished; an unfinished stage resumes at its first missing shard.

    Args:
        recipe: the validated recipe.
        folder: the run's folder, or its address on an object storage, such as ``s3://bucket/my-run``; None takes the
            recipe's.
        only: the name of the one stage to run, whose inputs must be finished; ``train`` means all of ``train/…``, and
            ``evaluate`` the benchmarks too.
        fresh: whether to remove stages first: those that were made with other settings and all that depend on them,
            or every stage if there are none. With ``only``, that stage and all that depend on it are removed.
        models: functions that load the run's models; None takes semdpo's own. With workers, they must be picklable.
        workers: the number of processes that rewrite, render and score; None does it in this process. Their number
            does not change the files. They share the machine's GPUs; without GPUs, each computes with one thread.
            With ``engine: ray`` in the recipe they are on a Ray cluster, and None is as many as it has room for.
        shard: (i, n) where this is process i of n, counted from 1, that share the folder; each makes shards that no
            other one makes, and all go on when a stage is complete. Fewer than n processes do all the work too.

    Returns:
        The run's folder; for an address, the folder of this machine that has the same files.

    Raises:
        ConfigError: there is no stage ``only``, ``workers`` is less than 1, or ``shard`` is no such pair or stands
            together with ``fresh`` or an address.
        StoreError: the folder is in use, was made with other settings, or cannot be written.
        SemdpoError: a stage cannot be made; the message gives the reason and the cure.

    Source:
        Sem-DPO (arXiv 2507.20133), section 4.

    Example:
        >>> import semdpo
        >>> recipe = semdpo.load_recipe("tiny", ["prompts.limit=12", "prompts.test_limit=4"])
        >>> folder = semdpo.run(recipe, "my-run", only="prompts")
        >>> sorted(path.name for path in (folder / "prompts").iterdir())
        ['manifest.json', 'part-00000.parquet', 'started.json', 'timing.json']
    """
    with mirror.working(folder or recipe.folder, shared=shard is not None) as (place, copies):
        return _run_in(place, copies, recipe, only, fresh, models, workers, shard)


def _run_in(
    place: Path,
    copies: mirror.Mirror,
    recipe: Recipe,
    only: str | None,
    fresh: bool,
    models: Models | None,
    workers: int | None,
    shard: tuple[int, int] | None,
) -> Path:
    disk.refuse_unwritable(place, folder=True)
    recipe = with_kept(recipe, place)
    if only != "report":
        refuse_unreadable(recipe)
    stages = flow(recipe)
    chosen = _chosen(stages, only)
    if models is None and only != "report":  # the report needs no model
        refuse_remote_code(recipe)
        refuse_blind_fidelity(recipe)
        refuse_the_impossible(recipe, place, chosen, fresh=fresh, report=only is None)
    if only in (None, "report"):  # before hours of work
        extras.require(**of_report(recipe))
    opener, unfinished = Opener(place, recipe, models, flow), _unfinished(chosen, place, fresh)
    with _folder(place, recipe, shard, fresh) as held, workforce(workers, opener, unfinished) as helpers:
        this = Run(place, recipe, models or own_models(recipe.scoring.allow_remote_code), helpers, held, copies)
        if only == "report":  # no stage is made, but all must be unchanged
            for stage in stages:
                _refuse_changes(stage, _complete(store.Plan(stage.config, {}), stage, this), this)
        _make(stages, chosen, this, only, fresh)
        if only in (None, "evaluate"):
            limits.write(this)
        if only in (None, "report") and (held is None or held.take("report", 0)):
            _write_report(stages, this)
    return this.folder


def sweep(
    recipe: Recipe,
    folder: str | Path | None = None,
    fresh: bool = False,
    models: Models | None = None,
    workers: int | None = None,
    shard: tuple[int, int] | None = None,
) -> Path:
    """Trains Sem-DPO with every α of the recipe's section ``sweep``, and compares the models on tuning prompts.

    Finished stages of a run in the same folder are used. The reference's log-probabilities and the pairs' distances
    are computed once for all α.

    Args:
        recipe: the validated recipe.
        folder: as in ``run``.
        fresh: as in ``run``.
        models: as in ``run``.
        workers: as in ``run``.
        shard: as in ``run``.

    Returns:
        The path of the sweep's page.

    Raises:
        ConfigError: the recipe has no section ``sweep``, or an α in it is less than that of its render budget.
        SemdpoError: as in ``run``.
    """
    refuse_below_budget(recipe)
    stages = sweep_flow(recipe)
    with mirror.working(folder or recipe.folder, shared=shard is not None) as (place, copies):
        return _sweep_in(place, copies, stages, recipe, fresh, models, workers, shard)


def _sweep_in(
    place: Path,
    copies: mirror.Mirror,
    stages: Sequence[AnyStage],
    recipe: Recipe,
    fresh: bool,
    models: Models | None,
    workers: int | None,
    shard: tuple[int, int] | None,
) -> Path:
    disk.refuse_unwritable(place, folder=True)
    recipe = with_kept(recipe, place)
    if models is None:
        refuse_remote_code(recipe)
        refuse_blind_fidelity(recipe)
        refuse_the_impossible(recipe, place, stages, fresh=fresh)
    extras.require(report="the sweep's page")
    opener, unfinished = Opener(place, recipe, models, sweep_flow), _unfinished(stages, place, fresh)
    with _folder(place, recipe, shard, fresh) as held, workforce(workers, opener, unfinished) as helpers:
        this = Run(place, recipe, models or own_models(recipe.scoring.allow_remote_code), helpers, held, copies)
        _make(stages, stages, this, None, fresh)
        if held is None or held.take("report", 0):
            _write_sweep(this)
    return _sweep_path(place)


def _make(stages: Sequence[AnyStage], chosen: Sequence[AnyStage], run: Run, only: str | None, fresh: bool) -> None:
    last = max((stages.index(stage) for stage in chosen), default=-1)
    for stage in stages[: last + 1]:
        if not (run.folder / stage.name).is_symlink():  # a link may be read, and is never removed
            disk.refuse_foreign(run.folder / stage.name)
    plans = {stage.name: _outside_plan(stage, run) for stage in stages[: last + 1]}
    if fresh:
        _remove_stale(stages, plans, run, chosen if only else None)
    for stage in stages[: last + 1]:
        _refuse_changes(stage, _complete(plans[stage.name], stage, run), run)
    _refuse_foreign_recipe(run.folder / "recipe.json")
    disk.write_bytes(run.folder / "recipe.json", run.recipe.model_dump_json(indent=1).encode())
    run.mirror.push(run.folder / "recipe.json")
    groups = _shown_groups(stages)
    for number, group in enumerate(groups, start=1):
        if members := [stage for stage in group if stage in chosen]:
            _run_group(members, plans, run, f"[{number}/{len(groups) + 1}]")


def _refuse_foreign_recipe(path: Path) -> None:
    """Refuses to overwrite a user's own file; a recipe that semdpo wrote is overwritten, even a damaged one."""
    try:
        content = store.read_json(path)
    except StoreError:
        return
    if content and not {"prompts", "sft"} <= content.keys():
        raise StoreError(f"{path} was not made by semdpo and would be lost; choose another folder with --out")


def recipe_of(folder: Path) -> Recipe:
    """The recipe of a run's folder, or of its address.

    Raises:
        StoreError: the folder holds no run.
        ConfigError: another version of semdpo wrote the recipe.
    """
    path, shown = mirror.fetched(folder, "recipe.json"), disk.address(folder) or folder
    if not disk.is_file(path):
        raise StoreError(f"{shown} holds no run; make one with `semdpo run RECIPE --out {shown}`")
    return validate(read_yaml(path), Recipe)  # JSON is YAML


def _chosen(stages: Sequence[AnyStage], only: str | None) -> list[AnyStage]:
    if only is None:
        return list(stages)
    wanted = (only, "benchmarks") if only == "evaluate" else (only,)
    chosen = [stage for stage in stages if stage.name == only or stage.name.startswith(tuple(f"{w}/" for w in wanted))]
    if not chosen and only != "report":
        names = {"report", *("/".join(parts[:n]) for s in stages for parts in [s.name.split("/")] for n in (1, 2, 3))}
        raise ConfigError(f"there is no stage '{only}'{did_you_mean(only, names)}")
    return chosen


def _unfinished(stages: Sequence[AnyStage], folder: Path, fresh: bool) -> list[AnyStage]:
    return [stage for stage in stages if fresh or not store.is_complete(folder / stage.name)]


def _outside_plan(stage: AnyStage, run: Run) -> store.Plan:
    """A stage's plan with the files and models that it reads from outside the run; fails when one does not exist."""
    hashes = {}
    for key, name in stage.outside.items():
        if is_file(key):
            hashes[key] = fingerprint.rows(name, texts=key.startswith("benchmarks."))
        else:
            hashes[key] = run.models.fingerprint(name)
    return store.Plan(stage.config, hashes)


def _complete(plan: store.Plan, stage: AnyStage, run: Run) -> store.Plan:
    """The plan with the hashes of the input stages that are finished."""
    done = [name for name in stage.inputs if store.is_complete(run.folder / name)]
    hashes = {name: store.manifest_hash(run.folder / name) for name in done}
    return store.Plan(plan.config, {**plan.inputs, **hashes})


def _refuse_changes(stage: AnyStage, plan: store.Plan, run: Run) -> None:
    if reason := store.mismatch(run.folder / stage.name, plan):
        raise StoreError(
            f"{run.folder / stage.name} {reason}; add --fresh to make it and all that depends on it again, "
            "or keep it and choose another folder with --out"
        )


def _changed(stage: AnyStage, outside: store.Plan, run: Run) -> bool:
    return store.mismatch(run.folder / stage.name, _complete(outside, stage, run)) is not None


def _remove_stale(
    stages: Sequence[AnyStage], plans: Mapping[str, store.Plan], run: Run, chosen: Sequence[AnyStage] | None
) -> None:
    stale: set[str] = {stage.name for stage in chosen or []}
    for stage in stages:
        changed = chosen is None and _changed(stage, plans[stage.name], run)
        if changed or not stale.isdisjoint(stage.inputs):
            stale.add(stage.name)
    if chosen is None and not stale:
        stale = {stage.name for stage in stages}
    _remove([run.folder / stage.name for stage in reversed(stages) if stage.name in stale], run)


def _remove(folders: Sequence[Path], run: Run) -> None:
    """Removes stages, each after those that depend on it; Ctrl-C stops the run when all are removed.

    Otherwise the run could not be resumed without --fresh, which would then remove more. A second Ctrl-C stops at once.
    """
    stopped: KeyboardInterrupt | None = None
    for folder in folders:
        try:
            run.mirror.remove(folder)
            model_folders.remove_stage(folder)
        except KeyboardInterrupt as error:
            if stopped is not None:
                raise
            stopped = error
            run.mirror.remove(folder)
            model_folders.remove_stage(folder)
    if stopped is not None:
        raise stopped


def _shown_groups(stages: Sequence[AnyStage]) -> list[list[AnyStage]]:
    """The stages in groups; a run shows each group as one stage."""
    return [list(group) for _, group in itertools.groupby(stages, key=shown_name)]


def _run_group(stages: Sequence[AnyStage], plans: Mapping[str, store.Plan], run: Run, number: str) -> None:
    """Runs stages that are shown as one; each of them has the same number of units of work."""
    title, done = f"{number} {shown_name(stages[0])}", True
    with bar(f"{title}: {stages[0].title}") as progress:
        for index, stage in enumerate(stages):
            done = _run_stage(stage, plans[stage.name], run, progress_of_step(progress, index, len(stages))) and done
    folders = [run.folder / stage.name for stage in stages]
    counts = sum((Counter(store.counts(folder)) for folder in folders), Counter[str]())
    spent = sum(timing.seconds(folder) for folder in folders)
    say(f"{title}: {described(shown_name(stages[0]), counts)}; {'already finished' if done else f'{spent:.1f} s'}")
    first = stages[0]
    if isinstance(first, TableStage) and first.remark is not None and (remark := first.remark(counts)):
        say(remark)


def _run_stage(stage: AnyStage, outside: store.Plan, run: Run, progress: Progress) -> bool:
    """Runs a stage unless it is finished; returns whether it was."""
    folder = run.folder / stage.name
    if missing := [name for name in stage.inputs if not store.is_complete(run.folder / name)]:
        raise StoreError(f"stage {stage.name} needs {missing[0]}, which is not finished; first run without --only")
    plan = _complete(outside, stage, run)
    _refuse_changes(stage, plan, run)  # again, because inputs that were missing exist now
    if done := store.is_complete(folder):
        shard_files.remove_notes(folder)  # a process that was killed at the end may have left these
        model_folders.remove_time_note(folder)
    else:
        making.make(stage, plan, run, progress)
    run.mirror.push(folder)
    return done


# ------------------------------------------------------------------------------------------------- processes


@contextmanager
def _folder(place: Path, recipe: Recipe, shard: tuple[int, int] | None, fresh: bool) -> Iterator[claims.Claims | None]:
    """Locks a run's folder for this process, or for all that share its work; then gives this process's claims."""
    if shard is None:
        with store.locked(place):
            claims.remove(place)
            yield None
        return
    part, parts = shard
    if not 1 <= part <= parts:
        raise ConfigError(f"shard is {part}/{parts}; processes are counted from 1/{parts} to {parts}/{parts}")
    if recipe.engine == "ray":
        raise ConfigError("with engine: ray, one process gives the shards out; leave --shard out, or set engine=local")
    if fresh:
        raise ConfigError("--fresh would remove what other processes make; run it once without --shard, then all")
    with store.shared(place), claims.Claims(place, part, parts) as held:
        yield held


# ------------------------------------------------------------------------------------------------- the report


def report_path(folder: Path) -> Path:
    """The path of a run's page; its tables and plots are in the same folder."""
    return folder / "report" / "index.html"


def _write_report(stages: Sequence[AnyStage], run: Run) -> None:
    from semdpo.reporting.collect import report_data
    from semdpo.reporting.report import write_report

    if missing := [stage.name for stage in stages if not store.is_complete(run.folder / stage.name)]:
        raise StoreError(f"the report needs {missing[0]}, which is not finished; first run without --only")
    path = report_path(run.folder)
    before = path.exists()
    with bar("report: plotting"):
        write_report(report_data(stages, run), path)
    last = len(_shown_groups(stages)) + 1
    say(f"[{last}/{last}] report: {path}{REPLACED if before else ''}")


def _sweep_path(folder: Path) -> Path:
    return report_path(folder).with_name("sweep.html")


def _write_sweep(run: Run) -> None:
    from semdpo.reporting.collect import swept
    from semdpo.reporting.report import write_sweep

    results, path = swept(run), _sweep_path(run.folder)
    before = path.exists()
    write_sweep(results, path)
    say(f"alpha {results.chosen:g}: {results.choice.reason}; set train.methods.NAME.alpha={results.chosen:g}")
    say(f"sweep: {path}{REPLACED if before else ''}")
