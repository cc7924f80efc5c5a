"""``semdpo init``: a recipe of the package, with its comments, to start from."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from semdpo import disk
from semdpo.errors import ConfigError, StoreError
from semdpo.progress import say

SUFFIXES = (".yaml", ".yml")  # by which `semdpo run` knows a file from a name


def init(
    recipe: Annotated[str, typer.Argument(help="A recipe of the package, such as tiny or paper/gpt2.")] = "tiny",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="A new .yaml file; standard output when not given.")
    ] = None,
) -> None:
    """Write a recipe with its comments, to edit and run: semdpo init > mine.yaml."""
    from semdpo.recipe.load import shipped_recipe

    text = shipped_recipe(recipe).read_bytes()
    if out is None:
        sys.stdout.buffer.write(text)  # byte for byte, whatever the terminal's encoding
        sys.stdout.flush()
        return
    if out.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"--out {out}: a recipe's file ends in .yaml; name it so, and `semdpo run` finds it")
    disk.refuse_unwritable(out)
    if out.exists():
        raise StoreError(f"{out} is there already; choose another name, or remove it")
    disk.write_bytes(out, text)
    say(f"wrote {out}; edit it (give it a name of its own), then: semdpo run {out}")
