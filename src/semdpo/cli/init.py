"""``semdpo init``: writes one of the package's recipes, with its comments, as a starting point."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Annotated

import typer

from semdpo import disk
from semdpo.errors import ConfigError, StoreError
from semdpo.progress import say

NAME = re.compile("[a-z0-9][a-z0-9_.-]{0,99}")  # as recipe.base.Name
SUFFIXES = (".yaml", ".yml")  # `semdpo run` takes an argument that ends so for a file, any other for a name


def init(
    recipe: Annotated[str, typer.Argument(help="One of the package's recipes, such as tiny or paper/gpt2.")] = "tiny",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="A new .yaml file; by default, standard output.")
    ] = None,
) -> None:
    """Write a commented recipe to edit and run. For example: semdpo init > mine.yaml."""
    from semdpo.recipe.load import shipped_recipe

    name = "mine" if out is None or not NAME.fullmatch(out.stem) else out.stem
    text = _named(shipped_recipe(recipe).read_text(encoding="utf-8"), name).encode()
    if out is None:
        sys.stdout.buffer.write(text)  # byte for byte, whatever the terminal's encoding
        sys.stdout.flush()
        return
    if out.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"--out {out}: a recipe's file must end in .yaml, so that `semdpo run` finds it; rename it")
    disk.refuse_unwritable(out)
    if out.exists():
        raise StoreError(f"{out} already exists; choose another name, or remove it")
    disk.write_bytes(out, text)
    say(f"wrote {out}; edit it, then run: semdpo run {out}")


def _named(text: str, name: str) -> str:
    """A recipe's text with a name of its own, because a run's folder has the recipe's name."""
    return re.sub(r"^name: (\S+ *)", lambda found: f"name: {name:<{len(found[1])}}", text, count=1, flags=re.MULTILINE)
