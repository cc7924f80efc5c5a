"""Votes become preference pairs, which ``semdpo weigh`` and ``semdpo train`` read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from semdpo.data.records import Pair, content_id
from semdpo.errors import DataError, did_you_mean
from semdpo.study.design import Judgement, Plan
from semdpo.study.judgements import chosen_method
from semdpo.texts import shown, trimmed


@dataclass(frozen=True, slots=True)
class StudyPairs:
    """Preference pairs of a study.

    Attributes:
        pairs: one for each prompt and pair of methods that a majority decided. ``chosen_score`` and
            ``rejected_score`` are the shares of the votes for each side, in which a tie counts half for each.
        votes: the number of votes behind each pair, ties included, [n].
        methods: the method of the chosen and of the rejected rewrite of each pair, [n].
        ties: how many prompts and pairs of methods have no majority.
        same: how many have a majority, but one and the same rewrite on both sides, so that they teach nothing.
    """

    pairs: list[Pair]
    votes: list[int]
    methods: list[tuple[str, str]]
    ties: int
    same: int


def pairs_of_study(plan: Plan, judgements: Sequence[Judgement], question: str) -> StudyPairs:
    """Preference pairs by the majority of the votes on each prompt and pair of methods.

    Args:
        plan: the plan, which has the rewrites.
        judgements: the judgements that are kept; only comparisons are votes.
        question: the question whose votes count.

    Raises:
        DataError: there are no votes on this question, or votes on what the study does not show.
    """
    votes: dict[tuple[str, str, str], list[str | None]] = {}
    for row in judgements:
        if row.kind == "comparison" and row.question == question:
            first, second = sorted((row.left_method, row.right_method))
            votes.setdefault((row.prompt_id, first, second), []).append(chosen_method(row))
    if not votes:
        raise DataError(f"there are no votes on the question '{question}'{did_you_mean(question, plan.questions)}")
    rewrites = {(image.prompt_id, image.method): image.rewrite for image in plan.images}
    found = StudyPairs([], [], [], 0, 0)
    ties = same = 0
    for prompt_id, first, second in sorted(votes):
        given = Counter(votes[prompt_id, first, second])
        if given[first] == given[second]:
            ties += 1
            continue
        better, worse = (first, second) if given[first] > given[second] else (second, first)
        if missing := [method for method in (better, worse) if (prompt_id, method) not in rewrites]:
            raise DataError(
                f"the study has no image of method {shown(missing[0])} for prompt {shown(prompt_id)}; give the judgements "
                "of this study"
            )
        chosen, rejected = trimmed(rewrites[prompt_id, better]), trimmed(rewrites[prompt_id, worse])
        if chosen == rejected:
            same += 1
            continue
        prompt, number = plan.prompts[prompt_id], given.total()
        share = (given[better] + given[None] / 2) / number
        found.pairs.append(Pair(content_id(prompt, chosen, rejected), prompt, chosen, rejected, share, 1 - share))
        found.votes.append(number)
        found.methods.append((better, worse))
    return StudyPairs(found.pairs, found.votes, found.methods, ties, same)
