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
        str | None, typer.Argument(help="A recipe's name or path; without one, only the machine is checked.")
    ] = None,
    set_: Overrides = None,
    out: Out = None,
    measured: Annotated[
        bool | None,
        typer.Option("--measure/--no-measure", help="Time each kind of work for 20 s.", show_default="measure"),
    ] = None,
) -> None:
    """Check this machine and what a recipe needs. Says how to get what is missing, and how long a run takes."""
    if recipe is None:
        option = "--measure" if measured else "--no-measure"
        refuse_without_effect({"--set": set_, option: measured is not None}, "without a recipe")
    if not diagnose(recipe, set_ or [], out, measured is not False):
        raise typer.Exit(1)


def diagnose(recipe: str | None, overrides: Sequence[str], out: Path | None, measured: bool) -> bool:
    """Prints what the machine has, what the recipe needs, and how to get what is missing.

    Args:
        recipe: The recipe's name or path. With None only the machine is checked, and the published models are listed.
        overrides: The values of the recipe to change, each as ``KEY=VALUE``.
        out: The run's folder; None is the recipe's own.
        measured: Whether to render, rewrite and train for about 20 seconds each, to estimate how long a run takes.

    Returns:
        Whether a run can begin.

    Raises:
        ConfigError: The recipe is not valid.
        StoreError: The folder cannot be written.
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
        _show("Published models", [_published(name, model) for name, model in registry.PUBLISHED.items()])
        return True
    findings = doctor.needs(loaded, folder)
    count = doctor.images(loaded)
    if count is not None:
        findings.append(Finding("ok", "images", f"{count:,} at most"))
    if measured:
        findings += estimate.times(loaded)
    _show(f"Recipe {recipe}", findings)
    errors = sum(finding.level == "error" for finding in findings)
    things = "1 thing" if errors == 1 else f"{errors} things"
    show(f"\n{things} to do before a run can begin (marked with !)" if errors else "\na run can begin")
    return not errors


def _published(name: str, model: Published) -> Finding:
    from semdpo.preflight.resources import Finding

    gated, own_code = ["gated"] if model.gated else [], ["own code"] if model.runs_code else []
    remarks = ", ".join([f"{model.gigabytes:g} GB", *gated, *own_code])
    return Finding("ok", name, f"{model.repository} ({remarks})")


def _show(title: str, findings: Sequence[Finding]) -> None:
    width = max(len(finding.what) for finding in findings)
    show(f"\n{title}")
    for finding in findings:
        show(f"{MARKS[finding.level]} {finding.what:<{width}}  {finding.found}")
        if finding.cure:
            show(f"  {'':<{width}}  -> {finding.cure}")
