"""``semdpo doctor``: what this machine has, and what a recipe needs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from semdpo import disk
from semdpo.cli.options import Out, Overrides, refuse_without_effect
from semdpo.progress import show

if TYPE_CHECKING:
    from semdpo.models.registry import Published
    from semdpo.preflight.resources import Finding

MARKS = {"ok": " ", "warning": "?", "error": "!"}


def doctor(
    recipe: Annotated[
        str | None, typer.Argument(help="A recipe's name or path; the machine alone when not given.")
    ] = None,
    set_: Overrides = None,
    out: Out = None,
    measured: Annotated[
        bool | None,
        typer.Option("--measure/--no-measure", help="Try each kind of work for 20 s.", show_default="measure"),
    ] = None,
) -> None:
    """Say what this machine has, what a recipe needs, what is missing and how to get it, and how long a run takes."""
    if recipe is None:
        option = "--measure" if measured else "--no-measure"
        refuse_without_effect({"--set": set_, option: measured is not None}, "without a recipe")
    if not diagnose(recipe, set_ or [], out, measured is not False):
        raise typer.Exit(1)


def diagnose(recipe: str | None, overrides: Sequence[str], out: Path | None, measured: bool) -> bool:
    """Prints what was found.

    Args:
        recipe: name or path; None looks at the machine only, and lists the published names.
        overrides: of the recipe.
        out: the run's folder; the recipe's own when None.
        measured: draw, rewrite and train for about 20 seconds each, to estimate how long a run takes.

    Returns:
        Whether a run could begin.

    Raises:
        ConfigError: the recipe is not valid.
        StoreError: the folder cannot be written.
    """
    from semdpo.models import registry
    from semdpo.preflight import doctor, estimate
    from semdpo.preflight.resources import Finding
    from semdpo.recipe.load import load_recipe

    loaded = None if recipe is None else load_recipe(recipe, overrides)
    folder = out or (Path("runs") if loaded is None else loaded.folder)
    disk.refuse_unwritable(folder, folder=True)
    _show("This machine", doctor.machine(folder))
    if loaded is None:
        _show("Published models", [_published(name, each) for name, each in registry.PUBLISHED.items()])
        return True
    found = doctor.needs(loaded, folder)
    count = doctor.images(loaded)
    if count is not None:
        found.append(Finding("ok", "images", f"{count:,} at most"))
    if measured:
        found += estimate.times(loaded)
    _show(f"Recipe {recipe}", found)
    wrong = sum(each.level == "error" for each in found)
    things = "1 thing" if wrong == 1 else f"{wrong} things"
    show(f"\n{things} to be done before a run can begin" if wrong else "\na run can begin")
    return not wrong


def _published(name: str, model: Published) -> Finding:
    from semdpo.preflight.resources import Finding

    gated, own_code = ["gated"] if model.gated else [], ["own code"] if model.runs_code else []
    remarks = ", ".join([f"{model.gigabytes:g} GB", *gated, *own_code])
    return Finding("ok", name, f"{model.repository} ({remarks})")


def _show(title: str, found: Sequence[Finding]) -> None:
    width = max(len(each.what) for each in found)
    show(f"\n{title}")
    for each in found:
        show(f"{MARKS[each.level]} {each.what:<{width}}  {each.found}")
        if each.cure:
            show(f"  {'':<{width}}  -> {each.cure}")
