"""Options that several commands share, and what is checked of all: numbers in their range, none without an effect."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from semdpo.errors import ConfigError, SemdpoError

NOBODY: Any = None  # instead of a context, where a command's function is called from Python

Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one value of the recipe; repeatable.")
]
Fresh = Annotated[bool, typer.Option("--fresh", help="Make anew the stages that changed, and what follows from them.")]
Out = Annotated[Path | None, typer.Option("--out", "-o", help="The run's folder; runs/NAME when not given.")]
RecipeName = Annotated[str, typer.Argument(help="A recipe's name (tiny) or the path of a .yaml file.")]
PairsFile = Annotated[str, typer.Argument(help="Columns prompt, chosen, rejected: jsonl, json, csv, tsv or parquet.")]


def typed_by_user(context: typer.Context | None, name: str) -> bool:
    """Whether the user gave an option, be it its default; False where no user did, but a function was called."""
    if context is None:
        return False
    source = context.get_parameter_source(name)
    return source is not None and not source.name.startswith("DEFAULT")


def number(option: str, value: float, low: float, high: float = math.inf) -> float:
    """A number of the command line.

    Args:
        option: as the user typed it, such as ``--alpha``.
        value: what was given.
        low: the smallest that is allowed.
        high: the largest that is allowed; infinity itself never is.

    Raises:
        ConfigError: it is out of range, or not finite.
    """
    if math.isfinite(value) and low <= value <= high:
        return value
    allowed = f"a number ≥ {low:g}" if high == math.inf else f"a number from {low:g} to {high:g}"
    raise ConfigError(f"{option} is {value:g}; it must be {allowed}")


def refuse_without_effect(given: Mapping[str, object], because: str) -> None:
    """Refuses options that would change nothing.

    Args:
        given: options with what was given; None, False and empty ones were not.
        because: why they have no effect here.

    Raises:
        ConfigError: there are some.
    """
    named = [option for option, value in given.items() if value not in (None, False, [], ())]
    if named:
        have = "has" if len(named) == 1 else "have"
        raise ConfigError(f"{' and '.join(named)} {have} no effect {because}; leave {_it(named)} out")


def _it(named: list[str]) -> str:
    return "it" if len(named) == 1 else "them"


@contextmanager
def named_as_options(*settings: str) -> Iterator[None]:
    """Within, errors name settings as the user typed them: ``max_length`` as ``--max-length``.

    Args:
        settings: the names; within a path or a quotation they are left as they are.
    """
    try:
        yield
    except SemdpoError as error:
        names = "|".join(settings)
        told = re.sub(
            rf"(?<![\w/.'\"-])({names})(?![\w/.'\"-])", lambda found: f"--{found[0].replace('_', '-')}", str(error)
        )
        if told == str(error):
            raise
        raise type(error)(told) from error
