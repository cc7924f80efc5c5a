"""``semdpo world``: builds, shows and describes the embedded tiny world."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from semdpo import disk, extras
from semdpo.cli import output
from semdpo.cli.ending import RESUMES, interruptible
from semdpo.cli.options import number
from semdpo.errors import ConfigError


def build(
    models: Annotated[list[str] | None, typer.Argument(help="Names of models, such as gpt2; by default, all.")] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder to build in.")] = Path("world-build"),
    jobs: Annotated[int, typer.Option(help="Number of models to train at a time.")] = 2,
    ship: Annotated[bool, typer.Option("--ship", help="Copy all models into the package at the end.")] = False,
) -> None:
    """Train the tiny world's models from scratch. The same command resumes a stopped build."""
    number("--jobs", jobs, 1)
    extras.require(render="building the tiny world")
    disk.refuse_unwritable(out, folder=True)
    with interruptible(lambda: RESUMES):
        from semdpo.tiny_world_training import build

        build.build(models or [], out, jobs)
        if ship:
            build.ship(out)


def show(
    out: Annotated[Path, typer.Option("--out", "-o", help="The .png file to write.")] = Path("tiny-world.png"),
) -> None:
    """Write a sheet of example images. It shows the painter's and tiny:sd's images for the same captions."""
    if out.suffix.lower() != ".png":
        raise ConfigError(f"--out {out}: the sheet is a PNG image; name it with .png")
    disk.refuse_unwritable(out)
    extras.require(render="the contact sheet")
    from semdpo.models.renderer import load_renderer
    from semdpo.tiny_world.show import contact_sheet

    output.write(out, contact_sheet(load_renderer("tiny:sd", guidance=3.5)))


def card() -> None:
    """Print what each model is, and its quality on held-out data."""
    from semdpo.tiny_world import card

    print(card.markdown(card.read()), end="")
