"""Builds the command line from its commands, in the order in which ``--help`` lists them."""

from __future__ import annotations

from typing import Annotated

import typer

from semdpo import __version__
from semdpo.cli import (
    audit,
    compare,
    doctor,
    export,
    init,
    mcp,
    optimize,
    report,
    run,
    serve,
    study,
    study_analyze,
    study_serve,
    study_simulate,
    train,
    weigh,
    world,
)
from semdpo.cli.ending import finish
from semdpo.progress import quiet_libraries, share_the_cpu, show

HELP_OPTIONS = {"help_option_names": ["-h", "--help"]}

app = typer.Typer(
    help="Train prompt rewriters for text-to-image models on preference pairs, weighted by meaning (Sem-DPO).",
    no_args_is_help=True,
    context_settings=HELP_OPTIONS,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for command in (
    run.demo,
    init.init,
    run.run,
    doctor.doctor,
    weigh.weigh,
    audit.audit,
    train.train,
    optimize.optimize,
    mcp.mcp,
    serve.serve,
    compare.compare,
    export.export,
    run.evaluate,
    run.sweep,
    report.report,
):
    app.command()(command)

_world = typer.Typer(help="The embedded tiny world: its models and images.", no_args_is_help=True)
for subcommand in (world.build, world.show, world.card):
    _world.command()(subcommand)
app.add_typer(_world, name="world")

_study = typer.Typer(help="A blinded comparison of a run's images by people.", no_args_is_help=True)
for step in (
    study.plan,
    study.power,
    study_serve.serve,
    study_serve.page,
    study_serve.collect,
    study_serve.check,
    study_serve.export,
    study_simulate.simulate,
    study_analyze.analyze,
    study.pairs,
):
    _study.command()(step)
app.add_typer(_study, name="study")


def _version(requested: bool) -> None:
    if requested:
        show(f"semdpo {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Runs the command that the user typed, and ends the process as ``ending`` describes."""
    quiet_libraries()
    share_the_cpu()
    finish(app)
