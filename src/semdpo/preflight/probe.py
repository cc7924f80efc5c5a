"""Does a little of every stage's work, with a recipe's own models, settings and prompts, and measures what it costs."""

from __future__ import annotations

import io
import math
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol, runtime_checkable

from semdpo import extras
from semdpo.analysis.drift import measure, unknown_beforehand, with_drift
from semdpo.data.atoms import Atom, AtomAnswer
from semdpo.data.records import Candidate, Pair, Prompt, RenderedImage, Score
from semdpo.engine.providers import Models, own_models
from semdpo.errors import ModelError, SemdpoError, out_of_memory
from semdpo.models import scoring
from semdpo.preflight.measuring import (
    UPDATES,
    Cost,
    bytes_of,
    forget_gpu_peak,
    gpu_peak,
    longest,
    time_batches,
    time_training,
)
from semdpo.preflight.resources import is_absent, refuse_too_large
from semdpo.preflight.rewritings import Rewriting, rewritings
from semdpo.preflight.sample import Sample
from semdpo.progress import Progress, silent
from semdpo.recipe.atoms import ATOMS, AtomWriter
from semdpo.recipe.endpoints import is_url
from semdpo.recipe.objectives import ObjectiveSettings
from semdpo.recipe.schema import Recipe
from semdpo.stages import atom_answers, atoms, candidates, evaluate, label, pairs

PROBE_SECONDS = 60.0
ATOMS_OF_A_PROMPT = 6
# Shares of the time, by kind of work; where a recipe has several of one kind, they divide its share.
SHARES = {
    "sft": 0.1,
    "train": 0.13,
    "rewrite": 0.18,
    "label": 0.13,
    "images": 0.13,
    "score": 0.1,
    "atoms": 0.05,
    "write": 0.08,
    "drift": 0.03,
}
AGAIN = "download it, then run `semdpo doctor` again"
MOST_EXAMPLES = 5000  # rewrites to fine-tune on; their tokens are all counted before the first update


@dataclass(frozen=True, slots=True)
class Unmeasured:
    """Why a cost is not known, in one sentence that says what to do; ``failed`` where a run would fail there too."""

    reason: str
    failed: bool = False


Found = dict[str, Cost | Unmeasured]  # work → what it costs


@dataclass(frozen=True, slots=True)
class _Task:
    """A piece of work to measure: the models that it needs, by name, and what measures it in some seconds."""

    models: Sequence[str]
    run: Callable[[float], Cost]


@dataclass(frozen=True)
class _Probe:
    """What the tasks share; ``images`` are those of the task that renders, for the scorers."""

    recipe: Recipe
    models: Models
    sample: Sample
    prompts: int
    held_out: int
    folder: Path
    images: list[RenderedImage] = field(default_factory=list)
    reference: dict[str, Cost] = field(default_factory=dict)


def probe(
    recipe: Recipe,
    sample: Sample,
    prompts: int,
    held_out: int,
    seconds: float = PROBE_SECONDS,
    models: Models | None = None,
    progress: Progress = silent,
) -> Found:
    """Measures every kind of work of a run, in a temporary folder that is removed.

    Args:
        recipe: the validated recipe.
        sample: the recipe's own prompts and rewrites, on which the work is done.
        prompts: the number of training prompts of the run, for the size of its batches.
        held_out: the number of held-out prompts of the run.
        seconds: about how long to measure. Loading the models comes on top, and so does what a few small batches take
            on a machine that is too slow for more.
        models: functions that load the run's models; None takes semdpo's own.
        progress: called before each kind of work.

    Returns:
        Work → its cost, or one sentence that says why it was not measured and what to do. The keys are ``prompts``,
        ``sft``, ``train/OBJECTIVE``, ``reference``, those of ``rewritings``, ``label``, ``pairs``, ``drift``,
        ``images``, ``score/METRIC``, if a model answers atoms, ``atoms``, and if one with files writes them,
        ``write/atoms``.
    """
    with TemporaryDirectory(prefix="semdpo-probe-") as folder:
        this = _Probe(
            recipe, models or own_models(recipe.scoring.allow_remote_code), sample, prompts, held_out, Path(folder)
        )
        tasks, found = _tasks(this), Found()
        for done, (name, task) in enumerate(tasks.items()):
            progress(done, len(tasks), name)
            kind = name.partition("/")[0]
            of_kind = sum(other.partition("/")[0] == kind for other in tasks)
            found[name] = _tried(task, seconds * SHARES.get(kind, 0.02) / of_kind)
        return found | this.reference


def _tasks(this: _Probe) -> dict[str, _Task]:
    recipe, start = this.recipe, this.recipe.sft.model
    objectives = {objective.name: objective for objective in recipe.train.methods.values()}
    scorers = label_scorers(recipe)
    answerer = None if recipe.atoms is None else recipe.atoms.model
    writer = None if recipe.atoms is None or recipe.atoms.lm is None or recipe.atoms.lm.is_remote else recipe.atoms.lm
    render = recipe.evaluate.renderer.model
    return {
        "prompts": _Task([recipe.drift.encoder], partial(_encode, this)),
        "drift": _Task([recipe.drift.encoder], partial(_drift, this)),
        "pairs": _Task([], partial(_pairs, this)),
        "sft": _Task([start], partial(_fine_tune, this)),
        **{f"train/{name}": _Task([start], partial(_train, this, each)) for name, each in objectives.items()},
        **{job.what: _Task([job.model], partial(_rewrite, this, job)) for job in rewritings(recipe)},
        "label": _Task([recipe.label.renderer.model, *scorers], partial(_label, this)),
        "images": _Task([render, recipe.drift.encoder], partial(_render, this)),
        **{
            f"score/{metric}": _Task([render, scorer], partial(_score, this, metric, scorer))
            for metric, scorer in recipe.evaluate.metrics.items()
        },
        **({} if answerer is None else {"atoms": _Task([render, answerer], partial(_ask, this, answerer))}),
        **({} if writer is None else {"write/atoms": _Task([writer.model], partial(_write_atoms, this, writer))}),
    }


def label_scorers(recipe: Recipe) -> list[str]:
    """The models that score the candidates' images, without the one that answers atoms, whose cost is another."""
    return [name for name in (recipe.label.scorer, recipe.label.fidelity) if name not in (None, ATOMS)]


def _tried(task: _Task, budget: float) -> Cost | Unmeasured:
    try:
        for name in task.models:
            if is_url(name):
                return Unmeasured(f"{name} is a server; it is not asked, for its answers may cost money")
            if is_absent(name):
                return Unmeasured(f"{name} is not downloaded; {AGAIN}")
        forget_gpu_peak()
        with redirect_stderr(io.StringIO()):  # a training reports what it computes from pairs, which are made up here
            return replace(task.run(budget), memory=gpu_peak())
    except SemdpoError as error:
        return Unmeasured(str(error), failed=True)
    except Exception as error:
        if not out_of_memory(error):
            raise
        return Unmeasured("out of memory; lower its batch_size (of a training, micro_batch_size)", failed=True)


# ------------------------------------------------------------------------------------------------------- trainings


def _fine_tune(this: _Probe, budget: float) -> Cost:
    from semdpo.training.fine_tune import fine_tune  # here, since it imports torch

    config = this.recipe.sft
    refuse_too_large(this.recipe, Path())
    examples = this.sample.rewrites[:MOST_EXAMPLES]

    def begin(size: int, progress: Progress) -> None:
        settings = config.model_copy(update={"steps": UPDATES + 2} | _batches(config, size))
        rows = list(islice(cycle(examples), max(len(examples), size)))
        fine_tune(rows, settings, this.folder / "sft", progress)

    return time_training(begin, config.batch_size, budget).updates


def _train(this: _Probe, objective: ObjectiveSettings, budget: float) -> Cost:
    from semdpo.training.preference import train  # here, since these import torch
    from semdpo.training.reference import BATCH

    config = this.recipe.train
    refuse_too_large(this.recipe, Path())

    def begin(size: int, progress: Progress) -> None:
        # Enough pairs to time batches of the reference too, unless two pairs at a time are all there is time for.
        count = max((UPDATES + 2) * size, 3 * BATCH if size == config.batch_size else 0)
        only_begun = {"epochs": 1, "report_to": [], "checkpoint_steps": 10**6}
        settings = config.model_copy(update=only_begun | _batches(config, size))
        start, output = this.recipe.sft.model, this.folder / objective.name
        train(this.sample.some_pairs(0, count), start, objective, settings, output, this.folder / "cache", progress)

    trained = time_training(begin, config.batch_size, budget)
    if trained.reference is not None:
        this.reference.setdefault("reference", trained.reference)
    return trained.updates


def _batches(config: Any, size: int) -> dict[str, int | None]:
    micro = config.micro_batch_size
    return {"batch_size": size, "micro_batch_size": micro if size == config.batch_size else None}


# ------------------------------------------------------------------------------------------------------- rewriting


@runtime_checkable
class _Budgeted(Protocol):
    """A rewriter whose token budget can be lowered."""

    def with_budget(self, max_new_tokens: int) -> Any:
        """The same rewriter with another budget."""
        ...

    def tokens(self, texts: Sequence[str]) -> list[int]:
        """The number of tokens of each text."""
        ...


def _rewrite(this: _Probe, job: Rewriting, budget: float) -> Cost:
    """Times a rewriter that writes as many tokens as the trained one will, for here the model is not trained yet.

    A batch goes on until its longest rewrite ends, which is about as long as the longest of as many examples.
    """
    begun = time.monotonic()
    rewriter: Any = this.models.rewriter(job.model, job.template, job.decoding)
    loading = time.monotonic() - begun
    first = job.what == "rewrite/candidates"
    shard = this.recipe.candidates.shard_size if first else this.recipe.evaluate.shard_size
    full = min(job.decoding.batch_size, shard, this.prompts if first else this.held_out)
    tokens = most = job.decoding.max_new_tokens
    if job.trained and isinstance(rewriter, _Budgeted):
        lengths = rewriter.tokens([rewrite for _, rewrite in this.sample.rewrites[:MOST_EXAMPLES]])
        tokens = min(1 + math.ceil(longest(lengths, full * job.n)), most)
        rewriter = rewriter.with_budget(tokens)
    take, written = this.sample.prompts_in_turn(), [tokens]

    def work(size: int) -> list[Candidate]:
        config = this.recipe.candidates.model_copy(update={"n": job.n, "seed": len(written)})
        made, _ = candidates.sample(take(size), rewriter, config)
        ended = isinstance(rewriter, _Budgeted) and not any(row.truncated for row in made)
        written.append(1 + max(rewriter.tokens([row.rewrite for row in made]), default=0) if ended else tokens)
        return made

    cost = _cost("prompts", Candidate, full, budget, loading, work)
    # Batches whose rewrites all ended early took fewer steps than a run's will.
    steps = [min(count, tokens) for count in written[-len(cost.seconds) :]]
    seconds = [spent * tokens / count for spent, count in zip(cost.seconds, steps, strict=True)]
    return replace(cost, seconds=seconds, worst=cost.worst * most / tokens)


# -------------------------------------------------------------------------------------------------- images and pairs


def _cost(
    unit: str, kind: type[Any], full: int, budget: float, loading: float, work: Callable[[int], Sequence[Any]]
) -> Cost:
    """Times the work, and encodes its rows as their stage's file."""
    rows: list[Any] = []
    timed = time_batches(lambda size: rows.extend(work(size)), full, budget)
    sizes = bytes_of(kind, rows)
    measured = f"{len(timed.seconds)} batches of {timed.size} {unit}"
    measured += "" if timed.size == full else f" (a run's have {full})"
    return Cost(measured, timed.seconds, loading + timed.warm_up, timed.most, *sizes)


def _encode(this: _Probe, budget: float) -> Cost:
    begun, take = time.monotonic(), this.sample.prompts_in_turn()
    encoder = this.models.encoder(this.recipe.drift.encoder)  # the stage prompts loads it, and it stays in memory

    def work(size: int) -> list[Prompt]:
        rows = take(size)
        encoder.encode([row.prompt for row in rows])
        return rows

    return _cost("prompts", Prompt, this.recipe.drift.batch_size, budget, time.monotonic() - begun, work)


def _label(this: _Probe, budget: float) -> Cost:
    extras.require(render="rendering and scoring images")
    config, begun, done = this.recipe.label, time.monotonic(), [0]
    renderer = this.models.renderer(config.renderer)
    names = label_scorers(this.recipe)
    scorers = {name: this.models.scorer(name, this.recipe.scoring) for name in names}

    def work(size: int) -> list[Score]:
        some = this.sample.some_candidates(done[0], size, this.recipe.candidates.most)
        done[0] += size
        return label.label(some, renderer, scorers, config)

    cost = _cost("images", Score, config.batch_size, budget, time.monotonic() - begun, work)
    return replace(cost, row_bytes=cost.row_bytes * len(names))


def _pairs(this: _Probe, budget: float) -> Cost:
    n, done, config = this.recipe.candidates.most, [0], this.recipe.pairs.model_copy(update={"margin": 0.0})

    def work(size: int) -> list[Pair]:
        some = this.sample.some_candidates(done[0], size * n, n)
        done[0] += size * n
        scores = [Score(row.candidate_id, "", float(row.index), 0, False) for row in some]
        return pairs.choose(some, scores, config)[0]

    return _cost("prompts", Pair, this.recipe.label.shard_size, budget, 0.0, work)


def _drift(this: _Probe, budget: float) -> Cost:
    config, begun, done = this.recipe.drift, time.monotonic(), [0]
    encoder, content = this.models.encoder(config.encoder), this.models.fingerprint(config.encoder)

    def work(size: int) -> list[Pair]:
        some = this.sample.some_pairs(done[0], size)
        done[0] += size
        unknown_beforehand(some, encoder)  # the stage reads all words before it embeds the first text
        return with_drift(some, measure(some, encoder, config.batch_size), config.encoder, content)

    return _cost("pairs", Pair, this.recipe.label.shard_size, budget, time.monotonic() - begun, work)


def _render(this: _Probe, budget: float) -> Cost:
    extras.require(render="rendering and scoring images")
    config, begun, take = this.recipe.evaluate.renderer, time.monotonic(), this.sample.prompts_in_turn(of_held_out=True)
    renderer, encoder = this.models.renderer(config), this.models.encoder(this.recipe.drift.encoder)

    def work(size: int) -> list[RenderedImage]:
        some, seed = take(size), len(this.images)
        rewrites = [this.sample.rewrites[(seed + k) % len(this.sample.rewrites)][1] for k in range(size)]
        # Tokens are counted by words: loading a rewriter for that would count as the renderer's cost.
        images = evaluate.render(
            "probe", some, rewrites, renderer, encoder, [seed], config.batch_size, _count_words
        )  # fmt: skip
        this.images.extend(images)
        return images

    return _cost("images", RenderedImage, config.batch_size, budget, time.monotonic() - begun, work)


def _count_words(texts: Sequence[str]) -> list[int]:
    return [len(text.split()) for text in texts]


def _score(this: _Probe, metric: str, name: str, budget: float) -> Cost:
    if not this.images:
        raise ModelError("no image was rendered that it could score; see the line of evaluate/…/images")
    begun, images = time.monotonic(), cycle(this.images)
    scorer = this.models.scorer(name, this.recipe.scoring)

    def work(size: int) -> list[Score]:
        return scoring.score_images(list(islice(images, size)), scorer, metric)

    return _cost("images", Score, this.recipe.scoring.batch_size, budget, time.monotonic() - begun, work)


def _write_atoms(this: _Probe, writer: AtomWriter, budget: float) -> Cost:
    """Times the language model that writes atoms; a prompt counts as one row, which stands for all of its atoms."""
    begun, take, all_prompts = time.monotonic(), this.sample.prompts_in_turn(), this.prompts + this.held_out
    model, full = this.models.other_rewriter(writer, writer), min(writer.batch_size, atoms.ROWS, all_prompts)
    loading = time.monotonic() - begun
    cost = _cost("prompts", Atom, full, budget, loading, lambda size: atoms.written(model, writer.seed, take(size))[0])
    return replace(cost, row_bytes=cost.row_bytes * ATOMS_OF_A_PROMPT)


def _ask(this: _Probe, name: str, budget: float) -> Cost:
    """A prompt has some ``ATOMS_OF_A_PROMPT`` atoms; here it is one question as often."""
    if not this.images:
        raise ModelError("no image was rendered that it could be asked about; see the line of evaluate/…/images")
    begun, images = time.monotonic(), cycle(this.images)
    answerer, tiny = this.models.answerer(name, this.recipe.scoring), name.startswith("tiny:")

    def work(size: int) -> list[AtomAnswer]:
        some = list(islice(images, size))
        questions = {i.prompt_id: "Is there a cat?" if tiny else f"Does the image show {i.prompt}?" for i in some}
        asked = {key: [Atom(key, "object", question)] * ATOMS_OF_A_PROMPT for key, question in questions.items()}
        return atom_answers.answered(some, asked, lambda: answerer, "rules")

    cost = _cost("images", AtomAnswer, this.recipe.scoring.batch_size, budget, time.monotonic() - begun, work)
    return replace(cost, row_bytes=cost.row_bytes * ATOMS_OF_A_PROMPT)
