"""The file of votes: each is stored once and first answers stand, whatever a client, a disk or another process does."""

from __future__ import annotations

import resource
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from semdpo.errors import DataError, StoreError
from semdpo.study.design import Vote
from semdpo.study.plan import VOTES
from semdpo.study.votes import RaterProgress, RefusedVoteError, VoteStore, read_votes

VOTE = Vote("t00001", 0, "match", "left", "i0001", "i0002", 1.5, "2026-01-01T00:00:00.000+00:00")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[VoteStore]:
    opened = VoteStore(tmp_path, "study")
    yield opened
    opened.close()


def _vote(number: int, **changes: object) -> tuple[Vote, str]:
    return replace(VOTE, trial=f"t{number:05d}", **changes), f"answer{number:010d}"  # type: ignore[arg-type]


def test_a_vote_is_stored_once_and_whole(store: VoteStore, tmp_path: Path) -> None:
    assert store.add([(VOTE, "answer")]) == 1
    assert store.add([(VOTE, "answer")]) == 0, "the page repeats what it does not know to be stored"
    assert store.votes() == [VOTE]
    assert read_votes(tmp_path, "study") == [VOTE]
    assert store.answered(0) == {"t00001": ["match"]}
    assert store.answered(1) == {}
    assert store.progress(2) == [RaterProgress(None, 1, VOTE.at), RaterProgress()]


def test_the_first_answer_stands(store: VoteStore) -> None:
    store.add([(VOTE, "answer")])
    for other, answer in ((VOTE, "another"), (replace(VOTE, choice="right"), "answer"), (_vote(2)[0], "answer")):
        with pytest.raises(RefusedVoteError):
            store.add([(other, answer)])
    assert store.votes() == [VOTE]


def test_votes_are_stored_together_or_not_at_all(store: VoteStore) -> None:
    store.add([_vote(3)])
    with pytest.raises(RefusedVoteError, match="the first answer stands"):
        store.add([_vote(1), _vote(2), (_vote(3)[0], "another answer")])
    assert [vote.trial for vote in store.votes()] == ["t00003"]


def test_a_closed_study_takes_no_votes_and_still_knows_its_own(store: VoteStore) -> None:
    store.add([(VOTE, "answer")])
    assert store.closed_at is None
    store.close_study()
    closed = store.closed_at
    store.close_study()
    assert closed is not None
    assert store.closed_at == closed
    assert store.add([(VOTE, "answer")]) == 0
    with pytest.raises(RefusedVoteError, match="closed"):
        store.add([_vote(2)])
    with pytest.raises(RefusedVoteError, match="closed"):
        store.consent(0, VOTE.at)


def test_consent_is_recorded_once(store: VoteStore) -> None:
    assert not store.consented(0)
    store.consent(0, "2026-01-01")
    store.consent(0, "2026-01-02")
    assert store.progress(1)[0].consented == "2026-01-01"
    assert store.consented(0)
    assert not store.consented(1)


def test_every_vote_is_on_the_disk_before_it_is_acknowledged(store: VoteStore) -> None:
    assert store._base.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert store._base.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    store = VoteStore(tmp_path, "study")
    store.add(_vote(number) for number in range(2000))
    store.close()
    whole = (tmp_path / VOTES).read_bytes()
    for damaged in (b"no database" * 1000, whole[:5000], whole[:8192] + bytes(8192) + whole[16384:]):
        (tmp_path / VOTES).write_bytes(damaged)
        with pytest.raises(StoreError, match=rf"{VOTES} is damaged; copy it to a safe place, then restore"):
            VoteStore(tmp_path, "study")
        assert (tmp_path / VOTES).read_bytes() == damaged, "nothing is repaired"


def test_a_file_of_another_study_is_refused(tmp_path: Path, store: VoteStore) -> None:
    with pytest.raises(StoreError, match="holds the votes of another study"):
        VoteStore(tmp_path, "other")
    with pytest.raises(DataError, match="has no votes yet"):
        read_votes(tmp_path / "none", "study")


def test_a_held_file_is_named(store: VoteStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = sqlite3.connect(tmp_path / VOTES, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    store._base.execute("PRAGMA busy_timeout = 10")
    with pytest.raises(StoreError, match="is held by another program"):
        store.add([(VOTE, "answer")])
    other.close()
    assert store.add([(VOTE, "answer")]) == 1


FULL = """
import resource, sys
from dataclasses import replace
from pathlib import Path
from semdpo.errors import StoreError
from semdpo.study.votes import VoteStore
from tests.study.test_votes import _vote
store = VoteStore(Path(sys.argv[1]), "study")
if sys.argv[2] == "limit":
    resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, resource.RLIM_INFINITY))
for number in range(100_000):
    try:
        store.add([_vote(number)])
    except StoreError as error:
        print(number, error)
        break
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
if sys.argv[2] == "limit":
    assert store.add([_vote(number)]) == 1, "with space again, the next vote is stored"
    print(len(store.votes()))
"""


def _fill(folder: Path, how: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", FULL, folder, how], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_file_that_cannot_grow(tmp_path: Path) -> None:
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
    said, stored = _fill(tmp_path, "limit")
    number = int(said.split()[0])
    assert number > 10
    assert f"there is no space left to write {tmp_path / VOTES}; free some space" in said
    assert int(stored) == number + 1
    assert len(read_votes(tmp_path, "study")) == number + 1


@pytest.mark.slow
def test_a_full_disk(small_disk: Path) -> None:
    (said,) = _fill(small_disk, "disk")
    number = int(said.split()[0])
    assert number > 10
    assert f"there is no space left to write {small_disk / VOTES}" in said
    assert len(read_votes(small_disk, "study")) == number
