"""Votes become preference pairs, which ``semdpo weigh`` and ``semdpo train`` read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
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
        pairs: one for each prompt and two rewrites that a majority decided. ``chosen_score`` and ``rejected_score``
            are the shares of the votes for each side; a tie is half a vote for each.
        votes: the number of votes behind each pair, ties included, [n].
        methods: the methods of the chosen and of the rejected rewrite of each pair, joined by commas, [n].
        ties: on how many prompts and rewrites there is no majority.
        same: how many votes compared two images of one rewrite, which teach nothing.
    """

    pairs: list[Pair]
    votes: list[int]
    methods: list[tuple[str, str]]
    ties: int
    same: int


def pairs_of_study(plan: Plan, judgements: Sequence[Judgement], question: str) -> StudyPairs:
    """Preference pairs by the majority of the votes on each prompt and two rewrites.

    Where two methods have the same rewrite of a prompt, their votes against a third one are counted together, because
    a pair that is there twice would count twice in training.

    Args:
        plan: the plan, which has the rewrites.
        judgements: the judgements that are kept; only comparisons are votes.
        question: the question whose votes count.

    Raises:
        DataError: there are no votes on this question, or votes on what the study does not show.
    """
    own = [row for row in judgements if row.kind == "comparison" and row.question == question]
    if not own:
        raise DataError(f"there are no votes on the question '{question}'{did_you_mean(question, plan.questions)}")
    rewrites = {(image.prompt_id, image.method): trimmed(image.rewrite) for image in plan.images}
    votes: dict[tuple[str, str, str], Counter[str | None]] = {}
    methods: dict[tuple[str, str], set[str]] = {}
    same = 0
    for row in own:
        sides = [_rewrite(rewrites, row.prompt_id, method) for method in (row.left_method, row.right_method)]
        if sides[0] == sides[1]:
            same += 1
            continue
        for method, rewrite in zip((row.left_method, row.right_method), sides, strict=True):
            methods.setdefault((row.prompt_id, rewrite), set()).add(method)
        first, second = sorted(sides)
        chosen = chosen_method(row)
        given = votes.setdefault((row.prompt_id, first, second), Counter())
        given[None if chosen is None else rewrites[row.prompt_id, chosen]] += 1
    decided = {key: given for key, given in votes.items() if given[key[1]] != given[key[2]]}
    found = StudyPairs([], [], [], len(votes) - len(decided), same)
    for (prompt_id, first, second), given in sorted(decided.items(), key=lambda entry: entry[0]):
        better, worse = (first, second) if given[first] > given[second] else (second, first)
        prompt, number = plan.prompts[prompt_id], given.total()
        share = (given[better] + given[None] / 2) / number
        found.pairs.append(Pair(content_id(prompt, better, worse), prompt, better, worse, share, 1 - share))
        found.votes.append(number)
        names = [", ".join(sorted(methods[prompt_id, rewrite])) for rewrite in (better, worse)]
        found.methods.append((names[0], names[1]))
    return found


def _rewrite(rewrites: Mapping[tuple[str, str], str], prompt_id: str, method: str) -> str:
    if (prompt_id, method) not in rewrites:
        raise DataError(
            f"the study has no image of method {shown(method)} for prompt {shown(prompt_id)}; give the judgements of "
            "this study"
        )
    return rewrites[prompt_id, method]
