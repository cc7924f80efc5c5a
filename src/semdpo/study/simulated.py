"""Simulated raters: those of the tiny world, who look at images, and numbers with a known truth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from semdpo.study.design import MATCH, Choice, Judgement, Plan, Trial, Vote
from semdpo.study.judgements import rater_name

Opinion = Callable[[str, str, str], float]
"""What an image is worth: from the question, the prompt's id and the image's name; in the unit of ``Habits.noise``."""
STARTED = "2026-01-01T00:00:00.000+00:00"  # simulated votes have no time of their own; equal seeds give equal votes


@dataclass(frozen=True, slots=True)
class Habits:
    """How simulated raters answer.

    Attributes:
        noise: the scale of the logistic noise of a single answer, in the unit of opinions.
        rater_sd: the standard deviation of raters' own opinions of an image, in the same unit.
        side_sd: the standard deviation of raters' leaning to the left side, in the same unit.
        lapse: the probability of an answer by chance.
        tie: two images that a rater finds closer than this are a tie, where the study allows ties.
        seconds: the median time of an answer.
    """

    noise: float = 0.3
    rater_sd: float = 0.2
    side_sd: float = 0.1
    lapse: float = 0.03
    tie: float = 0.1
    seconds: float = 4.0


def simulate(plan: Plan, opinion: Opinion, habits: Habits, seed: int) -> list[Vote]:
    """The votes of simulated raters on all trials and questions of a plan.

    A rater has an own opinion of every image for every question, which stays the same in repeats; noise and lapses
    are new in every answer. Attention checks are answered in the same way.

    Args:
        plan: the plan.
        opinion: what an image is worth to people on the average.
        habits: how raters answer.
        seed: the seed; a rater's answers depend on it and the rater only.

    Returns:
        The votes, by rater, position and question.
    """
    votes: list[Vote] = []
    of_hash = {sha256: k for k, sha256 in enumerate(dict.fromkeys(image.sha256 for image in plan.images))}
    places = {image.name: of_hash[image.sha256] for image in plan.images}  # equal images are worth the same
    for rater in range(plan.raters):
        rng = np.random.default_rng([seed, rater])
        lean = habits.side_sd * rng.standard_normal()
        own = habits.rater_sd * rng.standard_normal((len(plan.questions), len(of_hash)))
        for trial in (trial for trial in plan.trials if trial.rater == rater):
            for row, question in enumerate(plan.questions):
                left, right = (
                    opinion(question, trial.prompt_id, name) + own[row, places[name]]
                    for name in (trial.left, trial.right)
                )
                choice = _choice(left - right + lean, habits, rng, ties=plan.tie is not None)
                votes.append(
                    _vote(trial, question, choice, habits.seconds * float(np.exp(0.5 * rng.standard_normal())))
                )
    return votes


def _choice(difference: float, habits: Habits, rng: np.random.Generator, *, ties: bool) -> Choice:
    felt = difference + rng.logistic(0, habits.noise)
    if rng.random() < habits.lapse:
        return "left" if rng.random() < 0.5 else "right"
    if ties and abs(felt) < habits.tie:
        return "tie"
    return "left" if felt > 0 else "right"


def _vote(trial: Trial, question: str, choice: Choice, seconds: float) -> Vote:
    return Vote(trial.name, trial.rater, question, choice, trial.left, trial.right, round(seconds, 3), STARTED)


# ------------------------------------------------------------------------------------------------- a known truth


def generated(
    raters: int,
    prompts: int,
    middle: float,
    *,
    rater_sd: float = 0.0,
    prompt_sd: float = 0.0,
    side: float = 0.0,
    tie: float = 0.0,
    seed: int = 0,
    methods: tuple[str, str] = ("a", "b"),
) -> list[Judgement]:
    """Judgements with a known truth: every rater compares two methods on every prompt.

    P(first method) = σ(middle + rater + prompt ± side), with a plus where the first method is on the left. The sides
    of a rater alternate, and so do those of a prompt. ``power.centre`` gives the ``middle`` of a share of all votes.

    Args:
        raters: the number of raters.
        prompts: the number of prompts.
        middle: the logit of an average rater on an average prompt.
        rater_sd: the standard deviation of raters, in logits.
        prompt_sd: the standard deviation of prompts, in logits.
        side: how much all raters lean to the left side, in logits.
        tie: the probability of a tie, whatever is compared.
        seed: the seed.
        methods: the names of the first and the second method.
    """
    rng = np.random.default_rng(seed)
    of_raters = rater_sd * rng.standard_normal((raters, 1))
    of_prompts = prompt_sd * rng.standard_normal((1, prompts))
    first_left = np.add.outer(np.arange(raters), np.arange(prompts)) % 2 == 0
    logits = middle + of_raters + of_prompts + np.where(first_left, side, -side)
    first_wins = rng.random((raters, prompts)) < 1 / (1 + np.exp(-logits))
    ties = rng.random((raters, prompts)) < tie
    rows = []
    for rater in range(raters):
        for prompt in range(prompts):
            left_is_first = bool(first_left[rater, prompt])
            sides = methods if left_is_first else methods[::-1]
            side_won: Choice = "left" if bool(first_wins[rater, prompt]) == left_is_first else "right"
            choice: Choice = "tie" if ties[rater, prompt] else side_won
            name = f"t{rater * prompts + prompt:05d}"
            rows.append(Judgement(rater_name(rater), f"p{prompt:03d}", MATCH, "comparison", *sides, choice, name))
    return rows
