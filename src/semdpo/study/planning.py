"""Plans a study of a finished run: which images are compared, by whom, and how the votes will be analysed."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import NamedTuple

from semdpo.engine.stage import Run
from semdpo.engine.store import digest
from semdpo.errors import ConfigError, DataError, did_you_mean
from semdpo.study.assignment import Check, Item, assign, drawn
from semdpo.study.design import MATCH, QUESTIONS, Analysis, Exclusion, LeftOut, Plan, Reason, StudyImage
from semdpo.study.encoding import RESIZED
from semdpo.study.from_run import Evaluated, Key, read_evaluated
from semdpo.study.power import Assumptions, power
from semdpo.texts import half_character, is_visible

TITLE = "Which image fits better?"
CONSENT = (
    "You will see requests with two images each, and answer questions about them. Your answers and the time they take "
    "are stored without your name and used for research. You can stop at any time by closing the page."
)
CHECKS = 0.07  # attention checks as a share of a rater's comparisons
_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class StudySettings:
    """What a user chooses of a study.

    Attributes:
        methods: two methods or more; every pair of them is compared. Empty takes the two that the run's report
            compares first.
        raters: the number of raters.
        prompts: the number of prompts, which are drawn; None takes all.
        prompts_per_rater: the number of prompts of one rater; None is all.
        questions: question's name → its words.
        tie: the words of the third answer; None where raters must choose a side.
        repeats: the share of a rater's comparisons that are shown again, 0 to 0.5.
        attention: the number of a rater's attention checks; None is 7% of the comparisons, at least one.
        title: what raters read at the top.
        consent: what they agree to.
        seed: the seed of all draws.
        exclusion: which raters are not analysed.
        analysis: how votes are analysed.
        assumptions: what the power is computed for.
        simulated: whether the raters are simulated.
    """

    methods: Sequence[str] = ()
    raters: int = 9
    prompts: int | None = None
    prompts_per_rater: int | None = None
    questions: Mapping[str, str] = field(default_factory=lambda: {MATCH: QUESTIONS[MATCH]})
    tie: str | None = None
    repeats: float = 0.1
    attention: int | None = None
    title: str = TITLE
    consent: str = CONSENT
    seed: int = 0
    exclusion: Exclusion = field(default_factory=Exclusion)
    analysis: Analysis = field(default_factory=Analysis)
    assumptions: Assumptions = field(default_factory=Assumptions)
    simulated: bool = False


class Planned(NamedTuple):
    """A plan and its images, SHA-256 → PNG."""

    plan: Plan
    images: dict[str, bytes]


def make_plan(run: Run, settings: StudySettings) -> Planned:
    """Plans a study.

    Args:
        run: a run whose evaluation is finished.
        settings: what the user chose.

    Returns:
        The plan and its images. Equal runs and settings give equal bytes of both.

    Raises:
        ConfigError: a setting is out of range, or does not fit the run or another setting.
        StoreError: the evaluation of a method is not finished, or damaged.
        DataError: the methods' images cannot be paired, or there are no two images to compare.
    """
    refuse_unfit(settings)
    shown = read_evaluated(run, settings.methods, settings.prompts, settings.seed)
    pairs, left_out = _comparisons(shown)
    used = list(dict.fromkeys((prompt_id, method) for prompt_id, pair in pairs for method in pair))
    names = {key: f"i{place:04d}" for place, key in enumerate(used)}
    items = [Item(prompt_id, (a, b), (names[prompt_id, a], names[prompt_id, b])) for prompt_id, (a, b) in pairs]
    prompts = {prompt_id: shown.rows[prompt_id, pair[0]].prompt for prompt_id, pair in pairs}
    each = _prompts_of_each(settings, len(prompts))
    checks = _checks(shown, names, settings.seed) if MATCH in settings.questions else []
    number = _number_of_checks(settings, each * len(items) / len(prompts), len(checks))
    plan = Plan(
        title=settings.title,
        seed=settings.seed,
        methods=shown.methods,
        questions=dict(settings.questions),
        tie=settings.tie,
        prompts=prompts,
        images=tuple(_image(shown, key, name) for key, name in names.items()),
        trials=tuple(assign(items, checks, settings.raters, each, settings.repeats, number, settings.seed)),
        raters=settings.raters,
        exclusion=settings.exclusion,
        analysis=settings.analysis,
        consent=settings.consent,
        inputs=shown.inputs,
        size=shown.size,
        resized=RESIZED if shown.resized else None,
        left_out=tuple(left_out),
        power=power(settings.raters, len(prompts), each, settings.analysis, settings.assumptions),
        simulated=settings.simulated,
    )
    return Planned(plan, {digest(shown.pngs[key]): shown.pngs[key] for key in used})


def _image(shown: Evaluated, key: Key, name: str) -> StudyImage:
    row = shown.rows[key]
    return StudyImage(name, key[1], row.prompt_id, row.image_seed, digest(shown.pngs[key]), row.rewrite)


def refuse_unfit(settings: StudySettings) -> None:
    """Refuses settings that fit no run.

    Raises:
        ConfigError: one is out of range, or does not fit another one.
    """
    texts = {"--title": settings.title, "--consent": settings.consent, "--tie": settings.tie}
    texts |= {f"the question '{name}'": words for name, words in settings.questions.items()}
    for option, text in texts.items():
        if text is not None and (not is_visible(text) or half_character(text)):
            raise ConfigError(f"{option} has no readable words; write what raters shall read")
    if not settings.questions:
        raise ConfigError(f"a study needs a question; give --question, such as {MATCH}")
    if settings.analysis.primary not in settings.questions:
        hint = did_you_mean(settings.analysis.primary, settings.questions)
        raise ConfigError(f"--primary is '{settings.analysis.primary}', which no rater is asked{hint}")
    if settings.attention and MATCH not in settings.questions:
        raise ConfigError(f"attention checks have a right answer to the question {MATCH} only; ask it, or set none")


def _comparisons(shown: Evaluated) -> tuple[list[tuple[str, tuple[str, str]]], list[LeftOut]]:
    """Prompt and pair of what is compared, and what is left out.

    Raises:
        DataError: all are left out.
    """
    kept, left_out = [], []
    for prompt_id in shown.prompts:
        for pair in combinations(shown.methods, 2):
            images = [shown.pngs.get((prompt_id, method)) for method in pair]
            reason: Reason | None = "equal images" if images[0] == images[1] else None
            reason = "blackened" if None in images else reason
            reason = "not rendered" if any((prompt_id, method) in shown.unrendered for method in pair) else reason
            if reason is None:
                kept.append((prompt_id, pair))
            else:
                left_out.append(LeftOut(prompt_id, pair, reason))
    if not kept:
        raise DataError(
            f"no rater could compare anything: for {len(shown.prompts)} prompts all images are black, missing or "
            "equal; compare other methods, or evaluate more prompts"
        )
    return kept, left_out


def _prompts_of_each(settings: StudySettings, prompts: int) -> int:
    each = settings.prompts_per_rater
    if each is not None and each > prompts:
        raise ConfigError(f"--prompts-per-rater is {each}, but only {prompts} prompts can be compared; give fewer")
    return each or prompts


def _number_of_checks(settings: StudySettings, comparisons: float, possible: int) -> int:
    """The number of a rater's attention checks.

    Raises:
        ConfigError: there are fewer.
    """
    wanted = settings.attention
    if wanted is None:
        return min(possible, max(1, round(CHECKS * comparisons)))
    if wanted > possible:
        raise ConfigError(
            f"--attention is {wanted}, but only {possible} prompts can be checked, each with the image of another "
            "prompt; give fewer"
        )
    return wanted


def _checks(shown: Evaluated, names: Mapping[Key, str], seed: int) -> list[Check]:
    """An attention check for every prompt that has one.

    The right answer is the image whose rewrite is nearest to the prompt, because an image of a rewrite that left its
    prompt would be no right answer. The wrong one is the same method's, of the prompt with fewest words in common.
    """
    checks = []
    words = {key[0]: set(_WORD.findall(shown.rows[key].prompt.lower())) for key in names}
    for prompt_id in words:
        own = [key for key in names if key[0] == prompt_id]
        right = min(own, key=lambda key: (shown.rows[key].distance, names[key]))
        others = [key for key in names if key[1] == right[1] and shown.pngs[key] != shown.pngs[right]]
        others = [key for key in others if words[key[0]] != words[prompt_id]]
        if others:
            wrong = min(others, key=lambda key: (_common(words, prompt_id, key[0]), drawn(seed, "wrong", *key)))
            checks.append(Check(prompt_id, names[right], names[wrong]))
    return checks


def _common(words: Mapping[str, set[str]], one: str, other: str) -> float:
    """The share of words that two prompts have in common."""
    return len(words[one] & words[other]) / max(1, len(words[one] | words[other]))
