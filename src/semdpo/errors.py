"""Errors that a user can correct: each message is one sentence that says what is wrong and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import Any

LONGEST = 200  # characters of a name that a message shows
LISTED = 50  # names that a message shows
MOST = 10_000  # names that are compared with what the user wrote; a table may have a million columns
# What torch and CUDA's libraries report where memory is short, in errors of several classes.
_NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "ALLOC_FAILED")


class SemdpoError(Exception):
    """Base of all errors whose message names the cure; the command line prints them and exits with code 2."""


class ConfigError(SemdpoError):
    """A recipe or an option is wrong."""


class DataError(SemdpoError):
    """A file of prompts, pairs or records is missing, unreadable or in the wrong format."""


class ModelError(SemdpoError):
    """A model is unknown, missing or of the wrong kind."""


class EndpointError(ModelError):
    """A server cannot be used; the message gives its address, the reason and the cure."""


class UnlistedModelsError(EndpointError):
    """A server works and does not list its models."""


class RefusedRequestError(EndpointError):
    """A server works and refuses one request, or answers it with nothing of use, perhaps for what its prompt says."""


class PartlyRefusedError(RefusedRequestError):
    """Of a batch of requests, a server refused some; the message is that of the first.

    Args:
        outcomes: the result of each request of the batch, or the error of a refused one.
    """

    def __init__(self, outcomes: Sequence[Any]) -> None:
        super().__init__(str(next(each for each in outcomes if isinstance(each, Exception))))
        self.outcomes = list(outcomes)

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process gets the message; images stay where they are."""
        return RefusedRequestError, (str(self),)


class StoreError(SemdpoError):
    """A run folder is in use, was made with other settings, or cannot be written."""


def out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, that of a GPU or the CPU's."""
    of_torch = isinstance(error, RuntimeError) and any(words in str(error) for words in _NO_MEMORY)
    return of_torch or isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"  # torch's


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A hint for the end of a message about an unknown name.

    Args:
        name: what the user wrote.
        known: the names that exist.

    Returns:
        ``"; did you mean 'x'?"`` when one is similar, else ``"; known: a, b, c"``.
    """
    names = sorted(known)
    near = difflib.get_close_matches(name[:LONGEST], names[:MOST], n=1, cutoff=0.6)
    if near:
        return f"; did you mean '{_short(near[0])}'?"
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return f"; known: {', '.join(map(_short, names[:LISTED]))}{more}"


def _short(name: str) -> str:
    return name if len(name) <= LONGEST else f"{name[:LONGEST]}…"
