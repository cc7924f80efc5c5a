"""What a study consists of: images, comparisons, trials, votes, and the judgements that are analysed.

A plan names methods, so raters never see it. What they see is made from it by `study/page` and `study/serve`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Kind = Literal["comparison", "repeat", "attention"]
Choice = Literal["left", "right", "tie"]
Reason = Literal["blackened", "not rendered", "equal images"]
Test = Literal["raters", "prompts", "votes", "both"]
RIGHT_ANSWER, WRONG_ANSWER = "right answer", "wrong answer"  # the sides of an attention check
MATCH = "match"  # the paper's question, and the only one that attention checks have a right answer to
QUESTIONS = {
    MATCH: "Which image shows better what was asked for?",
    "prefer": "Which image do you like better?",
    "artefacts": "Which image has fewer faults, such as broken shapes or smears?",
}


@dataclass(frozen=True, slots=True)
class StudyImage:
    """One image that raters see.

    Attributes:
        name: its id in the plan, such as ``i0007``; raters see another.
        method: the method whose rewrite it shows.
        prompt_id: the prompt that was rewritten.
        image_seed: the seed that it was rendered with.
        sha256: the SHA-256 of the PNG in the study's folder.
        rewrite: the text that it was rendered from; raters never see it.
    """

    name: str
    method: str
    prompt_id: str
    image_seed: int
    sha256: str
    rewrite: str


@dataclass(frozen=True, slots=True)
class Trial:
    """One pair of images in front of one rater.

    Attributes:
        name: its id in the plan, such as ``t00042``; raters see another.
        rater: the rater's number, from 0.
        position: its place in the rater's order, from 0.
        kind: a ``comparison`` of two methods; a ``repeat`` of an earlier one of the same rater with the sides
            swapped; or an ``attention`` check, where one image belongs to another prompt.
        prompt_id: the prompt that is shown above the images.
        left: the name of the left image.
        right: the name of the right image.
        repeats: the name of the trial that a ``repeat`` repeats; None for other kinds.
    """

    name: str
    rater: int
    position: int
    kind: Kind
    prompt_id: str
    left: str
    right: str
    repeats: str | None = None


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A comparison that no rater sees.

    Attributes:
        prompt_id: the prompt.
        methods: the two methods.
        reason: ``blackened``, where a safety checker made one of the images black; ``not rendered``, where one of them
            could not be rendered; or ``equal images``, where both have the same pixels, so that there is nothing to
            compare.
    """

    prompt_id: str
    methods: tuple[str, str]
    reason: Reason


@dataclass(frozen=True, slots=True)
class Exclusion:
    """Which raters' votes are not analysed; fixed before the first vote.

    Attributes:
        max_attention_failures: a rater with a larger share of failed attention checks is excluded, 0 to 1.
        min_consistency: a rater who repeats a smaller share of answers on repeats is excluded, 0 to 1; 0 excludes none.
        min_seconds: a rater whose median vote took less time is excluded, seconds; 0 excludes none.
    """

    max_attention_failures: float = 0.34
    min_consistency: float = 0.0
    min_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Analysis:
    """How the votes are analysed; fixed before the first vote.

    Attributes:
        primary: the question whose result is the study's.
        test: what the primary test counts as one observation: Wilcoxon's signed-rank test over the ``raters``' rates
            or over the ``prompts``' rates; the exact binomial test over all ``votes``, which is right only where
            neither raters nor prompts differ; or the t test over ``both`` raters and prompts, the only one that is
            about more raters and more prompts.
        level: the level of all intervals; the primary test's is 1 - level.
        resamples: how often the bootstrap resamples raters and prompts.
        seed: the seed of the bootstrap.
    """

    primary: str = MATCH
    test: Test = "both"
    level: float = 0.95
    resamples: int = 4000
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Power:
    """What the study can find: the power of its primary test for one pair of methods, by simulation.

    Attributes:
        effect: the assumed share of votes for the better method, over all raters and prompts, 0.5 to 1.
        rater_sd: the standard deviation of raters, in logits.
        prompt_sd: the standard deviation of prompts, in logits.
        power: the share of simulated studies whose test finds the difference.
        false_positives: the same share where there is no difference.
        simulations: the number of simulated studies.
    """

    effect: float
    rater_sd: float
    prompt_sd: float
    power: float
    false_positives: float
    simulations: int


@dataclass(frozen=True, slots=True)
class Plan:
    """A study, whole, before its first vote.

    Attributes:
        title: what raters read at the top.
        seed: the seed of sides, orders, repeats and checks.
        methods: the compared methods, the first pair's first.
        questions: question's name → its words.
        tie: the words of the third answer, or None where raters must choose a side.
        prompts: prompt_id → the user's prompt.
        images: all images, by name.
        trials: all trials, by rater and position.
        raters: number of raters.
        exclusion: which raters are not analysed.
        analysis: how votes are analysed.
        consent: what raters agree to before they begin.
        inputs: stage of the run → the SHA-256 of its manifest: which images the study shows.
        size: width and height of all images, pixels.
        resized: how images of other sizes were brought to this one; None where all had it.
        left_out: the comparisons that no rater sees.
        power: what the study can find.
        simulated: True where the raters are simulated, which every page and table then says.
    """

    title: str
    seed: int
    methods: tuple[str, ...]
    questions: Mapping[str, str]
    tie: str | None
    prompts: Mapping[str, str]
    images: tuple[StudyImage, ...]
    trials: tuple[Trial, ...]
    raters: int
    exclusion: Exclusion
    analysis: Analysis
    consent: str
    inputs: Mapping[str, str]
    size: tuple[int, int]
    resized: str | None = None
    left_out: tuple[LeftOut, ...] = ()
    power: Power | None = None
    simulated: bool = False


@dataclass(frozen=True, slots=True)
class Vote:
    """One rater's answer to one question about one trial. The sides are recorded with every vote.

    Attributes:
        trial: the trial's name in the plan.
        rater: the rater's number.
        question: the question's name.
        choice: the side that the rater chose, or ``tie``.
        left: the name of the image that was shown on the left.
        right: the name of the image that was shown on the right.
        seconds: time from showing both images to the answer.
        at: when it was stored, ISO 8601 in UTC.
    """

    trial: str
    rater: int
    question: str
    choice: Choice
    left: str
    right: str
    seconds: float
    at: str


@dataclass(frozen=True, slots=True)
class Judgement:
    """A vote with the methods behind the sides: what is analysed, and a row of ``judgements.csv``.

    Attributes:
        rater: the rater's name.
        prompt_id: the prompt.
        question: the question's name.
        kind: the trial's kind.
        left_method: the method of the left image; in an attention check, ``right answer`` or
            ``wrong answer``.
        right_method: the same of the right image.
        choice: the side, or ``tie``.
        trial: the trial's name.
        repeats: the trial that it repeats, or None.
        seconds: time of the answer, or None where it is not known.
    """

    rater: str
    prompt_id: str
    question: str
    kind: Kind
    left_method: str
    right_method: str
    choice: Choice
    trial: str
    repeats: str | None = None
    seconds: float | None = None
