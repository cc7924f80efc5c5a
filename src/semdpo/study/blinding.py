"""What raters may see: names that tell nothing, and the sheet of one rater.

Every public name is an HMAC-SHA256 (RFC 2104) of a private one under the study's secret, so that nobody can guess a
link, and no order or repetition of names follows the methods. An image has another name in every trial and on every
side: equal names would tell that two trials show the same image.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import Any, Literal

from semdpo.errors import ConfigError
from semdpo.study.design import Trial
from semdpo.study.plan import Study, plan_bytes

Kind = Literal["rater", "trial", "image", "study", "organiser", "pair"]
Side = Literal["left", "right"]
SIDES: tuple[Side, Side] = ("left", "right")
LENGTH = 22  # characters of a public name: 132 bits


def public_id(secret: bytes, kind: Kind, name: str) -> str:
    """The public name of a thing.

    Args:
        secret: the study's secret.
        kind: what it is.
        name: its private name.

    Returns:
        22 characters of URL-safe base64 (RFC 4648). The first is no ``-``: a spreadsheet takes such a text for a
        formula, so tables would have to write it in another way than links and JSON do.
    """
    digest = hmac.digest(secret, f"{kind}:{name}".encode(), hashlib.sha256)
    encoded = base64.urlsafe_b64encode(digest).decode()[:LENGTH]
    return "_" + encoded[1:] if encoded.startswith("-") else encoded


def rater_id(study: Study, rater: int) -> str:
    """The public name of a rater, which is the secret part of the rater's link."""
    return public_id(study.secret, "rater", str(rater))


def study_id(study: Study) -> str:
    """The public name of a study, which files of votes have: they belong to one plan, and to no changed one."""
    return public_id(study.secret, "study", hashlib.sha256(plan_bytes(study.plan)).hexdigest())


def trial_id(study: Study, trial: Trial) -> str:
    """The public name of a trial."""
    return public_id(study.secret, "trial", trial.name)


def image_id(study: Study, trial: Trial, side: Side) -> str:
    """The public name of the image on one side of a trial."""
    return public_id(study.secret, "image", f"{trial.name}:{side}")


def trials_of(study: Study, rater: int) -> list[Trial]:
    """One rater's trials in the rater's order.

    Raises:
        ConfigError: the study has no such rater.
    """
    if not 0 <= rater < study.plan.raters:
        raise ConfigError(f"there is no rater {rater}; this study has the raters 0 to {study.plan.raters - 1}")
    return sorted((trial for trial in study.plan.trials if trial.rater == rater), key=lambda trial: trial.position)


def sheet(study: Study, rater: int) -> dict[str, Any]:
    """All that the page of one rater is given. It names no method, no kind of trial and no private name.

    Args:
        study: the study.
        rater: the rater's number, from 0.

    Returns:
        A JSON object: ``study``, ``rater``, ``title``, ``consent``, ``questions`` (a list of ``name`` and ``words``,
        the study's primary one first), ``tie``, ``simulated``, and ``trials`` in the rater's order, each with ``id``,
        ``prompt``, ``left``, ``right``.

    Raises:
        ConfigError: the study has no such rater.
    """
    plan = study.plan
    return {
        "study": study_id(study),
        "rater": rater_id(study, rater),
        "title": plan.title,
        "consent": plan.consent,
        "questions": [
            {"name": name, "words": plan.questions[name]}
            for name in sorted(plan.questions, key=lambda name: name != plan.analysis.primary)
        ],
        "tie": plan.tie,
        "simulated": plan.simulated,
        "trials": [
            {
                "id": trial_id(study, trial),
                "prompt": plan.prompts[trial.prompt_id],
                **{side: image_id(study, trial, side) for side in SIDES},
            }
            for trial in trials_of(study, rater)
        ],
    }
