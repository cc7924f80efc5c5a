"""Errors that a user can correct: each message is one sentence that says what is wrong and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class SemdpoError(Exception):
    """Base of all errors whose message names the cure; the command line prints them and exits with code 2."""


class ConfigError(SemdpoError):
    """A recipe or an option is wrong."""


class DataError(SemdpoError):
    """A file of prompts, pairs or records is missing, unreadable or in the wrong format."""


class ModelError(SemdpoError):
    """A model is unknown, missing or of the wrong kind."""


class StoreError(SemdpoError):
    """A run folder is in use, was made with other settings, or cannot be written."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A hint for the end of a message about an unknown name.

    Args:
        name: what the user wrote.
        known: the names that exist.

    Returns:
        ``"; did you mean 'x'?"`` when one is similar, else ``"; known: a, b, c"``.
    """
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    return f"; did you mean '{near[0]}'?" if near else f"; known: {', '.join(names)}"
