"""``semdpo study simulate``: simulated raters answer a study, to rehearse what comes after it."""

from __future__ import annotations

from typing import Annotated

import typer

from semdpo import extras
from semdpo.cli.options import number
from semdpo.cli.study_serve import StudyFolder
from semdpo.progress import bar, say


def simulate(
    study: StudyFolder,
    seed: Annotated[int, typer.Option(help="The seed of the raters' answers.")] = 0,
) -> None:
    """Let simulated raters answer a study of tiny-world images that was planned with --simulated."""
    number("--seed", seed, 0, 2**63 - 1)
    extras.require(study="semdpo study simulate")
    from semdpo.study.plan import read_study
    from semdpo.study.tiny_votes import vote

    planned = read_study(study)
    with bar("simulated raters look at the images"):
        votes = vote(planned, seed)
    say(f"stored {votes} votes of {planned.plan.raters} simulated raters in {study}, and closed the study")
