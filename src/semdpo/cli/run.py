"""``semdpo demo``, ``run``, ``evaluate`` and ``sweep``: the commands that run a recipe's stages."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from semdpo.cli.benchmarks import BenchmarkLimit, BenchmarkNames, names_of, report_next, with_benchmarks
from semdpo.cli.closing import run_closing
from semdpo.cli.ending import RESUMES, RESUMES_WITHOUT_FRESH, interruptible
from semdpo.cli.options import Fresh, Out, Overrides, RecipeName, number, refuse_without_effect
from semdpo.errors import ConfigError
from semdpo.progress import show
from semdpo.texts import shown

if TYPE_CHECKING:
    from semdpo.recipe.schema import Recipe

MOST_WORKERS = 1024
AUTO = "auto"
Only = Annotated[str | None, typer.Option(help="Run only this stage, such as train or evaluate/dpo.")]
Workers = Annotated[
    str | None,
    typer.Option(metavar="N|auto", help="Rewrite, render and score in this many processes; auto: one for each GPU."),
]
ShardOf = Annotated[
    str | None,
    typer.Option(metavar="i/n", help="This is process i of n that share the folder, each on any machine."),
]
Rounds = Annotated[
    int | None,
    typer.Option(help="Train this many times, each time on new candidates of the rewriters that were trained before."),
]
RunFolder = Annotated[Path, typer.Argument(help="The run's folder, such as runs/tiny, or s3://….")]


def demo(
    set_: Overrides = None,
    only: Only = None,
    fresh: Fresh = False,
    out: Out = None,
    workers: Workers = None,
    shard: ShardOf = None,
) -> None:
    """Run the whole method on the embedded tiny world. The same as: semdpo run tiny."""
    run("tiny", set_, only, fresh, out, workers, shard)


def run(
    recipe: RecipeName,
    set_: Overrides = None,
    only: Only = None,
    fresh: Fresh = False,
    out: Out = None,
    workers: Workers = None,
    shard: ShardOf = None,
    rounds: Rounds = None,
) -> None:
    """Run a recipe from prompts to report. The same command resumes a stopped run."""
    if only == "report":
        refuse_without_effect(
            {"--fresh": fresh, "--workers": workers, "--shard": shard},
            "on the report, which is always written again by one process",
        )
    asked, part = _asked(workers), _part(shard)
    if rounds is not None:
        number("--rounds", rounds, 1, 99)
    with interruptible(lambda: "" if only == "report" else _remark(fresh)):
        from semdpo.recipe.load import load_recipe

        loaded = load_recipe(recipe, [*(set_ or []), *([] if rounds is None else [f"rounds.count={rounds}"])])
        from semdpo import pipeline
        from semdpo.training.memory import keep_freed_memory

        keep_freed_memory()
        folder = pipeline.run(loaded, out, only=only, fresh=fresh, workers=_count(asked, loaded), shard=part)
        if only in (None, "report"):
            show(run_closing(folder, loaded))


def _remark(fresh: bool) -> str:
    """What an interrupted command says: how to resume it."""
    return RESUMES_WITHOUT_FRESH if fresh else RESUMES


def _asked(workers: str | None) -> str | None:
    """What ``--workers`` asks for, before anything is loaded.

    Raises:
        ConfigError: it is no number from 1 to ``MOST_WORKERS``, and not ``auto``.
    """
    if workers not in (None, AUTO) and not (
        workers.isdecimal() and len(workers) <= 4 and 1 <= int(workers) <= MOST_WORKERS
    ):
        raise ConfigError(
            f"--workers is {shown(workers)}; it must be a number from 1 to {MOST_WORKERS}, or auto: one for each GPU"
        )
    return workers


def _count(asked: str | None, recipe: Recipe) -> int | None:
    """The number of workers, as ``pipeline.run`` takes it.

    Raises:
        ConfigError: ``auto`` finds no GPU.
    """
    if asked is None or (asked == AUTO and recipe.engine == "ray"):  # Ray knows the cluster's GPUs
        return None
    if asked != AUTO:
        return int(asked)
    from semdpo.engine.workers import gpus

    if found := len(gpus()):
        return found
    raise ConfigError("--workers auto is one process for each GPU, and there is none; give a number")


def _part(shard: str | None) -> tuple[int, int] | None:
    """The process's number and how many there are; None where this process has the folder alone.

    Raises:
        ConfigError: it is not i/n with 1 ≤ i ≤ n.
    """
    if shard is None:
        return None
    if match := re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", shard):
        part, parts = int(match[1]), int(match[2])
        if 1 <= part <= parts:
            return part, parts
    raise ConfigError(f"--shard is {shown(shard)}; it must be i/n with i from 1 to n, such as 1/8 to 8/8")


def evaluate(
    folder: RunFolder,
    benchmark: BenchmarkNames = None,
    benchmark_limit: BenchmarkLimit = None,
    fresh: Fresh = False,
    workers: Workers = None,
    shard: ShardOf = None,
) -> None:
    """Render and score a run's held-out prompts, and those of benchmarks. Every method of the run rewrites them first.

    With --benchmark, --fresh makes these benchmarks again and nothing else.
    """
    asked, part = _asked(workers), _part(shard)
    names = names_of(benchmark or [], benchmark_limit)
    with interruptible(lambda: _remark(fresh)):
        from semdpo import pipeline

        loaded = with_benchmarks(pipeline.recipe_of(folder), names, benchmark_limit)
        for stage in [f"benchmarks/{name}" for name in names] if fresh else []:
            pipeline.run(loaded, folder, only=stage, fresh=True, workers=_count(asked, loaded), shard=part)
        fresh_all = fresh and not names
        pipeline.run(loaded, folder, only="evaluate", fresh=fresh_all, workers=_count(asked, loaded), shard=part)
        if names:
            show(report_next(folder))


def sweep(
    recipe: RecipeName,
    set_: Overrides = None,
    fresh: Fresh = False,
    out: Out = None,
    workers: Workers = None,
    shard: ShardOf = None,
) -> None:
    """Train Sem-DPO at several alphas and recommend one. They are compared on tuning prompts."""
    asked, part = _asked(workers), _part(shard)
    with interruptible(lambda: _remark(fresh)):
        from semdpo.recipe.load import load_recipe

        loaded = load_recipe(recipe, set_ or [])
        from semdpo import pipeline
        from semdpo.training.memory import keep_freed_memory

        keep_freed_memory()
        pipeline.sweep(loaded, out, fresh=fresh, workers=_count(asked, loaded), shard=part)
