"""What a rater's page sends, checked against the plan: the same for votes over HTTP and for votes in a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from semdpo.errors import DataError
from semdpo.study.blinding import image_id, sheet, trial_id, trials_of
from semdpo.study.design import Choice, Trial, Vote
from semdpo.study.plan import Study

LONGEST = 1e6  # seconds of an answer; a page that was left open for eleven days


class Answer(BaseModel):
    """One answer of a rater, in public names.

    Attributes:
        answer: the page's own id of the answer; the same when the page sends it again.
        trial: the trial's public name.
        question: the question's name.
        choice: the side that the rater chose, or ``tie``.
        left: the public name of the image that the page showed on the left.
        right: the same of the right.
        seconds: time from showing both images to the answer.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    answer: str = Field(pattern=r"^[A-Za-z0-9_-]{16,64}$")
    trial: str = Field(max_length=64)
    question: str = Field(max_length=200)
    choice: Choice
    left: str = Field(max_length=64)
    right: str = Field(max_length=64)
    seconds: float = Field(ge=0, le=LONGEST, allow_inf_nan=False)


@dataclass(frozen=True, slots=True)
class Seat:
    """A rater's place in a study.

    Attributes:
        rater: the rater's number.
        sheet: what the rater's page is given.
        trials: the trial's public name → the trial, in the rater's order.
    """

    rater: int
    sheet: Mapping[str, Any]
    trials: Mapping[str, Trial]


def seat(study: Study, rater: int) -> Seat:
    """The place of one rater.

    Raises:
        ConfigError: the study has no such rater.
    """
    return Seat(rater, sheet(study, rater), {trial_id(study, trial): trial for trial in trials_of(study, rater)})


def vote_of(study: Study, place: Seat, answer: Answer, at: str) -> Vote:
    """The vote that an answer is.

    Args:
        study: the study.
        place: the place of the rater who answered.
        answer: the answer.
        at: when it was stored.

    Raises:
        DataError: the trial is not this rater's, the question or the choice is not the study's, or the page showed
            other images than the plan has on these sides.
    """
    trial = place.trials.get(answer.trial)
    if trial is None:
        raise DataError("this rater has no such trial; load the page again")
    if answer.question not in study.plan.questions:
        raise DataError("this study has no such question; load the page again")
    if answer.choice == "tie" and study.plan.tie is None:
        raise DataError("this study has no third answer; choose an image")
    if (answer.left, answer.right) != (image_id(study, trial, "left"), image_id(study, trial, "right")):
        raise DataError("the page showed other images than the plan has on these sides; load the page again")
    return Vote(trial.name, place.rater, answer.question, answer.choice, trial.left, trial.right, answer.seconds, at)
