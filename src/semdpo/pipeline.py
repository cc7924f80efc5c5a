"""Runs a recipe's stages: skips what is finished, resumes what is half-done, refuses what another recipe made."""

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
    """Runs what is missing of a recipe; a half-done stage resumes at its first missing shard.

    Args:
        recipe: validated.
        folder: of the run; the recipe's when None.
        only: one stage (``train`` means all of ``train/…``), whose inputs must be there.
        fresh: first remove the stages that another configuration made, and all that is made from them; if there are
            none, remove every stage. With ``only``, remove that stage and all that is made from it.
        models: how the run gets its models; the package's own when None.

    Returns:
        The run's folder.

    Raises:
        ConfigError: there is no stage ``only``.
        StoreError: the folder is in use, was made by another configuration, or cannot be written.
        SemdpoError: whatever a stage finds wrong.

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
    if models is None and only != "report":  # which needs no model
        refuse_remote_code(recipe)
        refuse_the_impossible(recipe, place, chosen, fresh=fresh, report=only is None)
    this = Run(place, recipe, models or own_models())
    if only in (None, "report"):  # now, not after hours
        extras.require(report="the report")
    with store.locked(this.folder):
        if only == "report":  # which makes no stage, and must show none that something else was made from
            for stage in stages:
                _refuse_changes(stage, _complete(store.Plan(stage.config, {}), stage, this), this)
        _make(stages, chosen, this, only, fresh)
        if only in (None, "report"):
            _write_report(stages, this)
    return this.folder


def sweep(recipe: Recipe, folder: str | Path | None = None, fresh: bool = False, models: Models | None = None) -> Path:
    """Trains Sem-DPO at every α of the recipe's section ``sweep``, and compares them on tuning prompts.

    What a run in the folder has already made is used; the reference's log-probabilities and the pairs' distances
    are computed once for all.

    Args:
        recipe: validated.
        folder: of the run; the recipe's when None.
        fresh: as in ``run``.
        models: how the run gets its models; the package's own when None.

    Returns:
        The sweep's page.

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
        if not (run.folder / stage.name).is_symlink():  # which may be read, and is not removed
            disk.refuse_foreign(run.folder / stage.name)
    plans = {stage.name: _outside_plan(stage, run) for stage in stages[: last + 1]}
    if fresh:
        _remove_stale(stages, plans, run, chosen if only else None)
    for stage in stages[: last + 1]:
        _refuse_changes(stage, _complete(plans[stage.name], stage, run), run)
    _refuse_foreign_recipe(run.folder / "recipe.json")
    disk.write_bytes(run.folder / "recipe.json", run.recipe.model_dump_json(indent=1).encode())
    lines = _lines(stages)
    for number, group in enumerate(lines, start=1):
        if wanted := [stage for stage in group if stage in chosen]:
            _run_line(wanted, plans, run, f"[{number}/{len(lines) + 1}]")


def _refuse_foreign_recipe(path: Path) -> None:
    """A user's own file of that name is not overwritten; one of ours is written anew, damaged or not."""
    try:
        known = store.read_json(path)
    except StoreError:
        return
    if known and not {"prompts", "sft"} <= known.keys():
        raise StoreError(f"{path} was not made by semdpo and would be lost; choose another folder with --out")


def recipe_of(folder: Path) -> Recipe:
    """The recipe that a run's folder was made by.

    Raises:
        StoreError: there is no run in the folder.
        ConfigError: another version of this package wrote it.
    """
    path = folder / "recipe.json"
    if not disk.is_file(path):
        raise StoreError(f"{folder} is no run's folder; make one with `semdpo run RECIPE --out {folder}`")
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
    """The plan with the inputs that come from outside of the run; fails when one of them does not exist."""
    hashes = {}
    for key, name in stage.outside.items():
        hashes[key] = fingerprint.rows(name) if is_file(key) else run.models.fingerprint(name)
    return store.Plan(stage.config, hashes)


def _complete(plan: store.Plan, stage: AnyStage, run: Run) -> store.Plan:
    """The plan with the hashes of those input stages that are finished."""
    done = [name for name in stage.inputs if store.is_complete(run.folder / name)]
    hashes = {name: store.manifest_hash(run.folder / name) for name in done}
    return store.Plan(plan.config, {**plan.inputs, **hashes})


def _refuse_changes(stage: AnyStage, plan: store.Plan, run: Run) -> None:
    if reason := store.mismatch(run.folder / stage.name, plan):
        raise StoreError(
            f"{run.folder / stage.name} {reason}; add --fresh to make it and what follows from it anew, "
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
    for stage in reversed(stages):  # what is made from a stage goes before it
        if stage.name in stale:
            model_folders.remove_stage(run.folder / stage.name)


def _lines(stages: Sequence[AnyStage]) -> list[list[AnyStage]]:
    """Stages that people are told of as one."""
    return [list(group) for _, group in itertools.groupby(stages, key=shown_name)]


def _run_line(stages: Sequence[AnyStage], plans: Mapping[str, store.Plan], run: Run, number: str) -> None:
    """Runs stages of one line, which have equally many units of work."""
    title, done = f"{number} {shown_name(stages[0])}", True
    with bar(f"{title}: {stages[0].title}") as progress:
        for index, stage in enumerate(stages):
            done = _run_stage(stage, plans[stage.name], run, progress_of_step(progress, index, len(stages))) and done
    folders = [run.folder / stage.name for stage in stages]
    counts = sum((Counter(store.counts(folder)) for folder in folders), Counter[str]())
    spent = sum(timing.seconds(folder) for folder in folders)
    say(f"{title}: {described(shown_name(stages[0]), counts)}; {'was there' if done else f'{spent:.1f} s'}")


def _run_stage(stage: AnyStage, outside: store.Plan, run: Run, progress: Progress) -> bool:
    """Whether the stage was there already."""
    folder = run.folder / stage.name
    if missing := [name for name in stage.inputs if not store.is_complete(run.folder / name)]:
        raise StoreError(f"stage {stage.name} needs {missing[0]}, which is not finished; run without --only first")
    plan = _complete(outside, stage, run)
    _refuse_changes(stage, plan, run)  # again: what was missing when the run began is there now
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

    def told(done: int, total: int, note: str = "") -> None:
        clock.tick()
        progress(done, total, note)

    with disk.explain_full_disk(work):
        curves = stage.train(run, work, told)
    disk.write_bytes(work / model_folders.CURVES, parquet.encode(Curve, curves, {}))
    timing.add_seconds(work, clock.seconds)
    model_folders.finish(folder, plan, {"rows": len(curves)})
    clock.stop()


# ------------------------------------------------------------------------------------------------- the report


def report_path(folder: Path) -> Path:
    """The page of a run; its tables and plots lie beside it."""
    return folder / "report" / "index.html"


def _write_report(stages: Sequence[AnyStage], run: Run) -> None:
    from semdpo.reporting.collect import report_data
    from semdpo.reporting.report import write_report

    if missing := [stage.name for stage in stages if not store.is_complete(run.folder / stage.name)]:
        raise StoreError(f"the report needs {missing[0]}, which is not finished; run without --only first")
    path = report_path(run.folder)
    before = path.exists()
    with bar("report: plotting"):
        write_report(report_data(stages, run), path)
    last = len(_lines(stages)) + 1
    say(f"[{last}/{last}] report: {path}{REPLACED if before else ''}")


def _write_sweep(run: Run) -> Path:
    from semdpo.reporting.collect import swept
    from semdpo.reporting.report import write_sweep

    found = swept(run)
    path = report_path(run.folder).with_name("sweep.html")
    before = path.exists()
    write_sweep(found, path)
    say(f"alpha {found.chosen:g}: {found.choice.reason}; set train.methods.NAME.alpha={found.chosen:g}")
    say(f"sweep: {path}{REPLACED if before else ''}")
    return path
