"""Files of answers: what the page saves is stored once; what is wrong is refused by name, and nothing is stored."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from semdpo.errors import DataError, StoreError
from semdpo.study.blinding import rater_id, study_id, trials_of
from semdpo.study.collect import collect
from semdpo.study.design import Exclusion
from semdpo.study.plan import Study
from semdpo.study.votes import VoteStore, read_votes
from tests.study.studies import body, make

AT = "2026-01-01T10:00:00.123Z"


def _saved(study: Study, rater: int, trials: int = 4, **more: Any) -> dict[str, Any]:
    votes = [{**body(study, rater, trial), "at": AT} for trial in range(trials)]
    return {
        "format": "semdpo-study-votes", "version": 1, "study": study_id(study), "rater": rater_id(study, rater),
        "consented": AT, "votes": votes, **more,
    }  # fmt: skip


def _file(path: Path, content: Any) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_files_become_votes_once(study: Study, tmp_path: Path) -> None:
    early, late = _file(tmp_path / "early", _saved(study, 0, 2)), _file(tmp_path / "late", _saved(study, 0))
    other = _file(tmp_path / "other", _saved(study, 2, 1))
    assert collect(study, [early, late, other]) == {early: (0, 2, 2), late: (0, 4, 2), other: (2, 1, 1)}
    assert collect(study, [late]) == {late: (0, 4, 0)}
    votes = read_votes(study.folder, study_id(study))
    assert len(votes) == 5
    wanted = trials_of(study, 0)
    assert {vote.trial for vote in votes if vote.rater == 0} == {trial.name for trial in wanted}
    first = next(vote for vote in votes if vote.trial == wanted[0].name)
    assert (first.left, first.right, first.at) == (wanted[0].left, wanted[0].right, "2026-01-01T10:00:00.123+00:00")
    store = VoteStore(study.folder, study_id(study))
    assert [each.consented is not None for each in store.progress(3)] == [True, False, True]
    store.close()


def _vote(change: Callable[[dict[str, Any]], None]) -> Callable[[Study, dict[str, Any]], None]:
    return lambda _, saved: change(saved["votes"][1])


WRONG: dict[str, tuple[Callable[[Study, dict[str, Any]], Any], str]] = {
    "study": (lambda _, saved: saved.update(study="x"), "has answers to another study; give the study"),
    "rater": (lambda _, saved: saved.update(rater="x"), "is of a rater that this study does not have"),
    "consent": (lambda _, saved: saved.update(consented=None), "a rater who has not agreed to take part; leave it out"),
    "trial": (_vote(lambda vote: vote.update(trial="x" * 22)), "trial x+: this rater has no such trial; leave"),
    "another's trial": (lambda study, saved: saved["votes"].append({**body(study, 1), "at": AT}), "has no such trial"),
    "question": (_vote(lambda vote: vote.update(question="prefer")), "this study has no such question"),
    "sides": (_vote(lambda vote: vote.update(left=vote["right"], right=vote["left"])), "showed other images"),
    "twice": (lambda _, saved: saved["votes"].append({**saved["votes"][0], "seconds": 1.0}), "answers trial t.* twice"),
    "choice": (_vote(lambda vote: vote.update(choice="both")), r"votes\.1\.choice: "),
    "time": (_vote(lambda vote: vote.update(at="yesterday")), r"votes\.1\.at: "),
    "local time": (_vote(lambda vote: vote.update(at="2026-01-01T10:00:00")), r"votes\.1\.at: "),
    "seconds": (_vote(lambda vote: vote.update(seconds="2")), r"votes\.1\.seconds: "),
    "field": (lambda _, saved: saved.update(method="dpo"), r"method: extra inputs are not permitted"),
    "version": (lambda _, saved: saved.update(version=2), r"version: "),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_file_is_named_and_nothing_is_stored(name: str, study: Study, tmp_path: Path) -> None:
    spoil, wanted = WRONG[name]
    right, saved = _file(tmp_path / "right.json", _saved(study, 1)), _saved(study, 0)
    spoil(study, saved)
    wrong = _file(tmp_path / "wrong.json", saved)
    with pytest.raises(DataError, match=rf"wrong\.json.*{wanted}"):
        collect(study, [right, wrong])
    with pytest.raises(DataError, match="has no votes yet"):
        read_votes(study.folder, study_id(study))


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"a": 1, "a": 2}', "[" * 100_000, '{"votes": NaN}'])
def test_what_is_no_file_of_answers(text: str, study: Study, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no\.json is no file of answers"):
        collect(study, [_file(tmp_path / "no.json", text)])
    with pytest.raises(DataError, match=r"none\.json cannot be read"):
        collect(study, [tmp_path / "none.json"])


def test_answers_that_contradict_each_other(study: Study, tmp_path: Path) -> None:
    one, two = _saved(study, 0), _saved(study, 0)
    two["votes"][2].update(answer="another-answer-id", choice="right")
    first, second = _file(tmp_path / "first.json", one), _file(tmp_path / "second.json", two)
    name = trials_of(study, 0)[2].name
    wanted = rf"second\.json, trial {name}, question 'match': .*the first answer stands; nothing was stored"
    with pytest.raises(DataError, match=wanted):
        collect(study, [first, second])
    assert read_votes(study.folder, study_id(study)) == []
    collect(study, [first])
    with pytest.raises(DataError, match=wanted):
        collect(study, [second])


def test_a_closed_study_takes_no_files(study: Study, tmp_path: Path) -> None:
    store = VoteStore(study.folder, study_id(study))
    store.close_study()
    store.close()
    with pytest.raises(DataError, match=r"a\.json, .*this study is closed"):
        collect(study, [_file(tmp_path / "a.json", _saved(study, 0))])


def test_votes_of_another_study_in_the_folder(study: Study, tmp_path: Path) -> None:
    other = make(tmp_path / "other")
    VoteStore(study.folder, study_id(other)).close()
    with pytest.raises(StoreError, match="holds the votes of another study"):
        collect(study, [_file(tmp_path / "a.json", _saved(study, 0))])


def test_votes_belong_to_the_plan_that_was_fixed_before_them(study: Study, tmp_path: Path) -> None:
    file = _file(tmp_path / "a.json", _saved(study, 0))
    changed = replace(
        study, plan=replace(study.plan, exclusion=Exclusion(min_seconds=1.0))
    )  # after a look at the votes
    with pytest.raises(DataError, match="has answers to another study"):
        collect(changed, [file])
    collect(study, [file])
    with pytest.raises(StoreError, match="of this one before its plan was changed; restore the plan"):
        read_votes(study.folder, study_id(changed))
