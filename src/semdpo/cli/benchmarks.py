"""The options of ``semdpo evaluate`` that add benchmarks to a run."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from semdpo.cli.options import number, refuse_without_effect
from semdpo.errors import ConfigError
from semdpo.texts import shown

if TYPE_CHECKING:
    from semdpo.recipe.schema import Recipe

BenchmarkNames = Annotated[
    list[str] | None,
    typer.Option(
        "--benchmark",
        metavar="NAME[=FILE]",
        help="Also evaluate on this benchmark, such as drawbench=DrawBench.csv; FILE may be a folder; repeatable.",
    ),
]
BenchmarkLimit = Annotated[
    int | None, typer.Option(metavar="N", help="Of each benchmark named, take N prompts, chosen by their words.")
]


def names_of(options: Sequence[str], limit: int | None) -> dict[str, str | None]:
    """The benchmarks that the command names: name → its file; None where none is given.

    Args:
        options: NAME or NAME=FILE, as the user typed them.
        limit: the number of prompts of each.

    Raises:
        ConfigError: a name is unknown or given twice, a file is empty, or the limit is no number ≥ 1 or has no effect.
    """
    from semdpo.errors import did_you_mean
    from semdpo.recipe.benchmarks import KNOWN

    if not options:
        refuse_without_effect({"--benchmark-limit": limit}, "without --benchmark")
    if limit is not None:
        number("--benchmark-limit", limit, 1, 10**9)
    found: dict[str, str | None] = {}
    for text in options:
        typed, equals, file = text.partition("=")
        name = typed.strip().lower().rstrip("+")  # T2I-CompBench++ is one of them
        if name not in KNOWN:
            raise ConfigError(f"there is no benchmark {shown(typed)}{did_you_mean(name, KNOWN)}")
        if name in found:
            raise ConfigError(f"--benchmark names {name} twice; name it once")
        if equals and not file.strip():
            raise ConfigError(f"--benchmark {shown(text)} names no file; write {name}=FILE, or {name} alone")
        found[name] = file if equals else None
    return found


def with_benchmarks(recipe: Recipe, names: Mapping[str, str | None], limit: int | None) -> Recipe:
    """A recipe with these benchmarks; what an option does not name stays as the run has it.

    Args:
        recipe: the run's recipe.
        names: name → its file; None takes the run's, or else the hub's.
        limit: the number of prompts of each; None takes the run's, or else all.

    Raises:
        ConfigError: a benchmark needs a file and has none.
    """
    from semdpo.recipe.benchmarks import BenchmarkConfig, checked

    if not names:
        return recipe
    benchmarks = dict(recipe.benchmarks)
    for name, file in names.items():
        given = {key: value for key, value in (("file", file), ("limit", limit)) if value is not None}
        benchmarks[name] = benchmarks.get(name, BenchmarkConfig()).model_copy(update=given)
    try:
        return recipe.model_copy(update={"benchmarks": checked(benchmarks)})
    except ValueError as error:
        raise ConfigError(str(error)) from error


def report_next(folder: Path) -> str:
    """The command that shows the benchmarks of a run.

    Args:
        folder: the run's folder.
    """
    return f"next: semdpo report {shlex.quote(str(folder))}"
