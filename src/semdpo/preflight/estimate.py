"""Estimates how long a run takes to rewrite and train, by doing a little of both with the recipe's settings."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, fields
from functools import partial
from itertools import cycle, islice, pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from semdpo.data.pairs import read_rewrites
from semdpo.data.records import Pair, content_id
from semdpo.errors import DataError, SemdpoError
from semdpo.preflight import doctor
from semdpo.preflight.doctor import MEASURED_SECONDS
from semdpo.preflight.resources import Finding
from semdpo.progress import Progress
from semdpo.recipe.models import DecodingConfig
from semdpo.recipe.objectives import DPOSettings
from semdpo.recipe.schema import Recipe

PROMPT = "a red house near a tree"
# Texts of the usual length in DiffusionDB, for a recipe whose file of rewrites is missing.
TYPICAL = [
    (
        "a castle near the harbor at night",
        f"a castle near the harbor at night, {style}, highly detailed, soft light, 8k",
    )
    for style in ("oil painting, trending on artstation", "portrait in golden hour, sharp focus", "wide angle")
]
FEW_TOKENS, FEW_PROMPTS, FEW_PAIRS = 9, 4, 2
UPDATES = 4
REFERENCE = 1 / 3  # cost of the reference's pass relative to a training pass: it has no backward pass


@dataclass(frozen=True, slots=True)
class Rewriting:
    """One use of a rewriter in a run.

    Attributes:
        what: the purpose of the rewrites, for messages.
        model: the rewriter, or the model that it is trained from.
        template: the rewriter's template; None is the one in its folder.
        decoding: how the rewriter decodes.
        n: the number of rewrites per prompt.
        prompts: the number of prompts; None when the recipe sets none.
    """

    what: str
    model: str
    template: str | None
    decoding: DecodingConfig
    n: int
    prompts: int | None


def times(recipe: Recipe, seconds: float = MEASURED_SECONDS) -> list[Finding]:
    """Estimates how long rendering and scoring, rewriting, and training take.

    Args:
        recipe: the validated recipe.
        seconds: about how long to measure each of the three.
    """
    return [doctor.measure(recipe, seconds), rewriting(recipe, seconds), training(recipe, seconds)]


# ------------------------------------------------------------------------------------------------------- rewriting


def rewriting(recipe: Recipe, seconds: float = MEASURED_SECONDS) -> Finding:
    """Estimates how long all rewrites take, if each uses its whole token budget.

    These are the candidates, and the methods' rewrites of the held-out prompts.

    Args:
        recipe: the validated recipe.
        seconds: about how long to measure; a few tokens of a few prompts are generated in any case.
    """
    jobs = list(_rewritings(recipe))
    rates, whole = [], 0.0
    try:
        for job in jobs:
            if doctor.is_absent(job.model):
                return Finding("warning", "rewriting", f"not measured: {job.model} is not downloaded")
            spent = _seconds_per_prompt(job, seconds / len(jobs))
            rate = f"{job.what} {job.n / spent:.3g} per second"
            if job.prompts is None:
                rates.append(rate)
                continue
            whole += spent * job.prompts
            rates.append(f"{rate}, {job.prompts * job.n:,} take {_duration(spent * job.prompts)}")
    except SemdpoError as error:
        return Finding("error", "rewriting", str(error))
    except _out_of_memory():
        return Finding(
            "error", "rewriting", "out of memory", "lower candidates.batch_size and evaluate.rewrite.batch_size"
        )
    missing = any(job.prompts is None for job in jobs)
    end = (
        "set the limits of prompts for an estimate of the whole run"
        if missing
        else f"at most {_duration(whole)} in all"
    )
    return Finding("ok", "rewriting", f"{'; '.join(rates)}; {end}")


def _rewritings(recipe: Recipe) -> Iterator[Rewriting]:
    config, start = recipe.candidates, recipe.sft.model
    yield Rewriting("candidates", start, recipe.sft.template, config, config.n, recipe.prompts.limit)
    held_out = doctor.held_out(recipe)
    trained = None if held_out is None else held_out * (1 + len(recipe.train.methods))
    yield Rewriting("evaluation's rewrites", start, recipe.sft.template, recipe.evaluate.rewrite, 1, trained)
    for name, decoding in recipe.evaluate.also.items():
        yield Rewriting(f"evaluation's rewrites, {name}", start, recipe.sft.template, decoding, 1, trained)
    for name, other in recipe.evaluate.rewriters.items():
        yield Rewriting(f"rewrites of {name}", other.model, other.template, other, 1, held_out)


def _seconds_per_prompt(job: Rewriting, budget: float) -> float:
    """The seconds for all rewrites of a prompt; the first token, which includes reading the prompt, is timed apart."""
    from semdpo.models.rewriter import CausalRewriter, Decoding, load_rewriter

    settings = {field.name: getattr(job.decoding, field.name) for field in fields(Decoding)}
    rewriter = load_rewriter(job.model, job.template, job.decoding.precision, **settings)
    tokens, batch = job.decoding.max_new_tokens, min(job.decoding.batch_size, job.prompts or job.decoding.batch_size)

    def timed(with_budget: CausalRewriter, prompts: int) -> tuple[float, int]:
        begun = time.monotonic()
        rows = [rewrite for row in with_budget.rewrite_flagged([PROMPT] * prompts, job.n, 0) for rewrite in row]
        spent = time.monotonic() - begun
        if any(truncated for _, truncated in rows):
            return spent, few
        return spent, 1 + max(rewriter.tokens([text for text, _ in rows]))  # no rewrite was truncated

    few = min(FEW_TOKENS, tokens)
    short, longer = rewriter.with_budget(1), rewriter.with_budget(few)
    timed(short, 1)  # the first call warms up
    estimate = 0.0
    for size in sorted({min(FEW_PROMPTS, batch), batch}):
        first, _ = timed(short, size)
        whole, steps = timed(longer, size)
        estimate = (first + (tokens - 1) * max(whole - first, 0.0) / max(steps - 1, 1)) / size
        if (first + whole) * batch / size > budget:
            break
    return estimate


# -------------------------------------------------------------------------------------------------------- training


class _EnoughError(Exception):
    """Stops a training after enough updates."""


def training(recipe: Recipe, seconds: float = MEASURED_SECONDS) -> Finding:
    """Estimates how long fine-tuning and the training of all methods take, the reference's pass included.

    Args:
        recipe: the validated recipe.
        seconds: about how long to measure; two updates on two pairs are made in any case.
    """
    sft, train = recipe.sft, recipe.train
    try:
        if doctor.is_absent(sft.model):
            return Finding("warning", "training", f"not measured: {sft.model} is not downloaded")
        if any(finding.level == "error" for finding in doctor.resources(recipe, Path())):
            return Finding("warning", "training", "not measured: there is too little memory or disk")
        with TemporaryDirectory() as folder:
            fine = _seconds_per_update(partial(_fine_tune, recipe, Path(folder)), sft.batch_size, seconds / 2)
            preference = _seconds_per_update(partial(_train, recipe, Path(folder)), train.batch_size, seconds / 2)
    except SemdpoError as error:
        return Finding("error", "training", str(error))
    except _out_of_memory():
        return Finding("error", "training", "out of memory", "lower sft.micro_batch_size and train.micro_batch_size")
    text = f"{fine:.3g} s per update of fine-tuning, {sft.steps:,} take {_duration(fine * sft.steps)}; "
    text += f"{preference:.3g} s per update of preference training"
    if recipe.prompts.limit is None:
        return Finding("ok", "training", f"{text}; set prompts.limit for an estimate of the whole run")
    # An upper limit: a prompt without two different scores gives no pair.
    updates = math.ceil(recipe.prompts.limit / train.batch_size) * train.epochs
    spent = preference * updates * (len(train.methods) + REFERENCE / train.epochs)
    text += f", {updates:,} for each of {len(train.methods)} methods take {_duration(spent)}"
    return Finding("ok", "training", f"{text}; at most {_duration(fine * sft.steps + spent)} in all")


def _seconds_per_update(begin: Callable[[int, Progress], object], size: int, budget: float) -> float:
    """The seconds of an update on ``size`` pairs; extrapolated from fewer pairs where those would take too long."""
    few = min(FEW_PAIRS, size)
    spent = _watched(partial(begin, few), budget) * size / few
    if few < size and spent * 2 <= budget:
        spent = _watched(partial(begin, size), budget)
    return spent


def _watched(work: Callable[[Progress], object], budget: float) -> float:
    """The median seconds between a training's updates after the first, which warms up; the training is stopped."""
    marks: list[float] = []

    def watch(done: int, total: int, note: str = "") -> None:
        if note == "reference":
            return
        marks.append(time.monotonic())
        if done == total or (len(marks) > 1 and marks[-1] - marks[0] > budget):
            raise _EnoughError

    with suppress(_EnoughError):
        work(watch)
    return statistics.median(after - before for before, after in pairwise(marks))


def _fine_tune(recipe: Recipe, folder: Path, size: int, progress: Progress) -> None:
    from semdpo.training.fine_tune import fine_tune  # here, since it imports torch

    config = recipe.sft.model_copy(update={"steps": UPDATES} | _batches(recipe.sft, size))
    fine_tune(list(islice(cycle(_texts(recipe)), UPDATES * size)), config, folder / "sft", progress)


def _train(recipe: Recipe, folder: Path, size: int, progress: Progress) -> None:
    """Trains with DPO, which takes as long as any objective, because the model takes nearly all of the time."""
    from semdpo.training.preference import train  # here, since it imports torch

    config = recipe.train.model_copy(update={"epochs": 1, "report_to": []} | _batches(recipe.train, size))
    texts = _texts(recipe)
    sides = zip(cycle(texts), cycle([*texts[1:], texts[0]]), range(UPDATES * size), strict=False)
    pairs = [
        Pair(content_id(str(k)), prompt, chosen, rejected, 1.0, 0.0) for (prompt, chosen), (_, rejected), k in sides
    ]
    start, output = recipe.sft.model, folder / "train"
    train(pairs, start, DPOSettings(name="dpo"), config, output, folder / "cache", progress)


def _batches(config: Any, size: int) -> dict[str, int | None]:
    micro = config.micro_batch_size
    return {"batch_size": size, "micro_batch_size": micro if size == config.batch_size else None}


def _texts(recipe: Recipe) -> list[tuple[str, str]]:
    """Prompts and rewrites to train on: the recipe's, or typical ones where the file is missing or on the hub."""
    if recipe.sft.file.startswith("hub:"):
        return TYPICAL
    try:
        rewrites = read_rewrites(recipe.sft.file)
    except DataError:
        return TYPICAL
    return rewrites if len(rewrites) > 1 else TYPICAL


def _out_of_memory() -> type[Exception]:
    import torch

    return torch.OutOfMemoryError


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"
