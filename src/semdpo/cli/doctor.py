"""``semdpo doctor``: what this machine has, and what a recipe needs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from semdpo import disk
from semdpo.models import registry
from semdpo.preflight import doctor, estimate
from semdpo.preflight.resources import Finding
from semdpo.progress import show
from semdpo.recipe.load import load_recipe

MARKS = {"ok": " ", "warning": "?", "error": "!"}


def diagnose(recipe: str | None, overrides: Sequence[str], out: Path | None, measured: bool) -> bool:
    """Prints what was found.

    Args:
        recipe: name or path; None looks at the machine only, and lists the published names.
        overrides: of the recipe.
        out: the run's folder; the recipe's own when None.
        measured: draw, rewrite and train for about 20 seconds each, to tell how long a run takes.

    Returns:
        Whether a run could begin.

    Raises:
        ConfigError: the recipe is not valid.
        StoreError: the folder cannot be written.
    """
    loaded = None if recipe is None else load_recipe(recipe, overrides)
    folder = out or (Path("runs") if loaded is None else loaded.folder)
    disk.refuse_unwritable(folder, folder=True)
    _show("This machine", doctor.machine(folder))
    if loaded is None:
        _show("Published models", [_published(name, each) for name, each in registry.PUBLISHED.items()])
        return True
    found = doctor.needs(loaded, folder)
    count = doctor.pictures(loaded)
    if count is not None:
        found.append(Finding("ok", "pictures", f"{count:,} at most"))
    if measured:
        found += estimate.times(loaded)
    _show(f"Recipe {recipe}", found)
    wrong = sum(each.level == "error" for each in found)
    things = "1 thing" if wrong == 1 else f"{wrong} things"
    show(f"\n{things} to be done before a run can begin" if wrong else "\na run can begin")
    return not wrong


def _published(name: str, each: registry.Published) -> Finding:
    remarks = [f"{each.gigabytes:g} GB", *(["gated"] if each.gated else []), *(["own code"] if each.runs_code else [])]
    return Finding("ok", name, f"{each.repository} ({', '.join(remarks)})")


def _show(title: str, found: Sequence[Finding]) -> None:
    width = max(len(each.what) for each in found)
    show(f"\n{title}")
    for each in found:
        show(f"{MARKS[each.level]} {each.what:<{width}}  {each.found}")
        if each.cure:
            show(f"  {'':<{width}}  -> {each.cure}")
