"""Runs a recipe's stages: skips what is finished, resumes what is half-done, refuses what another recipe made."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from semdpo import files, prompt_sets, store
from semdpo.config import Recipe
from semdpo.doctor import refuse_the_impossible
from semdpo.errors import ConfigError, StoreError, did_you_mean
from semdpo.flow import AnyStage, ModelStage, Run, TableStage, flow, is_file
from semdpo.objective import ObjectiveConfig, SemDPOObjective
from semdpo.parts import Parts, real_parts, refuse_remote_code
from semdpo.progress import Progress, bar, part_of, say
from semdpo.recipe import read_yaml, validate
from semdpo.records import Curve, EvaluationRow, Pair
from semdpo.semantics import automatic_alpha

CURVES = "curves.parquet"


def run(
    recipe: Recipe, folder: Path | None = None, only: str | None = None, fresh: bool = False, parts: Parts | None = None
) -> Path:
    """Runs what is missing of a recipe; a half-done stage resumes at its first missing shard.

    Args:
        recipe: validated.
        folder: of the run; the recipe's when None.
        only: one stage (``train`` means all of ``train/…``), whose inputs must be there.
        fresh: first remove the stages that another configuration made, and all that is made from them; if there are
            none, remove every stage. With ``only``, remove that stage and all that is made from it.
        parts: models and trainers; the package's own when None.

    Returns:
        The run's folder.

    Raises:
        ConfigError: there is no stage ``only``.
        StoreError: the folder is in use, was made by another configuration, or cannot be written.
        SemdpoError: whatever a stage finds wrong.
    """
    if parts is None and only != "report":  # which needs no model
        refuse_remote_code(recipe)
        refuse_the_impossible(recipe, folder or recipe.folder)
    this = Run(folder or recipe.folder, recipe, parts or real_parts())
    stages = flow(recipe)
    chosen = _chosen(stages, only)
    with store.locked(this.folder):
        last = max((stages.index(stage) for stage in chosen), default=-1)
        plans = {stage.name: _outside_plan(stage, this) for stage in stages[: last + 1]}
        if fresh:
            _remove_stale(stages, plans, this, chosen if only else None)
        for stage in stages[: last + 1]:
            _refuse_changes(stage, _complete(plans[stage.name], stage, this), this)
        files.write_bytes(this.folder / "recipe.json", recipe.model_dump_json(indent=1).encode())
        for number, stage in enumerate(stages, start=1):
            if stage in chosen:
                _run_stage(stage, plans[stage.name], this, f"[{number}/{len(stages) + 1}]")
        if only in (None, "report"):
            _write_report(stages, this)
    return this.folder


def recipe_of(folder: Path) -> Recipe:
    """The recipe that a run's folder was made by.

    Raises:
        StoreError: there is no run in the folder.
        ConfigError: another version of this package wrote it.
    """
    path = folder / "recipe.json"
    if not path.is_file():
        raise StoreError(f"{folder} is no run's folder; make one with `semdpo run RECIPE --out {folder}`")
    return validate(read_yaml(path), Recipe)  # JSON is YAML


def _chosen(stages: Sequence[AnyStage], only: str | None) -> list[AnyStage]:
    if only is None:
        return list(stages)
    chosen = [stage for stage in stages if only in (stage.name, stage.name.split("/")[0])]
    if not chosen and only != "report":
        names = {"report", *(n for s in stages for n in (s.name, s.name.split("/")[0]))}
        raise ConfigError(f"there is no stage '{only}'{did_you_mean(only, names)}")
    return chosen


def _outside_plan(stage: AnyStage, run: Run) -> store.Plan:
    """The plan with the inputs that come from outside of the run; fails when one of them does not exist."""
    hashes = {}
    for key, name in stage.outside.items():
        hashes[key] = prompt_sets.fingerprint(name) if is_file(key) else run.parts.fingerprint(name)
    return store.Plan(stage.config, hashes)


def _complete(plan: store.Plan, stage: AnyStage, run: Run) -> store.Plan:
    """The plan with the hashes of those input stages that are finished."""
    done = [name for name in stage.inputs if store.is_complete(run.folder / name)]
    hashes = {name: store.manifest_hash(run.folder / name) for name in done}
    return store.Plan(plan.config, {**plan.inputs, **hashes})


def _refuse_changes(stage: AnyStage, plan: store.Plan, run: Run) -> None:
    if reason := store.disagreement(run.folder / stage.name, plan):
        raise StoreError(
            f"{run.folder / stage.name} {reason}; add --fresh to make it and what follows from it anew, "
            "or keep it and choose another folder with --out"
        )


def _changed(stage: AnyStage, outside: store.Plan, run: Run) -> bool:
    return store.disagreement(run.folder / stage.name, _complete(outside, stage, run)) is not None


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
            store.remove(run.folder / stage.name)


def _run_stage(stage: AnyStage, outside: store.Plan, run: Run, number: str) -> None:
    folder = run.folder / stage.name
    if missing := [name for name in stage.inputs if not store.is_complete(run.folder / name)]:
        raise StoreError(f"stage {stage.name} needs {missing[0]}, which is not finished; run without --only first")
    plan = _complete(outside, stage, run)
    _refuse_changes(stage, plan, run)  # again: what was missing when the run began is there now
    done = store.is_complete(folder)
    if not done:
        with bar(f"{number} {stage.name}: {stage.title}") as progress:
            if isinstance(stage, TableStage):
                _make_table(stage, plan, run, progress)
            else:
                _make_model(stage, plan, run, progress)
    counts = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in store.row_counts(folder).items())
    say(f"{number} {stage.name}: {counts}; {'was there' if done else f'{store.seconds(folder):.1f} s'}")


def _make_table(stage: TableStage, plan: store.Plan, run: Run, progress: Progress) -> None:
    folder = run.folder / stage.name
    store.start(folder, plan)
    shards = stage.shards(run)
    total, before = sum(shard.size for shard in shards), 0
    for index, shard in enumerate(shards):
        progress(before, total)
        if not store.shard_path(folder, index).is_file():
            begun = time.monotonic()
            rows, counts = shard.make(part_of(progress, before, total))
            store.write_shard(folder, index, store.encode(stage.kind, rows, counts))
            store.add_seconds(folder, time.monotonic() - begun)
        before += shard.size
    progress(total, total)
    store.finish(folder, plan, len(shards))


def _make_model(stage: ModelStage, plan: store.Plan, run: Run, progress: Progress) -> None:
    begun = time.monotonic()
    folder = run.folder / stage.name
    work = store.start_model(folder)
    try:
        curves = stage.train(run, work, progress)
    except Exception as error:
        if files.out_of_space(error):
            raise files.unwritable(work, error) from error
        raise
    files.write_bytes(work / CURVES, store.encode(Curve, curves, {}))
    store.add_seconds(work, time.monotonic() - begun)
    store.finish_model(folder, plan, {"rows": len(curves)})


# ------------------------------------------------------------------------------------------------- the report


def report_path(folder: Path) -> Path:
    """The page of a run; its tables and plots lie beside it."""
    return folder / "report" / "index.html"


def _write_report(stages: Sequence[AnyStage], run: Run) -> None:
    import yaml

    from semdpo.stages.report import ReportData, write_report

    if missing := [stage.name for stage in stages if not store.is_complete(run.folder / stage.name)]:
        raise StoreError(f"the report needs {missing[0]}, which is not finished; run without --only first")
    recipe, titles = run.recipe, run.recipe.report
    tables = [stage for stage in stages if isinstance(stage, TableStage)]
    models = [stage for stage in stages if isinstance(stage, ModelStage)]
    curves = [row for s in models for row in store.read_file(run.folder / s.name / CURVES, Curve)]
    subject = recipe.train.methods.get(titles.subject)
    weighed = run.rows("weigh", Pair)
    data = ReportData(
        title=titles.title,
        evaluation=[row for s in tables if s.kind is EvaluationRow for row in run.rows(s.name, EvaluationRow)],
        pairs=weighed,
        pair_counts=_without_rows(store.row_counts(run.folder / "pairs")),
        curves=curves,
        stages=[(s.name, store.seconds(run.folder / s.name), _rows(run.folder / s.name)) for s in stages],
        recipe=yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True),
        versions=store.versions(),
        alpha=_alpha(subject, weighed),
        notes=_notes(run),
        fidelity=titles.fidelity,
        preference=titles.preference,
        seen=_seen(recipe),
        subject=titles.subject,
        baseline=titles.baseline,
    )
    with bar("report: plotting"):
        write_report(data, report_path(run.folder))
    say(f"[{len(stages) + 1}/{len(stages) + 1}] report: {report_path(run.folder)}")


def _alpha(objective: ObjectiveConfig | None, pairs: Sequence[Pair]) -> float:
    """Of the weights that the report shows; 0 where the subject has none."""
    if not isinstance(objective, SemDPOObjective):
        return 0.0
    if objective.alpha == "auto":
        return automatic_alpha([each.distance or 0.0 for each in pairs], objective.kept_share)
    return float(objective.alpha)


def _rows(folder: Path) -> int:
    return store.row_counts(folder)["rows"]


def _without_rows(counts: Mapping[str, int]) -> dict[str, int]:
    return {name: count for name, count in counts.items() if name != "rows"}


def _seen(recipe: Recipe) -> dict[str, str]:
    """Which judges are no outsiders, and why."""
    reasons = {
        recipe.weigh.encoder: "its text tower measured the drift that set the weights",
        recipe.label.scorer: "it labelled the training pairs",
    }
    return {name: reasons[scorer] for name, scorer in recipe.evaluate.metrics.items() if scorer in reasons}


def _notes(run: Run) -> list[str]:
    drawn, labelled = (store.row_counts(run.folder / name) for name in ("candidates", "label"))
    weighed = store.row_counts(run.folder / "weigh")
    return [
        f"Candidates: {drawn['kept']} kept, {drawn['duplicates']} duplicates and {drawn['empty']} empty ones dropped, "
        f"{drawn['truncated']} cut at the token limit; {drawn['prompts_without']} prompts were left without any.",
        f"Longer than the renderer or the labelling judge reads: {labelled['truncated']} candidates; "
        f"longer than the encoder reads: {weighed['truncated']} pairs.",
    ]
