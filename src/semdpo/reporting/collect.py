"""Collects the data of a report from a run's folder."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import yaml

from semdpo.analysis.semantics import automatic_alpha, effective_sample_size, semantic_weight
from semdpo.data.atoms import AtomAnswer
from semdpo.data.pairs import read_rewrites
from semdpo.data.records import Curve, Pair, PairLoss, Prompt
from semdpo.engine import model_folders, parquet, store, timing
from semdpo.engine.stage import AnyStage, ModelStage, Run, shown_name
from semdpo.errors import DataError
from semdpo.models import unread
from semdpo.recipe.objectives import ObjectiveSettings, SemDPOSettings
from semdpo.recipe.rounds import work_of
from semdpo.recipe.schema import Recipe
from semdpo.reporting import facts, rounds
from semdpo.reporting.alpha_sweep import Sweep, compute_sweep
from semdpo.reporting.atoms import FEWEST, AtomData
from semdpo.reporting.benchmarked import benchmark_data
from semdpo.reporting.compute import compared
from semdpo.reporting.data import DRIFT, Published, own_weights
from semdpo.reporting.evaluated import blackened, evaluation_rows, unrendered, unscored
from semdpo.reporting.propositions import gives_cosines
from semdpo.reporting.published import SCORERS
from semdpo.reporting.report import ReportData
from semdpo.stages import atom_answers
from semdpo.stages.benchmarks import leaks
from semdpo.stages.evaluate import evaluation
from semdpo.stages.sweep import methods, settings, sweep_evaluation, sweep_flow

if TYPE_CHECKING:
    from semdpo.reporting.simulated_study import SimulatedStudy


WEIGHED_BY = {
    "encoder": DRIFT,
    "atoms_lost": "share of the prompt's facts that the chosen rewrite no longer states",
    "scorer_agreement": "disagreement of the two scorers",
    "margin": "lack of a margin between the two scores",
}


def report_data(stages: Sequence[AnyStage], run: Run) -> ReportData:
    """All data of a finished run's report.

    Args:
        stages: the run's stages, in order.
        run: the finished run.
    """
    recipe, titles = run.recipe, run.recipe.report
    models = [stage for stage in stages if isinstance(stage, ModelStage)]
    curves = [row for s in models for row in parquet.read_file(run.folder / s.name / model_folders.CURVES, Curve)]
    weighed = run.rows("drift", Pair)
    versions = _versions(stages, run) | {
        f"SHA-256 of {stage.name}": store.manifest_hash(run.folder / stage.name)
        for stage in stages
        if "evaluate/" not in stage.name and not stage.name.endswith("/leaks")
    }
    metrics, rows = recipe.evaluate.metrics, evaluation_rows(evaluation(recipe), run)
    data = ReportData(
        title=titles.title,
        evaluation=rows,
        pairs=weighed,
        pair_counts=_without_rows(store.counts(run.folder / "pairs")),
        curves=curves,
        stages=[_spent(list(group), run) for _, group in itertools.groupby(stages, key=shown_name)],
        recipe=yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True),
        versions=versions,
        alpha=_alpha(recipe.train.methods.get(titles.subject), weighed),
        notes=[*_notes(run), *(facts.notes(rows) if titles.facts else [])],
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
        rendered=_rendered(stages, run),
        tokens=_tokens(curves, run),
        truncated_rewrites=_truncated_rewrites(run),
        blackened={method: len(places) for method, places in blackened(evaluation(recipe), run).items()},
        unrendered={method: len(places) for method, places in unrendered(evaluation(recipe), run).items()},
        facts=titles.facts,
        variants=recipe.secondary,
        atoms=_atoms(run),
        weighed_by=WEIGHED_BY[recipe.drift.source],
        rounds=rounds.collected(run),
        benchmarks=[benchmark_data(name, run) for name in recipe.benchmarks],
    )
    if titles.study:
        data = replace(data, study=_study(run, data))
    if data.encoder_metric is None or gives_cosines(data):
        return data
    note = f"Proposition 2 was not measured, because the scores of {recipe.drift.encoder} are not cosines."
    return replace(data, notes=[*data.notes, note])


def _atoms(run: Run) -> AtomData | None:
    """The answers about every method's images; None where the recipe has no atoms."""
    config = run.recipe.atoms
    if config is None:
        return None
    answers = {m: run.rows(atom_answers.name_of(m), AtomAnswer) for m in evaluation(run.recipe).models}
    held_out = {prompt.prompt_id for prompt in run.rows("prompts", Prompt) if prompt.split == "test"}
    having = {answer.prompt_id for answer in answers["human"]}
    if len(having) < FEWEST:  # as everywhere in a report, one prompt gives no interval
        return None
    return AtomData(answers, config.maker, config.model, len(having), len(held_out - having))


def _study(run: Run, data: ReportData) -> SimulatedStudy | str:
    from semdpo.reporting.simulated_study import simulated_study  # only such a report needs the extra [study]

    methods = [name for name in compared(data) if name is not None]
    return simulated_study(run, methods, len({row.prompt_id for row in data.evaluation}))


def _versions(stages: Sequence[AnyStage], run: Run) -> dict[str, str]:
    """The versions of the libraries that ran the stages; where they differ, the stages of each version."""
    made: dict[str, dict[str, list[str]]] = {}
    for stage in stages:
        for library, version in store.library_versions(run.folder / stage.name).items():
            made.setdefault(library, {}).setdefault(version, []).append(stage.name)
    return {
        library: next(iter(versions))
        if len(versions) == 1
        else "; ".join(f"{version} ({', '.join(names)})" for version, names in versions.items())
        for library, versions in made.items()
    }


def _losses(run: Run) -> list[PairLoss]:
    subject = run.recipe.report.subject
    weighted = isinstance(run.recipe.train.methods.get(subject), SemDPOSettings)
    return run.rows(f"losses/{subject}", PairLoss) if weighted else []


def _has_sweep(run: Run) -> bool:
    """Whether the folder has a finished sweep of this recipe that used these pairs."""
    if run.recipe.sweep is None:
        return False
    return all(_is_up_to_date(stage, run) for stage in sweep_flow(run.recipe) if stage.name.startswith("sweep/"))


def _is_up_to_date(stage: AnyStage, run: Run) -> bool:
    folder, needed = run.folder / stage.name, [run.folder / name for name in stage.inputs]
    if not all(store.is_complete(path) for path in (folder, *needed)):
        return False
    inputs = {name: store.manifest_hash(path) for name, path in zip(stage.inputs, needed, strict=True)}
    return store.mismatch(folder, store.Plan(stage.config, inputs)) is None


def swept(run: Run) -> Sweep:
    """The numbers of a finished sweep."""
    config = settings(run.recipe)
    alphas = methods(config)
    pairs = run.rows("drift", Pair)
    distances, own = [pair.distance or 0.0 for pair in pairs], own_weights(pairs)
    sizes = {m: effective_sample_size(semantic_weight(distances, alpha) * own) for m, alpha in alphas.items()}
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
    """The strength α of the subject's weights; None where the subject has no weights."""
    if not isinstance(objective, SemDPOSettings):
        return None
    if objective.alpha == "auto":
        return automatic_alpha([pair.distance or 0.0 for pair in pairs], objective.kept_share)
    return float(objective.alpha)


def _rendered(stages: Sequence[AnyStage], run: Run) -> int:
    """The number of rendered images: of the candidates, and of every method on the held-out prompts."""
    rendering = [s.name for s in stages if s.name.endswith("/images") or work_of(s.name) == "candidates"]
    budgets = [stage.name for stage in stages if work_of(stage.name) == "render_budget"]
    saved = sum(store.counts(run.folder / name)["images_left_out"] for name in budgets)
    counts = [store.counts(run.folder / name) for name in rendering]
    return sum(each["rows"] - each.get("failed", 0) for each in counts) - saved


def _tokens(curves: Sequence[Curve], run: Run) -> list[tuple[str, int]]:
    """Tokens of the candidates, without dropped rewrites, and tokens that every method was trained on."""
    trained: dict[str, int] = {}
    for curve in curves:
        if curve.name == "tokens":
            trained[curve.method] = trained.get(curve.method, 0) + int(curve.value)
    sampling = ["candidates", *(f"{each.folder}/candidates" for each in run.recipe.later_rounds)]
    of_candidates = sum(store.counts(run.folder / name).get("tokens", 0) for name in sampling)
    return [
        ("in the candidates", of_candidates),
        *((f"processed in training {method}", tokens) for method, tokens in trained.items()),
    ]


def _truncated_rewrites(run: Run) -> dict[str, int]:
    """The number of every method's rewrites that were truncated at the token budget."""
    methods = evaluation(run.recipe).models
    return {m: store.counts(run.folder / f"evaluate/{m}/images").get("rewrites_truncated", 0) for m in methods}


def _without_rows(counts: Mapping[str, int]) -> dict[str, int]:
    return {name: count for name, count in counts.items() if name != "rows"}


def _seen(recipe: Recipe) -> dict[str, str]:
    """The scorers that took part in training, and how; the last way counts where a scorer did so in several."""
    fidelity, source, objectives = recipe.label.fidelity, recipe.drift.source, recipe.train.methods.values()
    weighs = any(objective.needs_distance for objective in objectives)
    by_drift = recipe.render_budget is not None or (weighs and source == "encoder")
    additive = any(objective.needs_fidelity for objective in objectives)
    uses = [
        (fidelity, recipe.pairs.filters, "it decided which pairs were left out"),
        (fidelity, weighs and source == "scorer_agreement", "its disagreement with the other scorer set the weights"),
        (fidelity, additive, "it helped to choose the pairs of the additive reward"),
        (recipe.drift.encoder, by_drift, "its text tower measured the drift that set the weights"),
        (recipe.label.scorer, True, "it labelled the training pairs"),
    ]
    reasons = {scorer: why for scorer, used, why in uses if used}
    return {name: reasons[scorer] for name, scorer in recipe.evaluate.metrics.items() if scorer in reasons}


_LEFT_OUT = (
    "For {} combinations of prompt and image seed the safety checker blackened the image of at least one method; "
    "they are left out for all methods, so that all are compared on the same images."
)


_UNRENDERED = (
    "For {} combinations of prompt and image seed the image of at least one method could not be rendered; they are "
    "left out for all methods."
)


_UNSCORED = (
    "For {} combinations of prompt and image seed a scorer had no score for the image of at least one method; they are "
    "left out for all methods."
)


def _saved(run: Run) -> list[str]:
    """What the render budget left out; nothing where there is none."""
    budget = run.recipe.render_budget
    if budget is None:
        return []
    counts = store.counts(run.folder / "render_budget")
    prompts, images = (counts["kept"] + counts["prompts_left_out"]), (counts["images"] + counts["images_left_out"])
    return [
        f"Render budget at alpha {budget.alpha:g}: the candidates of {counts['kept']} of {prompts} prompts were "
        f"rendered, {counts['images']} of {images} images ({counts['images_left_out'] / images:.0%} saved). Each "
        "pair's weight is divided by the probability with which its prompt was rendered."
    ]


def _unread(run: Run, weighed: Mapping[str, int]) -> list[str]:
    """What it means that many pairs have a text that is longer than the encoder reads; nothing for few pairs."""
    text = unread.sentence(weighed["truncated"], weighed.get("rows", 0), "pairs have a text", run.recipe.drift.encoder)
    return [f"{text}."] if text else []


def _notes(run: Run) -> list[str]:
    candidates, labelled = (store.counts(run.folder / name) for name in ("candidates", "label"))
    weighed = store.counts(run.folder / "drift")
    black, failed = labelled.get("blackened", 0), labelled.get("failed", 0)
    places, missing, failures = (
        {place for of_method in found(evaluation(run.recipe), run).values() for place in of_method}
        for found in (blackened, unrendered, unscored)
    )
    return [
        f"Candidates: {candidates['kept']} kept, {candidates['duplicates']} duplicates and {candidates['empty']} empty "
        f"ones dropped, {candidates['truncated']} truncated at the token budget; "
        f"{candidates['prompts_without']} prompts have none left.",
        *_saved(run),
        f"Longer than the renderer or the labelling scorer reads: {labelled['truncated']} candidates; "
        f"longer than the encoder reads: {weighed['truncated']} pairs.",
        *_unread(run, weighed),
        *([f"Blackened by the safety checker: {black} candidates, which are not used in any pair."] if black else []),
        *([f"Could not be rendered or scored: {failed} candidates, which are not used in any pair."] if failed else []),
        *rounds.notes(run),
        *_fine_tuned_on(run),
        *([_LEFT_OUT.format(len(places))] if places else []),
        *([_UNRENDERED.format(len(missing))] if missing else []),
        *([_UNSCORED.format(len(failures))] if failures else []),
        *_unanswered(run),
    ]


def _fine_tuned_on(run: Run) -> list[str]:
    """How many held-out prompts are prompts of fine-tuning too; nothing for none, or if that file is not here now."""
    try:
        known = [prompt for prompt, _ in read_rewrites(run.recipe.sft.file)]
    except DataError:
        return []
    held_out = [row for row in run.rows("prompts", Prompt) if row.split == "test"]
    if not (count := leaks(held_out, {"sft": known})[1]["sft"]):
        return []
    return [
        f"Also in sft.file, whatever their case and punctuation: {count} of {len(held_out)} held-out prompts. The "
        "rewriters may have learned their rewrites; leave these rows out of that file."
    ]


def _unanswered(run: Run) -> list[str]:
    """What it means that a server did not answer some questions about images; nothing where it answered all."""
    if run.recipe.atoms is None:
        return []
    places = [run.folder / atom_answers.name_of(method) for method in evaluation(run.recipe).models]
    count = sum(store.counts(place).get("unanswered", 0) for place in places)
    left_out = "their prompts and image seeds are left out of the facts that images show, of every method."
    return [f"Questions about images that the server did not answer: {count}; {left_out}"] if count else []
