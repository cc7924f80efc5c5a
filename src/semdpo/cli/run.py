"""``semdpo demo``, ``run``, ``evaluate`` and ``sweep``: the commands that run a recipe's stages."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from semdpo.cli.closing import run_closing
from semdpo.cli.ending import RESUMES, RESUMES_WITHOUT_FRESH, interruptible
from semdpo.cli.options import Fresh, Out, Overrides, RecipeName, refuse_without_effect
from semdpo.progress import show

Only = Annotated[str | None, typer.Option(help="Run only this stage, such as train or evaluate/dpo.")]
RunFolder = Annotated[Path, typer.Argument(help="The run's folder, such as runs/tiny.")]


def demo(set_: Overrides = None, only: Only = None, fresh: Fresh = False, out: Out = None) -> None:
    """Run the whole method on the embedded tiny world. The same as: semdpo run tiny."""
    run("tiny", set_, only, fresh, out)


def run(recipe: RecipeName, set_: Overrides = None, only: Only = None, fresh: Fresh = False, out: Out = None) -> None:
    """Run a recipe from prompts to report. The same command resumes a stopped run."""
    if only == "report":
        refuse_without_effect({"--fresh": fresh}, "on the report, which is always written again")
    with interruptible(lambda: "" if only == "report" else _remark(fresh)):
        from semdpo.recipe.load import load_recipe

        loaded = load_recipe(recipe, set_ or [])
        from semdpo import pipeline
        from semdpo.training.memory import keep_freed_memory

        keep_freed_memory()
        folder = pipeline.run(loaded, out, only=only, fresh=fresh)
        if only in (None, "report"):
            show(run_closing(folder, loaded))


def _remark(fresh: bool) -> str:
    """What an interrupted command says: how to resume it."""
    return RESUMES_WITHOUT_FRESH if fresh else RESUMES


def evaluate(folder: RunFolder, fresh: Fresh = False) -> None:
    """Render and score a run's held-out prompts. Every method of the run rewrites them first."""
    with interruptible(lambda: _remark(fresh)):
        from semdpo import pipeline

        pipeline.run(pipeline.recipe_of(folder), folder, only="evaluate", fresh=fresh)


def sweep(recipe: RecipeName, set_: Overrides = None, fresh: Fresh = False, out: Out = None) -> None:
    """Train Sem-DPO at several alphas and recommend one. They are compared on tuning prompts."""
    with interruptible(lambda: _remark(fresh)):
        from semdpo.recipe.load import load_recipe

        loaded = load_recipe(recipe, set_ or [])
        from semdpo import pipeline
        from semdpo.training.memory import keep_freed_memory

        keep_freed_memory()
        pipeline.sweep(loaded, out, fresh=fresh)
