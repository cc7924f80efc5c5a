"""Reads the files of answers that raters saved from the page of a folder, and stores them as votes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from semdpo import disk
from semdpo.errors import DataError
from semdpo.study.answers import Answer, Seat, seat, vote_of
from semdpo.study.blinding import rater_id, study_id
from semdpo.study.design import Vote
from semdpo.study.plan import Study
from semdpo.study.votes import RefusedVoteError, VoteStore
from semdpo.texts import given_twice
from semdpo.web import strict_json
from semdpo.web.errors import RefusedError

LARGEST = 64 * 2**20  # bytes of a file of answers


class _SavedAnswer(Answer):
    """An answer with the time at which the browser kept it."""

    at: AwareDatetime = Field(strict=False)


class _SavedAnswers(BaseModel):
    """A file of answers, as offline.js saves it."""

    model_config = ConfigDict(extra="forbid", strict=True)

    format: Literal["semdpo-study-votes"]
    version: Literal[1]
    study: str
    rater: str
    consented: AwareDatetime | None = Field(strict=False)
    votes: list[_SavedAnswer]


def collect(study: Study, files: Sequence[Path]) -> dict[Path, tuple[int, int, int]]:
    """Stores the answers of files: all of them, or none where any file is refused.

    Args:
        study: the study.
        files: files that raters saved. A file may be given again, and a later one may repeat an earlier one's answers.

    Returns:
        The file → its rater, its number of answers, and how many of them were new.

    Raises:
        DataError: a file cannot be read, belongs to another study, names an unknown rater or trial, has an answer
            twice, another answer than one that is stored, or comes from a rater who did not agree.
        StoreError: the votes cannot be stored.
    """
    seats = {rater_id(study, rater): seat(study, rater) for rater in range(study.plan.raters)}
    read = {file: _read(study, file, seats) for file in files}
    store = VoteStore(study.folder, study_id(study))
    try:
        before = {(vote.trial, vote.question) for vote in store.votes()}
        _store(store, read)
    finally:
        store.close()
    found = {}
    for file, (rater, _, votes) in read.items():
        keys = {(vote.trial, vote.question) for vote, _ in votes}
        found[file] = (rater, len(votes), len(keys - before))
        before |= keys
    return found


_Read = tuple[int, str, list[tuple[Vote, str]]]  # the rater, when they agreed, and their votes with answer ids


def _store(store: VoteStore, read: dict[Path, _Read]) -> None:
    try:
        store.add([each for _, _, votes in read.values() for each in votes])
        for rater, consented, _ in read.values():
            store.consent(rater, consented)
    except RefusedVoteError as error:
        file = next((file for file, (_, _, votes) in read.items() if (error.vote, error.answer) in votes), None)
        if file is None:
            raise
        raise DataError(f"{file}, {_named(error.vote)}: {error}; nothing was stored") from error


def _named(vote: Vote | None) -> str:
    return "" if vote is None else f"trial {vote.trial}, question '{vote.question}'"


def _read(study: Study, file: Path, seats: dict[str, Seat]) -> _Read:
    saved = _parsed(file)
    if saved.study != study_id(study):
        raise DataError(f"{file} has answers to another study; give the study that the page was made from")
    place = seats.get(saved.rater)
    if place is None:
        raise DataError(f"{file} is of a rater that this study does not have; give the file as the page saved it")
    if saved.consented is None:
        raise DataError(f"{file} is of a rater who has not agreed to take part; leave it out")
    votes = []
    for each in saved.votes:
        answer = Answer.model_validate(each.model_dump(exclude={"at"}))
        try:
            votes.append((vote_of(study, place, answer, _utc(each.at)), answer.answer))
        except DataError as error:
            raise DataError(
                f"{file}, trial {each.trial}: {str(error).partition(';')[0]}; leave the file out"
            ) from error
    if twice := given_twice(f"trial {vote.trial}, question '{vote.question}'" for vote, _ in votes):
        raise DataError(f"{file} answers {twice} twice; give the file as the page saved it")
    return place.rater, _utc(saved.consented), votes


def _parsed(file: Path) -> _SavedAnswers:
    try:
        data = disk.read(file, LARGEST + 1)
    except OSError as error:
        raise DataError(f"{file} cannot be read ({error.strerror}); check the path and its permissions") from error
    if len(data) > LARGEST:
        raise DataError(f"{file} is larger than {LARGEST // 2**20} MB; it is no file of answers")
    try:
        return _SavedAnswers.model_validate(strict_json.parse(data))
    except RefusedError as error:
        raise DataError(f"{file} is no file of answers ({error.message.partition(';')[0]})") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))[:100]
        raise DataError(
            f"{file} is no file of answers as the page saves it ({where}: {first['msg'].lower()}); ask for another"
        ) from error


def _utc(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="milliseconds")
