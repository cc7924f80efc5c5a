"""``semdpo demo``, ``run``, ``evaluate`` and ``sweep``: the commands that run a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from semdpo.cli.closing import run_closing
from semdpo.cli.ending import ANEW, GOES_ON, interruptible
from semdpo.cli.options import Fresh, Out, Overrides, RecipeName, refuse_without_effect
from semdpo.progress import show

Only = Annotated[str | None, typer.Option(help="Run one stage only, such as train or evaluate/dpo.")]
RunFolder = Annotated[Path, typer.Argument(help="The run's folder, such as runs/tiny.")]


def demo(set_: Overrides = None, only: Only = None, fresh: Fresh = False, out: Out = None) -> None:
    """Run everything on the embedded tiny world and write a report; the same as: run tiny."""
    run("tiny", set_, only, fresh, out)


def run(recipe: RecipeName, set_: Overrides = None, only: Only = None, fresh: Fresh = False, out: Out = None) -> None:
    """Run a recipe from prompts to report; started again, it goes on where it stopped."""
    if only == "report":
        refuse_without_effect({"--fresh": fresh}, "on the report, which is always written anew")
    with interruptible(lambda: "" if only == "report" else ANEW if fresh else GOES_ON):
        from semdpo.recipe.load import load_recipe

        loaded = load_recipe(recipe, set_ or [])
        from semdpo import pipeline
        from semdpo.training.memory import keep_freed_memory

        keep_freed_memory()
        made = pipeline.run(loaded, out, only=only, fresh=fresh)
        if only in (None, "report"):
            show(run_closing(made, loaded))


def evaluate(folder: RunFolder, fresh: Fresh = False) -> None:
    """Draw and scorer the held-out prompts of a run with every method."""
    with interruptible(lambda: ANEW if fresh else GOES_ON):
        from semdpo import pipeline

        pipeline.run(pipeline.recipe_of(folder), folder, only="evaluate", fresh=fresh)


def sweep(recipe: RecipeName, set_: Overrides = None, fresh: Fresh = False, out: Out = None) -> None:
    """Train Sem-DPO at several alpha, compare them on tuning prompts, and say which one to take."""
    with interruptible(lambda: ANEW if fresh else GOES_ON):
        from semdpo.recipe.load import load_recipe

        loaded = load_recipe(recipe, set_ or [])
        from semdpo import pipeline
        from semdpo.training.memory import keep_freed_memory

        keep_freed_memory()
        pipeline.sweep(loaded, out, fresh=fresh)
