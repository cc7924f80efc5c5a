"""All statistics of a study: for every question and pair of methods, for every question, and for the study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from semdpo.analysis.statistics import Estimate, holm
from semdpo.errors import DataError, did_you_mean
from semdpo.study.analysis.agreement import alpha
from semdpo.study.analysis.attention import failures
from semdpo.study.analysis.bootstrap import bootstrap
from semdpo.study.analysis.consistency import Consistency, consistency
from semdpo.study.analysis.groups import Groups, groups
from semdpo.study.analysis.mixed import Mixed, mixed
from semdpo.study.analysis.rates import pairs_of_methods, rates
from semdpo.study.analysis.scorers import ScorerAgreement, Scores, scorer_agreement
from semdpo.study.analysis.sides import Sides, sides
from semdpo.study.analysis.strengths import strengths
from semdpo.study.analysis.totals import Totals, totals
from semdpo.study.analysis.two_way import TwoWay, two_way
from semdpo.study.design import Analysis, Exclusion, Judgement
from semdpo.study.judgements import exclude

STRENGTHS = 1000  # resamples of the Bradley–Terry strengths, each of which is fitted


@dataclass(frozen=True, slots=True)
class PairResult:
    """One question about one pair of methods; all shares are of the first.

    Attributes:
        question: the question's name.
        first: the first method.
        second: the second method.
        totals: the votes, counted.
        raters: the rates of raters.
        prompts: the rates of prompts.
        both: the share over raters and prompts, its interval and test.
        bootstrap: the same share with an interval by resampling raters and prompts.
        mixed: the same by a mixed model, or why there is none.
        sides: choices by side.
    """

    question: str
    first: str
    second: str
    totals: Totals
    raters: Groups
    prompts: Groups
    both: TwoWay
    bootstrap: Estimate
    mixed: Mixed | str
    sides: Sides

    def p(self, test: str) -> float:
        """The p-value of a test in the plan's words: over ``raters``, ``prompts``, ``votes``, or ``both``."""
        return {
            "raters": self.raters.p_wilcoxon,
            "prompts": self.prompts.p_wilcoxon,
            "votes": self.totals.p,
            "both": self.both.p,
        }[test]

    def leads(self, test: str) -> bool:
        """Whether a test, in the plan's words, speaks for the first method.

        The share of all votes may do otherwise: a test over raters counts each of them once, however often they voted.
        """
        return {
            "raters": self.raters.lead > 0,
            "prompts": self.prompts.lead > 0,
            "votes": self.totals.first > self.totals.second,
            "both": self.both.share > 0.5,
        }[test]


@dataclass(frozen=True, slots=True)
class Results:
    """A study's statistics.

    Attributes:
        analysis: the settings.
        rows: the judgements that were analysed.
        raters: number of raters before any was excluded.
        excluded: rater → why it is not analysed.
        attention: rater → failed and all attention checks, of all raters.
        pairs: one result for each question and pair; the primary question's first.
        corrected: p-values of the primary test, Holm's correction over the pairs of the primary question, by pair.
        consistency: question → answers to repeats; only questions with repeats.
        alpha: question → Krippendorff's alpha; None where it is not defined.
        strengths: question → Bradley–Terry strengths; only questions with three or more methods.
        scorers: scorer → its agreement with people on the primary question; None where people have no majority.
    """

    analysis: Analysis
    rows: Sequence[Judgement]
    raters: int
    excluded: Mapping[str, str]
    attention: Mapping[str, tuple[int, int]]
    pairs: Sequence[PairResult]
    corrected: Mapping[tuple[str, str], float]
    consistency: Mapping[str, Consistency]
    alpha: Mapping[str, float | None]
    strengths: Mapping[str, Mapping[str, Estimate]]
    scorers: Mapping[str, ScorerAgreement | None]

    @property
    def primary(self) -> list[PairResult]:
        """The results of the primary question."""
        return [pair for pair in self.pairs if pair.question == self.analysis.primary]


def analyse(
    rows: Sequence[Judgement],
    analysis: Analysis,
    exclusion: Exclusion,
    *,
    methods: Sequence[str] = (),
    scores: Mapping[str, Scores] | None = None,
) -> Results:
    """Computes all statistics of a study.

    Args:
        rows: all judgements, of all raters.
        analysis: the settings.
        exclusion: which raters are excluded.
        methods: methods that come first in pairs, in this order.
        scores: scorer → its scores of the images that people saw.

    Raises:
        DataError: no votes are left, the primary question has none, a pair has fewer than two raters or prompts, or
            scores are missing.
        ConfigError: the extra ``study`` is not installed.
    """
    kept = exclude(rows, exclusion)
    own = kept.judgements
    everyone = len({row.rater for row in rows})
    questions = sorted({row.question for row in own if row.kind == "comparison"})
    if not questions:
        why = f"all {everyone} raters are excluded" if everyone else "there are no judgements"
        raise DataError(f"{why}, so nothing can be analysed; collect more votes")
    if analysis.primary not in questions:
        raise DataError(
            f"nobody answered the primary question '{analysis.primary}'{did_you_mean(analysis.primary, questions)}"
        )
    questions.sort(key=lambda name: name != analysis.primary)
    pairs = [_pair(own, name, pair, analysis) for name in questions for pair in _pairs(own, name, methods)]
    primary = [pair for pair in pairs if pair.question == analysis.primary]
    corrected = holm([pair.p(analysis.test) for pair in primary])
    fits = {name: strengths(own, name, level=analysis.level, count=STRENGTHS, seed=analysis.seed) for name in questions}
    repeated = {name: consistency(own, name, level=analysis.level) for name in questions}
    return Results(
        analysis=analysis,
        rows=own,
        raters=everyone,
        excluded=kept.reasons,
        attention=failures(rows),
        pairs=pairs,
        corrected={(pair.first, pair.second): p for pair, p in zip(primary, corrected, strict=True)},
        consistency={name: found for name, found in repeated.items() if found is not None},
        alpha={name: alpha(own, name) for name in questions},
        strengths={name: fit for name, fit in fits.items() if fit is not None},
        scorers={
            scorer: scorer_agreement(
                own, analysis.primary, of, level=analysis.level, count=analysis.resamples, seed=analysis.seed
            )
            for scorer, of in (scores or {}).items()
        },
    )


def _pairs(rows: Sequence[Judgement], question: str, methods: Sequence[str]) -> list[tuple[str, str]]:
    return pairs_of_methods([row for row in rows if row.question == question], methods)


def _pair(rows: Sequence[Judgement], question: str, pair: tuple[str, str], analysis: Analysis) -> PairResult:
    level, votes = analysis.level, rates(rows, question, pair)
    return PairResult(
        question,
        *pair,
        totals=totals(rows, question, pair, level=level),
        raters=groups(votes, "raters"),
        prompts=groups(votes, "prompts"),
        both=two_way(votes, level=level),
        bootstrap=bootstrap(votes, level=level, count=analysis.resamples, seed=analysis.seed),
        mixed=mixed(rows, question, pair, level=level),
        sides=sides(rows, question, pair, level=level),
    )
