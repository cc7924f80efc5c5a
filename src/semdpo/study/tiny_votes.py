"""The tiny world's simulated raters answer a whole study, in place of people."""

from __future__ import annotations

from contextlib import closing

from semdpo.errors import DataError
from semdpo.study.blinding import study_id
from semdpo.study.plan import Study
from semdpo.study.simulated import Habits, simulate
from semdpo.study.tiny_raters import tiny_opinion
from semdpo.study.votes import VoteStore


def vote(study: Study, seed: int) -> int:
    """Stores the votes of simulated raters on all trials of a study, and closes it.

    Args:
        study: a study of images and requests of the tiny world, planned for simulated raters.
        seed: the seed of the raters' answers. The study's secret has no effect on them.

    Returns:
        The number of votes.

    Raises:
        DataError: the study is planned for people, has votes already, or they cannot judge it; see ``tiny_opinion``.
            No vote was stored.
        StoreError: the votes cannot be stored.
    """
    if not study.plan.simulated:
        raise DataError(
            f"{study.folder} is a study with people, whom no simulated rater may replace; plan another one with "
            "`semdpo study plan --simulated`"
        )
    votes = simulate(study.plan, tiny_opinion(study), Habits(), seed)
    with closing(VoteStore(study.folder, study_id(study))) as store:
        if store.votes():
            raise DataError(f"{study.folder} has votes already, and each question has one answer; plan another study")
        stored = store.add((vote, f"simulated-{vote.trial}-{vote.question}") for vote in votes)
        store.close_study()
    return stored
