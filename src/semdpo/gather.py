"""What a report shows of a run, gathered from its folder."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import yaml

from semdpo import store
from semdpo.config import Recipe
from semdpo.flow import evaluation
from semdpo.objective import ObjectiveConfig, SemDPOObjective
from semdpo.records import Curve, Pair, PairLoss
from semdpo.reporting.data import Published
from semdpo.reporting.published import JUDGES
from semdpo.reporting.sweep import Sweep, compute_sweep
from semdpo.semantics import automatic_alpha, effective_sample_size, semantic_weight
from semdpo.stage import AnyStage, ModelStage, Run, line_of
from semdpo.stages.report import ReportData
from semdpo.sweep import methods, settings, sweep_evaluation, sweep_flow


def report_data(stages: Sequence[AnyStage], run: Run) -> ReportData:
    """Everything that the page of a finished run shows."""
    recipe, titles = run.recipe, run.recipe.report
    models = [stage for stage in stages if isinstance(stage, ModelStage)]
    curves = [row for s in models for row in store.read_file(run.folder / s.name / store.CURVES, Curve)]
    weighed = run.rows("weigh", Pair)
    versions = store.versions() | {
        f"SHA-256 of {stage.name}": store.manifest_hash(run.folder / stage.name)
        for stage in stages
        if not stage.name.startswith("evaluate/")
    }
    metrics = recipe.evaluate.metrics
    return ReportData(
        title=titles.title,
        evaluation=evaluation(recipe).rows(run),
        pairs=weighed,
        pair_counts=_without_rows(store.row_counts(run.folder / "pairs")),
        curves=curves,
        stages=[_spent(list(group), run) for _, group in itertools.groupby(stages, key=line_of)],
        recipe=yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True),
        versions=versions,
        alpha=_alpha(recipe.train.methods.get(titles.subject), weighed),
        notes=_notes(run),
        fidelity=titles.fidelity,
        preference=titles.preference,
        seen=_seen(recipe),
        subject=titles.subject,
        baseline=titles.baseline,
        drift_threshold=titles.drift_threshold,
        losses=_losses(run),
        encoder_metric=next(
            (n for n, scorer in recipe.evaluate.metrics.items() if scorer == recipe.weigh.encoder), None
        ),
        published=Published(
            recipe.sft.model, {name: JUDGES[scorer] for name, scorer in metrics.items() if scorer in JUDGES}
        ),
        sweep=swept(run) if _has_sweep(run) else None,
        pictured=titles.pictures,
    )


def _losses(run: Run) -> list[PairLoss]:
    subject = run.recipe.report.subject
    weighted = isinstance(run.recipe.train.methods.get(subject), SemDPOObjective)
    return run.rows(f"losses/{subject}", PairLoss) if weighted else []


def _has_sweep(run: Run) -> bool:
    """Whether a finished sweep of this recipe lies in the folder."""
    if run.recipe.sweep is None:
        return False
    stages = [stage.name for stage in sweep_flow(run.recipe) if stage.name.startswith("sweep/")]
    return all(store.is_complete(run.folder / name) for name in stages)


def swept(run: Run) -> Sweep:
    """The numbers of a finished sweep."""
    config = settings(run.recipe)
    alphas = methods(config)
    distances = [each.distance or 0.0 for each in run.rows("weigh", Pair)]
    sizes = {m: effective_sample_size(semantic_weight(distances, alpha)) for m, alpha in alphas.items()}
    return compute_sweep(
        sweep_evaluation(run.recipe).rows(run),
        alphas,
        config.fidelity,
        config.preference,
        config.floor,
        {method: size / len(distances) for method, size in sizes.items()},
    )


def _spent(stages: Sequence[AnyStage], run: Run) -> tuple[str, float, int]:
    folders = [run.folder / stage.name for stage in stages]
    seconds = sum(store.seconds(folder) for folder in folders)
    return line_of(stages[0]), seconds, sum(store.row_counts(folder)["rows"] for folder in folders)


def _alpha(objective: ObjectiveConfig | None, pairs: Sequence[Pair]) -> float:
    """Of the weights that the report shows; 0 where the subject has none."""
    if not isinstance(objective, SemDPOObjective):
        return 0.0
    if objective.alpha == "auto":
        return automatic_alpha([each.distance or 0.0 for each in pairs], objective.kept_share)
    return float(objective.alpha)


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
