"""What a report shows of a run, gathered from its folder."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace

import yaml

from semdpo.analysis.semantics import automatic_alpha, effective_sample_size, semantic_weight
from semdpo.data.records import Curve, Pair, PairLoss
from semdpo.engine import model_folders, parquet, store, timing
from semdpo.engine.stage import AnyStage, ModelStage, Run, shown_name
from semdpo.recipe.objectives import ObjectiveSettings, SemDPOSettings
from semdpo.recipe.schema import Recipe
from semdpo.reporting.alpha_sweep import Sweep, compute_sweep
from semdpo.reporting.data import Published
from semdpo.reporting.evaluated import blackened, evaluation_rows
from semdpo.reporting.propositions import gives_cosines
from semdpo.reporting.published import SCORERS
from semdpo.reporting.report import ReportData
from semdpo.stages.evaluate import evaluation
from semdpo.stages.sweep import methods, settings, sweep_evaluation, sweep_flow


def report_data(stages: Sequence[AnyStage], run: Run) -> ReportData:
    """Everything that the page of a finished run shows."""
    recipe, titles = run.recipe, run.recipe.report
    models = [stage for stage in stages if isinstance(stage, ModelStage)]
    curves = [row for s in models for row in parquet.read_file(run.folder / s.name / model_folders.CURVES, Curve)]
    weighed = run.rows("drift", Pair)
    versions = _versions(stages, run) | {
        f"SHA-256 of {stage.name}": store.manifest_hash(run.folder / stage.name)
        for stage in stages
        if not stage.name.startswith("evaluate/")
    }
    metrics = recipe.evaluate.metrics
    found = ReportData(
        title=titles.title,
        evaluation=evaluation_rows(evaluation(recipe), run),
        pairs=weighed,
        pair_counts=_without_rows(store.counts(run.folder / "pairs")),
        curves=curves,
        stages=[_spent(list(group), run) for _, group in itertools.groupby(stages, key=shown_name)],
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
            (n for n, scorer in recipe.evaluate.metrics.items() if scorer == recipe.drift.encoder), None
        ),
        published=Published(
            recipe.sft.model, {name: SCORERS[scorer] for name, scorer in metrics.items() if scorer in SCORERS}
        ),
        sweep=swept(run) if _has_sweep(run) else None,
        shown_methods=titles.images,
        drawn=_drawn(stages, run),
        tokens=_tokens(curves, run),
        truncated_rewrites=_truncated_rewrites(run),
        blackened={method: len(places) for method, places in blackened(evaluation(recipe), run).items()},
    )
    if found.encoder_metric is None or gives_cosines(found):
        return found
    note = f"Proposition 2 was not measured: the scores of {recipe.drift.encoder} are no cosines."
    return replace(found, notes=[*found.notes, note])


def _versions(stages: Sequence[AnyStage], run: Run) -> dict[str, str]:
    """The libraries that made the stages; where they were of several versions, which stages each made."""
    made: dict[str, dict[str, list[str]]] = {}
    for stage in stages:
        for library, version in store.library_versions(run.folder / stage.name).items():
            made.setdefault(library, {}).setdefault(version, []).append(stage.name)
    return {
        library: next(iter(found)) if len(found) == 1 else "; ".join(f"{v} ({', '.join(s)})" for v, s in found.items())
        for library, found in made.items()
    }


def _losses(run: Run) -> list[PairLoss]:
    subject = run.recipe.report.subject
    weighted = isinstance(run.recipe.train.methods.get(subject), SemDPOSettings)
    return run.rows(f"losses/{subject}", PairLoss) if weighted else []


def _has_sweep(run: Run) -> bool:
    """Whether a finished sweep of this recipe, made from these pairs, lies in the folder."""
    if run.recipe.sweep is None:
        return False
    return all(_is_of_now(stage, run) for stage in sweep_flow(run.recipe) if stage.name.startswith("sweep/"))


def _is_of_now(stage: AnyStage, run: Run) -> bool:
    folder, needed = run.folder / stage.name, [run.folder / name for name in stage.inputs]
    if not all(store.is_complete(each) for each in (folder, *needed)):
        return False
    inputs = {name: store.manifest_hash(each) for name, each in zip(stage.inputs, needed, strict=True)}
    return store.mismatch(folder, store.Plan(stage.config, inputs)) is None


def swept(run: Run) -> Sweep:
    """The numbers of a finished sweep."""
    config = settings(run.recipe)
    alphas = methods(config)
    distances = [each.distance or 0.0 for each in run.rows("drift", Pair)]
    sizes = {m: effective_sample_size(semantic_weight(distances, alpha)) for m, alpha in alphas.items()}
    return compute_sweep(
        evaluation_rows(sweep_evaluation(run.recipe), run),
        alphas,
        config.fidelity,
        config.preference,
        config.floor,
        {method: size / len(distances) for method, size in sizes.items()},
    )


def _spent(stages: Sequence[AnyStage], run: Run) -> tuple[str, float, int]:
    folders = [run.folder / stage.name for stage in stages]
    seconds = sum(timing.seconds(folder) for folder in folders)
    return shown_name(stages[0]), seconds, sum(store.counts(folder)["rows"] for folder in folders)


def _alpha(objective: ObjectiveSettings | None, pairs: Sequence[Pair]) -> float | None:
    """Of the weights that the report shows; None where the subject has none."""
    if not isinstance(objective, SemDPOSettings):
        return None
    if objective.alpha == "auto":
        return automatic_alpha([each.distance or 0.0 for each in pairs], objective.kept_share)
    return float(objective.alpha)


def _drawn(stages: Sequence[AnyStage], run: Run) -> int:
    """Images: of every candidate, and of every method's held-out prompts."""
    drawing = ["candidates", *(stage.name for stage in stages if stage.name.endswith("/images"))]
    return sum(store.counts(run.folder / name)["rows"] for name in drawing)


def _tokens(curves: Sequence[Curve], run: Run) -> list[tuple[str, int]]:
    learnt: dict[str, int] = {}
    for curve in curves:
        if curve.name == "tokens":
            learnt[curve.method] = learnt.get(curve.method, 0) + int(curve.value)
    written = store.counts(run.folder / "candidates").get("tokens", 0)
    return [
        ("candidates, written", written),
        *((f"{method}, learnt from", tokens) for method, tokens in learnt.items()),
    ]


def _truncated_rewrites(run: Run) -> dict[str, int]:
    """Rewrites of each method that met the token budget before they had ended."""
    methods = evaluation(run.recipe).models
    return {m: store.counts(run.folder / f"evaluate/{m}/images").get("rewrites_truncated", 0) for m in methods}


def _without_rows(counts: Mapping[str, int]) -> dict[str, int]:
    return {name: count for name, count in counts.items() if name != "rows"}


def _seen(recipe: Recipe) -> dict[str, str]:
    """Which scorers are no outsiders, and why."""
    reasons = {
        recipe.label.fidelity or "": "it helped to choose the pairs of the additive reward",
        recipe.drift.encoder: "its text tower measured the drift that set the weights",
        recipe.label.scorer: "it labelled the training pairs",
    }
    return {name: reasons[scorer] for name, scorer in recipe.evaluate.metrics.items() if scorer in reasons}


_LEFT_OUT = (
    "At {} places of the evaluation (a prompt and an image seed) the safety checker blackened the image of a method; "
    "these are left out of every method, so that all are compared on the same."
)


def _notes(run: Run) -> list[str]:
    drawn, labelled = (store.counts(run.folder / name) for name in ("candidates", "label"))
    weighed = store.counts(run.folder / "drift")
    black = labelled.get("blackened", 0)
    places = {place for own in blackened(evaluation(run.recipe), run).values() for place in own}
    return [
        f"Candidates: {drawn['kept']} kept, {drawn['duplicates']} duplicates and {drawn['empty']} empty ones dropped, "
        f"{drawn['truncated']} truncated at the token limit; {drawn['prompts_without']} prompts were left without any.",
        f"Longer than the renderer or the labelling scorer reads: {labelled['truncated']} candidates; "
        f"longer than the encoder reads: {weighed['truncated']} pairs.",
        *([f"Blackened by the safety checker: {black} candidates, which stand in no pair."] if black else []),
        *([_LEFT_OUT.format(len(places))] if places else []),
    ]
