"""The whole method as a list that one can read: each stage, what it reads and the function that does it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from itertools import accumulate, groupby, pairwise
from pathlib import Path
from typing import Any

from semdpo.data import pairs as files
from semdpo.data.records import Candidate, Curve, Pair, PairLoss, Prompt, Score
from semdpo.engine import parquet, store
from semdpo.engine.shards import Shards
from semdpo.engine.stage import AnyStage, Made, ModelStage, Run, Shard, TableStage, once, parts_of
from semdpo.errors import DataError
from semdpo.models.registry import lasting
from semdpo.progress import Progress
from semdpo.protocols import KnowsWords, TextEncoder
from semdpo.recipe.base import Stage
from semdpo.recipe.objectives import ObjectiveConfig, SemDPOObjective
from semdpo.recipe.schema import Recipe
from semdpo.stages import candidates, label, pairs, prompts
from semdpo.stages import drift as weigh
from semdpo.stages.evaluation import Evaluation


def is_file(key: str) -> bool:
    """Whether what a recipe's key names from outside is a file; otherwise it is a model."""
    return key.startswith(("prompts.", "sweep.prompts")) or key == "sft.file"


def flow(recipe: Recipe) -> list[AnyStage]:
    """The stages of a recipe, in the order in which data flows; the report comes after them."""
    trainings = [training(f"train/{m}", m, own, recipe) for m, own in recipe.train.methods.items()]
    losses = [_losing(m, own, recipe) for m, own in recipe.train.methods.items() if isinstance(own, SemDPOObjective)]
    return [*data_flow(recipe), *trainings, *losses, *evaluation(recipe).stages(recipe)]


def data_flow(recipe: Recipe) -> list[AnyStage]:
    """From prompts to pairs with distances."""
    r = recipe
    return [
        TableStage("prompts", "reading", _dump(r.prompts), (), _prompt_files(r), Prompt, _prompts),
        ModelStage("sft", "fine-tuning", _dump(r.sft), (), {"sft.model": r.sft.model, "sft.file": r.sft.file}, _sft),
        TableStage("candidates", "rewriting", _dump(r.candidates), ("prompts", "sft"), {}, Candidate, _candidates),
        TableStage("label", "drawing and scoring", _labelling(r), ("candidates",), _judges(r), Score, _label),
        TableStage("pairs", "choosing", _dump(r.pairs), ("candidates", "label"), {}, Pair, _pairs),
        TableStage("weigh", "measuring drift", _dump(r.weigh), ("pairs",), _encoder(r), Pair, _weigh),
    ]


def training(name: str, method: str, objective: ObjectiveConfig, recipe: Recipe) -> ModelStage:
    """Preference training with one objective.

    Args:
        name: of the stage.
        method: the curves' name.
        objective: what is minimised.
        recipe: settings that all methods share.
    """
    config = recipe.train.model_dump(mode="json", exclude={"methods"}) | {"objective": _dump(objective)}
    return ModelStage(name, "training", config, ("sft", "weigh"), {}, partial(_train, method, objective))


def _losing(method: str, objective: SemDPOObjective, recipe: Recipe) -> TableStage:
    beta = objective.beta or recipe.train.beta
    shared = recipe.train.model_dump(mode="json", include={"template", "precision", "max_length"})
    inputs = ("sft", "weigh", f"train/{method}")
    return TableStage(
        f"losses/{method}", "measuring", shared | {"beta": beta}, inputs, {}, PairLoss, partial(_losses, method, beta)
    )


def evaluation(recipe: Recipe) -> Evaluation:
    """Every method on the held-out prompts."""
    own = {method: f"train/{method}" for method in recipe.train.methods}
    models = {"human": "sft", "sft": "sft", **own, **dict.fromkeys(recipe.evaluate.rewriters, "sft")}
    return Evaluation("evaluate", "prompts", "test", models, recipe.evaluate)


# ------------------------------------------------------------------------------------------------- the stages' work


def _dump(config: Stage) -> dict[str, Any]:
    return config.model_dump(mode="json")


def _labelling(recipe: Recipe) -> dict[str, Any]:
    return _dump(recipe.label) | {"scoring": recipe.scoring.of_results()}


def _prompt_files(recipe: Recipe) -> dict[str, str]:
    named = {"prompts.file": recipe.prompts.file, "prompts.test_file": recipe.prompts.test_file}
    sets = {f"prompts.test_sets.{name}": each.file for name, each in recipe.prompts.test_sets.items()}
    return {key: name for key, name in named.items() if name is not None} | sets


def _judges(recipe: Recipe) -> dict[str, str]:
    config = recipe.label
    fidelity = {} if config.fidelity is None else {"label.fidelity": config.fidelity}
    return {"label.renderer.model": config.renderer.model, "label.scorer": config.scorer} | fidelity


def _encoder(recipe: Recipe) -> dict[str, str]:
    return {"weigh.encoder": recipe.weigh.encoder}


def _split(run: Run, name: str) -> list[Prompt]:
    return [prompt for prompt in run.rows("prompts", Prompt) if prompt.split == name]


def _prompts(run: Run) -> list[Shard]:
    def make(_: Progress) -> Made:
        rows, left_out = prompts.collect(run.recipe.prompts)
        # Asked here, so that an encoder that does not know the prompts is told before anything is drawn.
        config = run.recipe.weigh
        share = weigh.unknown_share([row.prompt for row in rows], run.parts.encoder(config.encoder), config.batch_size)
        weigh.refuse_unknown_words(share, config.encoder)
        return rows, {split: sum(row.split == split for row in rows) for split in ("train", "test")} | left_out

    return [Shard(1, make)]


def _sft(run: Run, output: Path, progress: Progress) -> list[Curve]:
    config = run.recipe.sft
    curves = run.parts.fine_tune(files.read_rewrites(config.file), config, output, progress)
    from semdpo.models.rewriter_settings import name_encoder  # here, since it imports torch

    name_encoder(output, lasting(run.recipe.weigh.encoder))
    return curves


def _candidates(run: Run) -> list[Shard]:
    config = run.recipe.candidates
    rewriter = once(lambda: run.parts.rewriter(str(run.folder / "sft"), None, config))

    def make(part: Sequence[Prompt], _: Progress) -> Made:
        rows, counts = candidates.sample(part, rewriter(), config)
        return rows, asdict(counts) | {"tokens": sum(rewriter().tokens([row.rewrite for row in rows]))}

    return [Shard(len(p), partial(make, p)) for p in parts_of(_split(run, "train"), config.shard_size)]


def _label(run: Run) -> list[Shard]:
    config = run.recipe.label
    judges = [name for name in (config.scorer, config.fidelity) if name is not None]
    models = once(
        lambda: (
            run.parts.renderer(config.renderer),
            {name: run.parts.scorer(name, run.recipe.scoring) for name in judges},
        )
    )
    found = run.shards("candidates", Candidate)

    def make(start: int, stop: int, progress: Progress) -> Made:
        rows = label.label(found.between(start, stop), *models(), config, progress)
        own = [row for row in rows if row.scorer == config.scorer]
        unscored = sum(row.error is not None for row in own)
        return rows, {"truncated": sum(row.truncated for row in own), "blackened": unscored}

    return [Shard(stop - start, partial(make, start, stop)) for start, stop in _by_prompts(found, config.shard_size)]


def _by_prompts(found: Shards[Candidate], size: int) -> list[tuple[int, int]]:
    """Where the candidates of each group of ``size`` prompts begin and end; those of a prompt stand together."""
    lengths = [len(list(rows)) for _, rows in groupby(found.column("prompt_id"))]
    return list(pairwise([0, *accumulate(sum(group) for group in parts_of(lengths, size))]))


def _pairs(run: Run) -> list[Shard]:
    config = run.recipe.label
    found, scores = run.shards("candidates", Candidate), run.shards("label", Score)
    places = _by_prompts(found, config.shard_size)  # as label's shards are

    def make(index: int, _: Progress) -> Made:
        judged: dict[str, list[Score]] = {}
        for score in scores.read(index):
            judged.setdefault(score.scorer, []).append(score)
        own, fidelities = judged.get(config.scorer, []), judged.get(config.fidelity or "", [])
        rows, counts = pairs.choose(found.between(*places[index]), own, run.recipe.pairs, fidelities)
        if index == len(places) - 1 and not rows:
            _refuse_black(run, index, counts.blackened)
        return rows, asdict(counts)

    return [Shard(stop - start, partial(make, index)) for index, (start, stop) in enumerate(places)]


def _refuse_black(run: Run, last: int, blackened: int) -> None:
    """Refuses a run none of whose shards has a pair, where the safety checker is why."""
    before = [parquet.counts(store.shard_path(run.folder / "pairs", index)) for index in range(last)]
    blackened += sum(counts["blackened"] for counts in before)
    if blackened and not any(counts["rows"] for counts in before):
        raise DataError(
            f"no pair is left: of {blackened} prompts the safety checker blackened all images but one or "
            "none; set label.renderer.safety_checker=false, or give other prompts"
        )


def _weigh(run: Run) -> list[Shard]:
    config, chosen = run.recipe.weigh, run.shards("pairs", Pair)
    weigh.refuse_none(sum(chosen.sizes))
    known = once(lambda: run.parts.fingerprint(config.encoder))

    def load() -> TextEncoder:
        encoder = run.parts.encoder(config.encoder)
        rows = (row for index in range(len(chosen.sizes)) for row in chosen.read(index))
        weigh.refuse_unknown_words(weigh.unknown_beforehand(rows, encoder), config.encoder)
        return encoder

    encoder = once(load)

    def make(index: int, progress: Progress) -> Made:
        part = chosen.read(index)
        if not part:
            return [], {"truncated": 0}
        drift = weigh.measure(part, encoder(), config.batch_size, progress)
        if not isinstance(encoder(), KnowsWords):  # which was asked about all pairs at once
            weigh.refuse_unknown_words(drift.unknown, config.encoder)
        return weigh.with_drift(part, drift, lasting(config.encoder), known()), {
            "truncated": int(drift.truncated.sum())
        }

    return [Shard(size, partial(make, index)) for index, size in enumerate(chosen.sizes)]


def _train(method: str, objective: ObjectiveConfig, run: Run, output: Path, progress: Progress) -> list[Curve]:
    config = run.recipe.train
    model, cache = str(run.folder / "sft"), run.folder / "reference"  # which all methods share
    curves = run.parts.train(run.rows("weigh", Pair), model, objective, config, output, cache, progress)
    return [Curve(method, curve.step, curve.name, curve.value) for curve in curves]


def _losses(method: str, beta: float, run: Run) -> list[Shard]:
    def make(progress: Progress) -> Made:
        policy, reference = str(run.folder / "train" / method), str(run.folder / "sft")
        weighed, cache = run.rows("weigh", Pair), run.folder / "reference"
        return run.parts.losses(weighed, policy, reference, beta, run.recipe.train, cache, progress), {}

    return [Shard(1, make)]
