"""Options that several commands share, and two checks: a number is in range, and no option is without effect."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from semdpo.errors import ConfigError, SemdpoError

NOBODY: Any = None  # takes the context's place where a command's function is called from Python

Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Change one value of the recipe, such as train.beta=0.1; repeatable."
    ),
]
Fresh = Annotated[bool, typer.Option("--fresh", help="Make changed stages again, and all that depend on them.")]
Out = Annotated[Path | None, typer.Option("--out", "-o", help="The run's folder, or s3://…; by default, runs/NAME.")]
RecipeName = Annotated[str, typer.Argument(help="A recipe's name (tiny) or the path of a .yaml file.")]
PairsFile = Annotated[
    str, typer.Argument(help="File with columns prompt, chosen, rejected: jsonl, json, csv, tsv, parquet.")
]


def typed_by_user(context: typer.Context | None, name: str) -> bool:
    """Whether the user typed an option, even with its default value; False where the function is called from Python."""
    if context is None:
        return False
    source = context.get_parameter_source(name)
    return source is not None and not source.name.startswith("DEFAULT")


def number(option: str, value: float, low: float, high: float = math.inf) -> float:
    """A number from the command line, checked.

    Args:
        option: The option as the user typed it, such as ``--alpha``.
        value: The number that the user gave.
        low: The smallest number allowed.
        high: The largest number allowed; infinity itself is never allowed.

    Raises:
        ConfigError: The number is out of range or not finite.
    """
    if math.isfinite(value) and low <= value <= high:
        return value
    allowed = f"a number ≥ {low:g}" if high == math.inf else f"a number from {low:g} to {high:g}"
    raise ConfigError(f"{option} is {value:g}; it must be {allowed}")


def refuse_without_effect(given: Mapping[str, object], because: str) -> None:
    """Refuses options that would change nothing.

    Args:
        given: The values of options, by option; None, False and empty values were not given.
        because: Why they have no effect here, such as ``without a recipe``.

    Raises:
        ConfigError: One of them was given.
    """
    options = [option for option, value in given.items() if value not in (None, False, [], ())]
    if options:
        have, them = ("has", "it") if len(options) == 1 else ("have", "them")
        raise ConfigError(f"{' and '.join(options)} {have} no effect {because}; leave {them} out")


@contextmanager
def named_as_options(*settings: str) -> Iterator[None]:
    """Makes errors name settings as the user typed them: ``--max-length`` for ``max_length``.

    Args:
        settings: The names of the settings; inside a path or a quotation they stay as they are.
    """
    try:
        yield
    except SemdpoError as error:
        names = "|".join(settings)
        message = re.sub(
            rf"(?<![\w/.'\"-])({names})(?![\w/.'\"-])", lambda name: f"--{name[0].replace('_', '-')}", str(error)
        )
        if message == str(error):
            raise
        raise type(error)(message) from error
