"""``semdpo doctor``: what this machine has, and what a recipe needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from semdpo import disk
from semdpo.cli.options import Out, Overrides, number, refuse_without_effect
from semdpo.cli.run import MOST_WORKERS
from semdpo.progress import bar, show

if TYPE_CHECKING:
    from semdpo.models.catalogue import Published
    from semdpo.preflight.resources import Finding
    from semdpo.recipe.schema import Recipe

MARKS = {"ok": " ", "warning": "?", "error": "!"}


def doctor(
    recipe: Annotated[
        str | None, typer.Argument(help="A recipe's name or path; without one, only the machine is checked.")
    ] = None,
    set_: Overrides = None,
    out: Out = None,
    measured: Annotated[
        bool | None,
        typer.Option(
            "--measure/--no-measure",
            help="Do a little of every stage, for about a minute, and print what a run costs.",
            show_default="measure",
        ),
    ] = None,
    prompts: Annotated[
        int | None, typer.Option(metavar="N", help="Training prompts of the estimate; by default, the recipe's.")
    ] = None,
    price: Annotated[
        float | None, typer.Option(metavar="P", help="Price of a GPU-hour (without a GPU, of this CPU's hour).")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(metavar="N", help="Processes that will share the run, each on a device of its own.")
    ] = None,
) -> None:
    """Check this machine and what a recipe needs. Says how to get what is missing, and what a run costs."""
    asked = {"--prompts": prompts is not None, "--price": price is not None, "--workers": workers is not None}
    if recipe is None:
        option = "--measure" if measured else "--no-measure"
        refuse_without_effect({"--set": set_, option: measured is not None, **asked}, "without a recipe")
    if measured is False:
        refuse_without_effect(asked, "with --no-measure")
    if prompts is not None:
        number("--prompts", prompts, 1)
    if price is not None:
        number("--price", price, 0)
    if workers is not None:
        number("--workers", workers, 1, MOST_WORKERS)
    wanted = None if measured is False else Wanted(prompts, price, workers or 1)
    if not diagnose(recipe, set_ or [], out, wanted):
        raise typer.Exit(1)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What an estimate is for.

    Attributes:
        prompts: The number of training prompts; None is the recipe's.
        price: The price of an hour of the device; None is not known.
        workers: The number of processes that share the run.
    """

    prompts: int | None = None
    price: float | None = None
    workers: int = 1


def diagnose(recipe: str | None, overrides: Sequence[str], out: Path | None, wanted: Wanted | None) -> bool:
    """Prints what the machine has, what the recipe needs, how to get what is missing, and what a run costs.

    Args:
        recipe: The recipe's name or path. With None only the machine is checked, and the published models are listed.
        overrides: The values of the recipe to change, each as ``KEY=VALUE``.
        out: The run's folder; None is the recipe's own.
        wanted: What to estimate, after about a minute of measuring; None measures nothing.

    Returns:
        Whether a run can begin.

    Raises:
        ConfigError: The recipe is not valid.
        StoreError: The folder cannot be written.
    """
    from semdpo.models import catalogue
    from semdpo.preflight import doctor
    from semdpo.preflight.resources import Finding
    from semdpo.recipe.load import load_recipe

    loaded = None if recipe is None else load_recipe(recipe, overrides)
    folder = out or (Path("runs") if loaded is None else loaded.folder)
    if (address := disk.address(folder)) is not None:
        from semdpo.engine.mirror import working_folder

        folder = working_folder(address)
    disk.refuse_unwritable(folder, folder=True)
    _show("This machine", doctor.machine(folder))
    if loaded is None:
        _show("Published models", [_published(name, model) for name, model in catalogue.PUBLISHED.items()])
        return True
    findings = doctor.needs(loaded, folder)
    count = doctor.images(loaded)
    if count is not None:
        findings.append(Finding("ok", "images", f"{count:,} at most"))
    _show(f"Recipe {recipe}", findings)
    errors = sum(finding.level == "error" for finding in findings)
    if wanted is not None:
        errors += _estimate(loaded, wanted)
    things = "1 thing" if errors == 1 else f"{errors} things"
    show(f"\n{things} to do before a run can begin (marked with !)" if errors else "\na run can begin")
    return not errors


def _estimate(recipe: Recipe, wanted: Wanted) -> int:
    """Prints what a run costs; returns how many kinds of its work failed."""
    from semdpo.engine.providers import own_models
    from semdpo.preflight import bill, encoders, estimate, probe
    from semdpo.preflight.sample import sample_of

    sample = sample_of(recipe)
    prompts, held_out = wanted.prompts or sample.count(recipe), sample.count_held_out(recipe)
    if prompts is None or held_out is None:
        give = [] if prompts is not None else ["--prompts N"]
        give += [] if held_out is not None else ["prompts.test_limit in the recipe"]
        show(f"\nno estimate, for the number of prompts is not known ({sample.typical}); give {' and '.join(give)}")
        return 0
    with bar("measuring") as progress:
        models = own_models(recipe.scoring.allow_remote_code)
        found = probe.probe(recipe, sample, prompts, held_out, models=models, progress=progress)
    plan = estimate.stages(recipe, found, prompts, held_out, sample.seconds)
    on = bill.device()
    show(f"\nEstimate for {prompts:,} training and {held_out:,} held-out prompts, measured on {on.name}")
    for line in bill.lines(recipe, plan, on, workers=wanted.workers, price=wanted.price):
        show(line)
    for reason in sample.stand_ins:
        show(f"? typical texts stand in for the recipe's own: {reason}")
    for remark in encoders.unread(recipe.drift.encoder, sample, models):
        show(f"? {remark}")
    failed = {each.reason for each in found.values() if isinstance(each, probe.Unmeasured) and each.failed}
    for reason in failed:
        show(f"! a run would fail: {reason}")
    return len(failed)


def _published(name: str, model: Published) -> Finding:
    from semdpo.preflight.resources import Finding

    gated, own_code = ["gated"] if model.gated else [], ["own code"] if model.runs_code else []
    size = f"{model.gigabytes:g} GB" if model.gigabytes else "size not known"
    licence = [model.licence] if model.licence else []
    reads = [f"encoder of {model.encoder.tokens:,} tokens"] if model.encoder else []
    remarks = ", ".join([size, *licence, *gated, *own_code, *reads])
    return Finding("ok", name, f"{model.repository} ({remarks})")


def _show(title: str, findings: Sequence[Finding]) -> None:
    width = max(len(finding.what) for finding in findings)
    show(f"\n{title}")
    for finding in findings:
        show(f"{MARKS[finding.level]} {finding.what:<{width}}  {finding.found}")
        if finding.cure:
            show(f"  {'':<{width}}  -> {finding.cure}")
