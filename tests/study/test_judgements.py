"""Votes and tables become judgements; a fault names its row; raters are excluded by the plan's rules only."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from semdpo.errors import DataError
from semdpo.study.design import MATCH, RIGHT_ANSWER, WRONG_ANSWER, Exclusion, Judgement, Plan, Vote
from semdpo.study.judgements import chosen_method, exclude, judgements, read_judgements, write_judgements
from tests.study.example import plan

HEAD = "rater,prompt_id,left_method,right_method,choice"


@pytest.fixture(scope="module")
def made() -> Plan:
    return plan()


def _votes(made: Plan) -> list[Vote]:
    return [
        Vote(t.name, t.rater, question, "left", t.left, t.right, 2.5, "2026-01-01T00:00:00.000+00:00")
        for t in made.trials
        for question in made.questions
    ]


def test_votes_get_the_methods_of_their_sides_and_are_read_back(made: Plan, tmp_path: Path) -> None:
    rows = judgements(made, reversed(_votes(made)))
    images = {image.name: image for image in made.images}
    trials = {trial.name: trial for trial in made.trials}
    assert [(row.trial, row.question) for row in rows] == [(t.name, q) for t in made.trials for q in made.questions]
    for row in rows:
        trial = trials[row.trial]
        if row.kind == "attention":
            assert (row.left_method == RIGHT_ANSWER) == (images[trial.left].prompt_id == trial.prompt_id)
            assert {row.left_method, row.right_method} == {RIGHT_ANSWER, WRONG_ANSWER}
        else:
            assert (row.left_method, row.right_method) == (images[trial.left].method, images[trial.right].method)
    for suffix in ("csv", "jsonl", "parquet", "tsv"):
        write_judgements(tmp_path / f"judgements.{suffix}", rows)
        assert read_judgements(tmp_path / f"judgements.{suffix}") == rows


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"trial": "t99999"}, "the plan does not have"),
        ({"question": "other"}, "the plan does not have"),
        ({"rater": 3}, "another rater or other images"),
        ({"left": "i0000", "right": "i0000"}, "another rater or other images"),
        ({"choice": "tie"}, "as a tie"),
    ],
)
def test_a_vote_of_another_study_is_refused(change: dict[str, object], words: str) -> None:
    made = plan(tie=None)
    votes = _votes(made)
    with pytest.raises(DataError, match=words):
        judgements(made, [replace(votes[0], **change)])  # type: ignore[arg-type]


def test_a_question_is_answered_once(made: Plan) -> None:
    votes = _votes(made)
    with pytest.raises(DataError, match="twice; give the votes of this study only"):
        judgements(made, [votes[0], replace(votes[0], choice="right")])


def test_a_table_from_elsewhere_needs_five_columns(tmp_path: Path) -> None:
    file = tmp_path / "table.csv"
    file.write_text(f"{HEAD}\nanna,p1,a,b,left\nanna,p2,b,a,tie\nben,p1,b,a,right\n")
    rows = read_judgements(file)
    assert rows[0] == Judgement("anna", "p1", MATCH, "comparison", "a", "b", "left", "line 2")
    assert [chosen_method(row) for row in rows] == ["a", None, "a"]


@pytest.mark.parametrize(
    ("head", "row", "words"),
    [
        (HEAD.replace("choice", "chosen"), "r,p,a,b,left", "no column 'choice'"),
        (HEAD, "r,p,a,b,Left", "line 2: 'choice' is 'Left'; did you mean 'left'"),
        (HEAD, "r,p,a,a,left", "line 2: both sides show the method 'a'; remove the row"),
        (HEAD, ",p,a,b,left", "line 2: 'rater' is empty"),
        (HEAD, "r,p,a,b,left\nr,p,b,a,left", "line 3: the same answer is in line 2"),
        (f"{HEAD},kind", "r,p,a,b,left,other", "line 2: 'kind' is 'other'; known: attention, comparison, repeat"),
        (f"{HEAD},kind", "r,p,a,b,left,attention", "line 2: an attention check, and nothing else"),
        (HEAD, f"r,p,{RIGHT_ANSWER},{WRONG_ANSWER},left", "line 2: an attention check, and nothing else"),
        (f"{HEAD},kind", "r,p,a,b,left,repeat", "line 2: a repeat, and nothing else"),
        (f"{HEAD},trial,repeats", "r,p,a,b,left,t1,t0", "line 2: a repeat, and nothing else"),
        (f"{HEAD},kind,trial,repeats", "r,p,a,b,left,repeat,t1,t0", "line 2: the rater 'r' has no comparison 't0'"),
        (
            f"{HEAD},kind,trial,repeats",
            "r,p,a,b,left,comparison,t0,\nr,q,a,b,left,repeat,t1,t0",
            "line 3: its prompt or methods are not those of 't0'",
        ),
        (f"{HEAD},trial", "r,p,a,b,left,t1\nr,q,a,b,left,t1", "line 3: the same answer is in line 2"),
        (f"{HEAD},seconds", "r,p,a,b,left,-1", "line 2: 'seconds' is -1"),
        (f"{HEAD},seconds", "r,p,a,b,left,soon", "line 2: 'seconds' must be a number"),
    ],
)
def test_a_fault_of_a_table_is_refused_by_its_row(head: str, row: str, words: str, tmp_path: Path) -> None:
    file = tmp_path / "table.csv"
    file.write_text(f"{head}\n{row}\n")
    with pytest.raises(DataError) as caught:
        read_judgements(file)
    assert words in str(caught.value)


def test_two_images_of_a_prompt_are_told_apart_by_their_trials(tmp_path: Path) -> None:
    file = tmp_path / "table.csv"
    file.write_text(f"{HEAD},trial\nr,p,a,b,left,seed 0\nr,p,a,b,left,seed 1\n")
    assert len(read_judgements(file)) == 2


def _check(rater: str, k: int, choice: str, question: str = MATCH) -> Judgement:
    return Judgement(rater, f"p{k}", question, "attention", RIGHT_ANSWER, WRONG_ANSWER, choice, f"c{k}")  # type: ignore[arg-type]


def test_attention_checks_exclude_by_share_and_a_tie_is_a_failure() -> None:
    rows = [
        *(_check("good", k, "left") for k in range(2)), _check("good", 2, "right"),
        _check("good", 3, "right", "prefer"),
        *(_check("bad", k, "left") for k in range(3)), _check("bad", 3, "tie"), _check("bad", 4, "right"),
    ]  # fmt: skip
    kept = exclude(rows, Exclusion(max_attention_failures=0.34))
    assert kept.reasons == {"bad": "failed 2 of 5 attention checks"}
    assert kept.judgements == [row for row in rows if row.rater == "good"]
    assert exclude(rows, Exclusion(max_attention_failures=0.4)).reasons == {}


def test_repeats_exclude_by_method_and_not_by_side() -> None:
    first = Judgement("r", "p", MATCH, "comparison", "a", "b", "left", "t0")
    same = Judgement("r", "p", MATCH, "repeat", "b", "a", "right", "t1", "t0")
    other = replace(same, choice="left")
    assert exclude([first, same], Exclusion(min_consistency=1.0)).reasons == {}
    assert exclude([first, other], Exclusion(min_consistency=0.5)).reasons == {
        "r": "gave the same answer again on 0 of 1 repeats"
    }
    assert exclude([first, other], Exclusion()).reasons == {}


def test_fast_raters_are_excluded_by_their_median_and_times_must_be_known() -> None:
    rows = [
        Judgement("r", f"p{k}", MATCH, "comparison", "a", "b", "left", f"t{k}", None, s)
        for k, s in enumerate((1, 1, 9))
    ]
    assert exclude(rows, Exclusion(min_seconds=1.5)).reasons == {"r": "took 1 s for half of the answers or less"}
    assert exclude(rows, Exclusion(min_seconds=1.0)).reasons == {}
    with pytest.raises(DataError, match="give the column 'seconds'"):
        exclude([replace(row, seconds=None) for row in rows], Exclusion(min_seconds=1.5))
