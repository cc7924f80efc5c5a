"""``semdpo world``: builds, draws and describes the embedded tiny world."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from semdpo import disk, extras
from semdpo.cli import output
from semdpo.cli.ending import GOES_ON, interruptible
from semdpo.cli.options import number
from semdpo.errors import ConfigError


def build(
    models: Annotated[list[str] | None, typer.Argument(help="Names; all when none is given.")] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="The build folder.")] = Path("world-build"),
    jobs: Annotated[int, typer.Option(help="Models at a time.")] = 2,
    ship: Annotated[bool, typer.Option("--ship", help="Then copy all of them into the package.")] = False,
) -> None:
    """Train the tiny world's models from nothing; started again, it goes on where it stopped."""
    number("--jobs", jobs, 1)
    extras.require(render="building the tiny world")
    disk.refuse_unwritable(out, folder=True)
    with interruptible(lambda: GOES_ON):
        from semdpo.tiny_world_training import build

        build.build(models or [], out, jobs)
        if ship:
            build.ship(out)


def show(
    out: Annotated[Path, typer.Option("--out", "-o", help="A .png file.")] = Path("tiny-world.png"),
) -> None:
    """Draw a contact sheet: the painter's and tiny:sd's images for the same captions."""
    if out.suffix.lower() != ".png":
        raise ConfigError(f"--out {out}: the sheet is a PNG; name it with .png")
    disk.refuse_unwritable(out)
    extras.require(render="the contact sheet")
    from semdpo.models.renderer import load_renderer
    from semdpo.tiny_world.show import contact_sheet

    output.write(out, contact_sheet(load_renderer("tiny:sd", guidance=3.5)))


def card() -> None:
    """Print how good each of the tiny world's models is."""
    from semdpo.tiny_world import card

    print(card.markdown(card.read()), end="")
