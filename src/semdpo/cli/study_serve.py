"""``semdpo study serve``, ``page``, ``collect``, ``export``, ``check``: a study to raters, and their votes back."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Annotated

import typer

from semdpo import disk, extras
from semdpo.cli import output
from semdpo.cli.options import number
from semdpo.errors import ConfigError
from semdpo.progress import say, show

StudyFolder = Annotated[Path, typer.Argument(metavar="STUDY", help="The study's folder, made by `semdpo study plan`.")]
OutFolder = Annotated[Path, typer.Option("--out", "-o", help="The folder to write.")]


def serve(
    study: StudyFolder,
    host: Annotated[str, typer.Option(help="The address to listen on; by default, only this machine reaches it.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(help="The port to listen on; 0 takes any that is free.")] = 7332,
) -> None:
    """Serve a study to its raters: one personal link each, and a page of the organiser with the progress."""
    number("--port", port, 0, 65535)
    extras.require(study="semdpo study serve")
    from semdpo.study import app, server
    from semdpo.study.blinding import study_id
    from semdpo.study.plan import read_study
    from semdpo.study.votes import VoteStore
    from semdpo.web.listening import listen, url

    planned = read_study(study)
    with listen(host, port) as listening:
        store = VoteStore(study, study_id(planned))
        try:
            application = app.build(planned, store)
            _log_to_stderr()
            say(f"serving {study} to {planned.plan.raters} raters (Ctrl-C stops it; answers are kept)")
            show(f"{url(listening)}/o/{app.organiser_id(planned)}")
            say("open this address: it has the raters' links, and it is yours alone")
            server.run(application, listening)
        finally:
            store.close()
    say("stopped")


def page(
    study: StudyFolder,
    out: OutFolder,
    rater: Annotated[int | None, typer.Option(help="The rater's number, from 0.")] = None,
    all_: Annotated[bool, typer.Option("--all", help="Write a folder for every rater.")] = False,
) -> None:
    """Write a rater's page as a folder that opens from a disk or any static host."""
    if (rater is None) != all_:
        raise ConfigError("give either --rater N, or --all for every rater")
    extras.require(study="semdpo study page")
    output.refuse_inputs(out, [study])
    from semdpo.study.page import write_pages
    from semdpo.study.plan import read_study

    planned = read_study(study)
    existed = disk.is_dir(out)
    raters = range(planned.plan.raters) if rater is None else [rater]
    for who, path in write_pages(planned, raters, out).items():
        show(f"rater {who}: {path}")
    say(f"replaced {out}" if existed else f"wrote {out}")


def collect(
    study: StudyFolder,
    files: Annotated[list[Path], typer.Argument(help="The files that raters saved from their pages.")],
) -> None:
    """Store the answers that raters saved as files."""
    extras.require(study="semdpo study collect")
    from semdpo.study.collect import collect
    from semdpo.study.plan import read_study

    for file, (rater, answers, new) in collect(read_study(study), files).items():
        show(f"rater {rater}: {answers} answers, {new} of them new ({file})")


def export(
    study: StudyFolder,
    to: Annotated[str, typer.Option(help="The program to write for: potato or rapidata.")],
    out: OutFolder,
) -> None:
    """Write a study for Potato or Rapidata."""
    extras.require(study="semdpo study export")
    output.refuse_inputs(out, [study])
    from semdpo.study.exports import export
    from semdpo.study.plan import read_study

    existed = disk.is_dir(out)
    hint = export(read_study(study), to, out)
    say(f"replaced {out}" if existed else f"wrote {out}")
    say(hint)


def check(
    place: Annotated[
        str, typer.Argument(metavar="FOLDER|URL", help="What `study page` wrote, or the address of `study serve`.")
    ],
    study: Annotated[Path, typer.Option("--study", help="The study's folder, which says what must stay hidden.")],
) -> None:
    """Fetch all that raters can fetch, and fail if any of it tells which method made an image."""
    extras.require(study="semdpo study check")
    from semdpo.study.leaks import check
    from semdpo.study.plan import read_study

    found = check(place, read_study(study))
    for leak in found.leaks:
        show(leak)
    say(f"looked at {found.raters} raters' pages, {found.images} images and {found.files} other files")
    if found.leaks:
        say(f"{len(found.leaks)} leaks; do not show this study to anybody before they are closed")
        raise typer.Exit(1)
    say("nothing tells the methods apart")


def _log_to_stderr() -> None:
    """Shows this package's log with times; no line has a rater's link."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    log = logging.getLogger("semdpo.study")
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
