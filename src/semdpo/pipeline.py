"""Runs a recipe's stages: skips finished ones, resumes unfinished ones, refuses those that another recipe made."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from semdpo import disk, extras
from semdpo.data.records import Curve
from semdpo.engine import fingerprint, model_folders, parquet, store, timing
from semdpo.engine.counts import described
from semdpo.engine.providers import Models, own_models, refuse_remote_code
from semdpo.engine.stage import AnyStage, ModelStage, Run, TableStage, shown_name
from semdpo.errors import ConfigError, StoreError, did_you_mean
from semdpo.preflight.doctor import refuse_the_impossible
from semdpo.progress import Progress, bar, progress_of_part, progress_of_step, say
from semdpo.recipe.load import read_yaml, validate
from semdpo.recipe.schema import Recipe
from semdpo.stages.flow import flow, is_file
from semdpo.stages.sweep import sweep_flow

REPLACED = " (replaced)"


def run(
    recipe: Recipe,
    folder: str | Path | None = None,
    only: str | None = None,
    fresh: bool = False,
    models: Models | None = None,
) -> Path:
    """Runs the stages of a recipe that are not finished; an unfinished stage resumes at its first missing shard.

    Args:
        recipe: the validated recipe.
        folder: the run's folder; None takes the recipe's.
        only: the name of the one stage to run, whose inputs must be finished; ``train`` means all of ``train/…``.
        fresh: whether to remove stages first: those that were made with other settings and all that depend on them,
            or every stage if there are none. With ``only``, that stage and all that depend on it are removed.
        models: functions that load the run's models; None takes semdpo's own.

    Returns:
        The run's folder.

    Raises:
        ConfigError: there is no stage ``only``.
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
    place = Path(folder or recipe.folder)
    disk.refuse_unwritable(place, folder=True)
    stages = flow(recipe)
    chosen = _chosen(stages, only)
    if models is None and only != "report":  # the report needs no model
        refuse_remote_code(recipe)
        refuse_the_impossible(recipe, place, chosen, fresh=fresh, report=only is None)
    this = Run(place, recipe, models or own_models())
    if only in (None, "report"):  # before hours of work
        extras.require(report="the report")
    with store.locked(this.folder):
        if only == "report":  # no stage is made, but all must be unchanged
            for stage in stages:
                _refuse_changes(stage, _complete(store.Plan(stage.config, {}), stage, this), this)
        _make(stages, chosen, this, only, fresh)
        if only in (None, "report"):
            _write_report(stages, this)
    return this.folder


def sweep(recipe: Recipe, folder: str | Path | None = None, fresh: bool = False, models: Models | None = None) -> Path:
    """Trains Sem-DPO with every α of the recipe's section ``sweep``, and compares the models on tuning prompts.

    Finished stages of a run in the same folder are used. The reference's log-probabilities and the pairs' distances
    are computed once for all α.

    Args:
        recipe: the validated recipe.
        folder: the run's folder; None takes the recipe's.
        fresh: as in ``run``.
        models: functions that load the run's models; None takes semdpo's own.

    Returns:
        The path of the sweep's page.

    Raises:
        ConfigError: the recipe has no section ``sweep``.
        SemdpoError: as in ``run``.
    """
    stages, place = sweep_flow(recipe), Path(folder or recipe.folder)
    disk.refuse_unwritable(place, folder=True)
    if models is None:
        refuse_remote_code(recipe)
        refuse_the_impossible(recipe, place, stages, fresh=fresh)
    this = Run(place, recipe, models or own_models())
    extras.require(report="the sweep's page")
    with store.locked(this.folder):
        _make(stages, stages, this, None, fresh)
        return _write_sweep(this)


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
    """The recipe of a run's folder.

    Raises:
        StoreError: the folder holds no run.
        ConfigError: another version of semdpo wrote the recipe.
    """
    path = folder / "recipe.json"
    if not disk.is_file(path):
        raise StoreError(f"{folder} holds no run; make one with `semdpo run RECIPE --out {folder}`")
    return validate(read_yaml(path), Recipe)  # JSON is YAML


def _chosen(stages: Sequence[AnyStage], only: str | None) -> list[AnyStage]:
    if only is None:
        return list(stages)
    chosen = [stage for stage in stages if stage.name == only or stage.name.startswith(f"{only}/")]
    if not chosen and only != "report":
        names = {"report", *("/".join(parts[:n]) for s in stages for parts in [s.name.split("/")] for n in (1, 2, 3))}
        raise ConfigError(f"there is no stage '{only}'{did_you_mean(only, names)}")
    return chosen


def _outside_plan(stage: AnyStage, run: Run) -> store.Plan:
    """A stage's plan with the files and models that it reads from outside the run; fails when one does not exist."""
    hashes = {}
    for key, name in stage.outside.items():
        hashes[key] = fingerprint.rows(name) if is_file(key) else run.models.fingerprint(name)
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
    for stage in reversed(stages):  # a stage is removed after those that depend on it
        if stage.name in stale:
            model_folders.remove_stage(run.folder / stage.name)


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


def _run_stage(stage: AnyStage, outside: store.Plan, run: Run, progress: Progress) -> bool:
    """Runs a stage unless it is finished; returns whether it was."""
    folder = run.folder / stage.name
    if missing := [name for name in stage.inputs if not store.is_complete(run.folder / name)]:
        raise StoreError(f"stage {stage.name} needs {missing[0]}, which is not finished; first run without --only")
    plan = _complete(outside, stage, run)
    _refuse_changes(stage, plan, run)  # again, because inputs that were missing exist now
    if store.is_complete(folder):
        return True
    if isinstance(stage, TableStage):
        _make_table(stage, plan, run, progress)
    else:
        _make_model(stage, plan, run, progress)
    return False


def _make_table(stage: TableStage, plan: store.Plan, run: Run, progress: Progress) -> None:
    folder = run.folder / stage.name
    store.start(folder, plan)
    shards = stage.shards(run)
    total, before = sum(shard.size for shard in shards), 0
    for index, shard in enumerate(shards):
        progress(before, total)
        if not store.has_shard(folder, index):
            begun = time.monotonic()
            rows, counts = shard.make(progress_of_part(progress, before, total))
            store.write_shard(folder, index, parquet.encode(stage.kind, rows, counts))
            timing.add_seconds(folder, time.monotonic() - begun)
        before += shard.size
    progress(total, total)
    store.finish(folder, plan, len(shards))


def _make_model(stage: ModelStage, plan: store.Plan, run: Run, progress: Progress) -> None:
    folder = run.folder / stage.name
    clock, work = timing.Clock(folder), model_folders.start(folder, plan)

    def advance(done: int, total: int, note: str = "") -> None:
        clock.tick()
        progress(done, total, note)

    with disk.explain_full_disk(work):
        curves = stage.train(run, work, advance)
    disk.write_bytes(work / model_folders.CURVES, parquet.encode(Curve, curves, {}))
    timing.add_seconds(work, clock.seconds)
    model_folders.finish(folder, plan, {"rows": len(curves)})
    clock.stop()


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


def _write_sweep(run: Run) -> Path:
    from semdpo.reporting.collect import swept
    from semdpo.reporting.report import write_sweep

    results = swept(run)
    path = report_path(run.folder).with_name("sweep.html")
    before = path.exists()
    write_sweep(results, path)
    say(f"alpha {results.chosen:g}: {results.choice.reason}; set train.methods.NAME.alpha={results.chosen:g}")
    say(f"sweep: {path}{REPLACED if before else ''}")
    return path
