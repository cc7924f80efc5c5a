"""The votes of a study, in SQLite: one transaction a vote, and on the disk before it is acknowledged.

The first answer to a question about a trial stands: another one is refused. A page that repeats an answer, because it
does not know whether the server has it, sends the same answer id, and gets the answer that it is stored.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import astuple, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from semdpo.disk import NO_SPACE
from semdpo.errors import DataError, StoreError
from semdpo.study.design import Vote
from semdpo.study.plan import VOTES

PATIENCE = 30.0  # seconds that a write waits for another process
_COLUMNS = tuple(field.name for field in fields(Vote))
_TABLES = """
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS consents (rater INTEGER PRIMARY KEY, at TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS votes (
  trial TEXT NOT NULL, rater INTEGER NOT NULL, question TEXT NOT NULL,
  choice TEXT NOT NULL CHECK (choice IN ('left', 'right', 'tie')),
  "left" TEXT NOT NULL, "right" TEXT NOT NULL, seconds REAL NOT NULL, at TEXT NOT NULL,
  answer TEXT NOT NULL UNIQUE, PRIMARY KEY (trial, question)
) STRICT, WITHOUT ROWID;
"""


class RefusedVoteError(DataError):
    """A vote that is not stored, because the study is closed or the question was answered before.

    Args:
        message: One sentence.
        vote: The vote.
        answer: Its answer id.
    """

    def __init__(self, message: str, vote: Vote | None = None, answer: str | None = None) -> None:
        super().__init__(message)
        self.vote, self.answer = vote, answer


@dataclass(frozen=True, slots=True)
class RaterProgress:
    """How far a rater is.

    Attributes:
        consented: when the rater agreed to take part, ISO 8601 in UTC; None if not yet.
        votes: the number of stored votes.
        last: when the last vote was stored; None if there is none.
    """

    consented: str | None = None
    votes: int = 0
    last: str | None = None


def now() -> str:
    """The time as votes record it: ISO 8601 in UTC, with milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


class VoteStore:
    """The votes of one study. Several threads and processes may use a file at the same time.

    Args:
        folder: The study's folder; its file of votes is made where there is none.
        study: The study's public id; a file of another study's votes is refused.

    Raises:
        StoreError: The file is damaged, belongs to another study, or cannot be written.
    """

    def __init__(self, folder: Path, study: str) -> None:
        self._path, self._lock = folder / VOTES, threading.Lock()
        with self._explained():
            self._base = sqlite3.connect(
                self._path, timeout=PATIENCE, isolation_level=None, check_same_thread=False, cached_statements=32
            )
            try:
                self._open(study)
            except BaseException:
                self._base.close()
                raise

    def _open(self, study: str) -> None:
        self._base.execute("PRAGMA journal_mode = WAL")
        self._base.execute("PRAGMA synchronous = FULL")  # a commit returns when the vote is on the disk
        damage = self._base.execute("PRAGMA quick_check(1)").fetchone()[0]
        if damage != "ok":
            raise sqlite3.DatabaseError(damage)
        with self._transaction():
            for statement in _TABLES.split(";"):
                self._base.execute(statement)
            self._base.execute("INSERT OR IGNORE INTO facts VALUES ('study', ?)", (study,))
            (known,) = self._base.execute("SELECT value FROM facts WHERE name = 'study'").fetchone()
        if known != study:
            raise StoreError(
                f"{self._path} holds the votes of another study, or of this one before its plan was changed; restore "
                "the plan, or move the votes away"
            )

    def close(self) -> None:
        """Closes the file."""
        with self._lock:
            self._base.close()

    @property
    def closed_at(self) -> str | None:
        """When the study was closed, ISO 8601 in UTC; None while it is open."""
        rows = self._read("SELECT value FROM facts WHERE name = 'closed'")
        return str(rows[0][0]) if rows else None

    def close_study(self) -> None:
        """Ends the study: later votes are refused, and results may be shown."""
        with self._lock, self._explained(), self._transaction():
            self._base.execute("INSERT OR IGNORE INTO facts VALUES ('closed', ?)", (now(),))

    def consent(self, rater: int, at: str) -> None:
        """Records that a rater agreed to take part; the first time counts.

        Raises:
            RefusedVoteError: The study is closed.
            StoreError: It could not be stored.
        """
        if self.consented(rater):
            return
        with self._lock, self._explained(), self._transaction():
            self._refuse_closed()
            self._base.execute("INSERT OR IGNORE INTO consents VALUES (?, ?)", (rater, at))

    def add(self, votes: Iterable[tuple[Vote, str]]) -> int:
        """Stores votes in one transaction: all of them or none. They are on the disk when this returns.

        Args:
            votes: Votes, each with its answer id. One that is stored already, with the same answer id, is skipped.

        Returns:
            The number of votes that were not stored before.

        Raises:
            RefusedVoteError: A question has another answer, or the study is closed; nothing was stored.
            StoreError: They could not be stored; nothing was.
        """
        with self._lock, self._explained(), self._transaction():
            return sum(self._add(vote, answer) for vote, answer in votes)

    def _add(self, vote: Vote, answer: str) -> bool:
        known = self._base.execute(
            "SELECT answer, choice FROM votes WHERE trial = ? AND question = ?", (vote.trial, vote.question)
        ).fetchone()
        if known == (answer, vote.choice):
            return False
        if known is not None:
            raise RefusedVoteError("this question was answered before, and the first answer stands", vote, answer)
        self._refuse_closed(vote, answer)
        try:
            self._base.execute("INSERT INTO votes VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", (*astuple(vote), answer))
        except sqlite3.IntegrityError:
            raise RefusedVoteError("the id of this answer was used for another question", vote, answer) from None
        return True

    def _refuse_closed(self, vote: Vote | None = None, answer: str | None = None) -> None:
        if self._base.execute("SELECT 1 FROM facts WHERE name = 'closed'").fetchone():
            raise RefusedVoteError("this study is closed, and no more answers are stored", vote, answer)

    def votes(self) -> list[Vote]:
        """All votes, by rater and time."""
        columns = ", ".join(f'"{name}"' for name in _COLUMNS)
        return [Vote(*row) for row in self._read(f"SELECT {columns} FROM votes ORDER BY rater, at, trial, question")]

    def answered(self, rater: int) -> dict[str, list[str]]:
        """What a rater has answered: the trial's name → the names of questions."""
        found: dict[str, list[str]] = {}
        for trial, question in self._read("SELECT trial, question FROM votes WHERE rater = ?", rater):
            found.setdefault(trial, []).append(question)
        return found

    def consented(self, rater: int) -> bool:
        """Whether a rater has agreed to take part."""
        return bool(self._read("SELECT 1 FROM consents WHERE rater = ?", rater))

    def progress(self, raters: int) -> list[RaterProgress]:
        """How far each rater is.

        Args:
            raters: The number of raters of the study.
        """
        agreed = dict[int, str](self._read("SELECT rater, at FROM consents"))
        votes = {
            rater: (n, last) for rater, n, last in self._read("SELECT rater, count(*), max(at) FROM votes GROUP BY 1")
        }
        return [RaterProgress(agreed.get(rater), *votes.get(rater, (0, None))) for rater in range(raters)]

    def _read(self, query: str, *values: int) -> list[tuple[Any, ...]]:
        with self._lock, self._explained():
            return self._base.execute(query, values).fetchall()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._base.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._base.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):  # SQLite has rolled back by itself after some errors
                self._base.execute("ROLLBACK")
            raise

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turns SQLite's errors into one sentence that names the cure."""
        try:
            yield
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
                raise StoreError(NO_SPACE.format(self._path)) from error
            if code == sqlite3.SQLITE_BUSY:
                raise StoreError(f"{self._path} is held by another program; stop it, then try again") from error
            if code in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM):
                raise StoreError(f"{self._path} cannot be written; correct the permissions of its folder") from error
            if code in (0, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR):
                raise StoreError(
                    f"{self._path} is damaged; copy it to a safe place, then restore the last good copy, with "
                    f"the files {VOTES}-wal and {VOTES}-shm of the same copy if there are any"
                ) from error
            raise


def read_votes(folder: Path, study: str) -> list[Vote]:
    """The votes of a study.

    Args:
        folder: the study's folder.
        study: the study's public id.

    Raises:
        DataError: there are no votes yet.
        StoreError: as ``VoteStore`` raises.
    """
    if not (folder / VOTES).is_file():
        raise DataError(f"{folder} has no votes yet; run `semdpo study serve` or `semdpo study collect` first")
    store = VoteStore(folder, study)
    try:
        return store.votes()
    finally:
        store.close()
