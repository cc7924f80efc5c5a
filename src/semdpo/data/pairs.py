"""Rewrites and preference pairs in a user's own files, and how any file is written: whole or not at all."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from semdpo.data.conversations import as_texts
from semdpo.data.records import Pair, content_id
from semdpo.data.tables import Table, layered, read_table
from semdpo.data.writers import check_suffix, encoded
from semdpo.disk import write_bytes
from semdpo.errors import DataError

NUMBERS = (
    *("chosen_score", "rejected_score", "distance", "rejected_distance"),
    *("weight", "chosen_fidelity", "rejected_fidelity"),
)
ENCODER = ("encoder", "encoder_fingerprint")  # that measured the distances
SCORES = ("score", "rating", "reward")  # what others call a score
WANTED = "; a file of pairs has columns prompt, chosen and rejected: add or rename it"
UNPAIRED = (
    "has one completion and a label in a row, and pairs are needed: write the good and the bad completion of a prompt "
    "into one row, as chosen and rejected, or train on this file with TRL's KTOTrainer"
)
TYPES: Mapping[str, type] = {
    **dict.fromkeys(NUMBERS, float), **dict.fromkeys(ENCODER, str), "truncated": bool,
}  # fmt: skip
COSINE = (-1e-6, 2 + 1e-6)  # float32 may round a distance past its ends
LIMITS = {"distance": COSINE, "rejected_distance": COSINE, "weight": (0.0, math.inf)}


def read_rewrites(name: str | Path) -> list[tuple[str, str]]:
    """Pairs (prompt, rewrite) to fine-tune on.

    Raises:
        DataError: see ``read_table``; or a column is missing, or a row is empty or no text.
    """
    table = read_table(name)
    return list(zip(table.texts("prompt"), table.texts("rewrite"), strict=True))


def read_pairs(name: str | Path) -> list[Pair]:
    """Preference pairs: columns prompt, chosen, rejected; scores and distances are kept when there are any.

    Raises:
        DataError: see ``read_table``; or a column is missing, a text empty, a number not finite, or a pair
            whose two sides are equal.
    """
    return pairs_of(read_table(name))


def pairs_of(table: Table) -> list[Pair]:
    """The pairs of a table that was read; see ``read_pairs``. Texts are without their outer blanks."""
    if {"completion", "label"} <= table.columns.keys() and "chosen" not in table.columns:
        raise DataError(f"{table.file} {UNPAIRED}")
    table = as_texts(table)
    if names := other_scores(table).names:
        own = dict(zip(NUMBERS[:2], (table.columns[name] for name in names), strict=True))
        table = Table(table.file, layered(own, table.columns), table.rows)
    texts = [table.texts(name, WANTED) for name in ("prompt", "chosen", "rejected")]
    numbers = [table.numbers(name) for name in NUMBERS]
    for name, (low, high) in LIMITS.items():
        for row, value in zip(table.rows, table.numbers(name), strict=True):
            if value is not None and not low <= value <= high:
                raise DataError(f"{table.file}, {row}: '{name}' is {value:g}; {_allowed(name)}")
    encoders = _encoders(table)
    truncated = [_flag(value) for value in table.columns.get("truncated", [None] * len(table.rows))]
    pairs = []
    for row, (prompt, chosen, rejected), values, flag, encoder in zip(
        table.rows, zip(*texts, strict=True), zip(*numbers, strict=True), truncated, encoders, strict=True
    ):
        if chosen == rejected:
            raise DataError(f"{table.file}, {row}: chosen and rejected are the same text; remove the row")
        identity = content_id(prompt, chosen, rejected)
        measured = dict(zip(NUMBERS, values, strict=True))
        pairs.append(
            Pair(
                identity, prompt, chosen, rejected, **measured,
                truncated=flag, encoder=encoder[0], encoder_fingerprint=encoder[1],
            )
        )  # fmt: skip
    return pairs


@dataclass(frozen=True)
class OtherScores:
    """Scores that a table has under other names than ours.

    Attributes:
        names: of the columns of chosen and rejected; None where they are not used.
        note: what a user should know about it; empty where there are none.
    """

    names: tuple[str, str] | None
    note: str = ""


def other_scores(table: Table) -> OtherScores:
    """Looks for names such as ``score_chosen``, ``chosen-rating`` and ``reward_rejected``, one for each side."""
    if any(name in table.columns for name in NUMBERS[:2]):
        return OtherScores(None)
    meant = {frozenset(re.split(r"[-_ .]+", name.lower())): name for name in table.columns}
    note = ""
    for kind in SCORES:
        chosen, rejected = (meant.get(frozenset({side, kind})) for side in ("chosen", "rejected"))
        if chosen is None or rejected is None:
            if one := chosen or rejected:
                note = note or f"{one!r} is not used, for the other side has no such score"
        elif _all_numbers(table, (chosen, rejected)):
            return OtherScores((chosen, rejected), f"the scores are those of {chosen!r} and {rejected!r}")
        else:
            note = note or f"{chosen!r} and {rejected!r} are not used, for they are no numbers"
    return OtherScores(None, note)


def _all_numbers(table: Table, names: Sequence[str]) -> bool:
    try:
        return all(table.numbers(name) for name in names)
    except DataError:
        return False


def _encoders(table: Table) -> list[tuple[str | None, str | None]]:
    """Each row's encoder, where ``semdpo weigh`` wrote one; a user's own column of that name alone is none."""
    names, prints = (table.columns.get(name, [None] * len(table.rows)) for name in ENCODER)
    whole = [all(isinstance(each, str) and each for each in pair) for pair in zip(names, prints, strict=True)]
    return [(n, f) if both else (None, None) for n, f, both in zip(names, prints, whole, strict=True)]


def _allowed(name: str) -> str:
    if name == "weight":
        return "a pair's weight is 0 or more"
    return "a cosine distance lies between 0 and 2; measure it again with `semdpo weigh`"


def _flag(value: Any) -> bool | None:
    named = {"true": True, "false": False}
    return value if isinstance(value, bool) else named.get(str(value).lower())


# ------------------------------------------------------------------------------------------------- writing


def refuse_own_columns(table: Table) -> None:
    """A user's own column must not be taken for one that ``weigh`` writes, nor be lost to it.

    Raises:
        DataError: it has the name of one.
    """
    written = [name for name in ENCODER if name in table.columns]
    taken = written[0] if len(written) == 1 else None
    notes = "its encoder"
    if not written and any(value is not None and value != "" for value in table.columns.get("truncated", [])):
        taken, notes = "truncated", "whether the encoder read a text to its end"
    if taken is not None:
        raise DataError(f"{table.file} has a column '{taken}' of its own, where weigh notes {notes}; rename it")


def write_pairs(path: Path, pairs: Sequence[Pair], extra: Mapping[str, Sequence[Any]] | None = None) -> None:
    """Writes pairs as csv, tsv, jsonl or parquet, by the suffix.

    Args:
        path: where to.
        pairs: what.
        extra: a user's other columns, to be kept beside ours; of the length of ``pairs``. A user's own ``pair_id``
            stays, and ours is left out then.

    Raises:
        DataError: unknown suffix, or an extra column that such a file cannot hold.
        StoreError: no space is left, or the folder cannot be written.
    """
    check_suffix(path)
    names = [field.name for field in fields(Pair)]
    columns: dict[str, Sequence[Any]] = {name: [getattr(pair, name) for pair in pairs] for name in names}
    columns |= kept(extra or {})
    write_bytes(path, encoded(path.suffix.lower(), columns, TYPES, extra))


def kept(extra: Mapping[str, Sequence[Any]]) -> dict[str, Sequence[Any]]:
    """The user's columns that are written as they were: all but those that have a meaning for a pair."""
    ours = {field.name for field in fields(Pair)} - {"pair_id"}
    found = {name: extra[name] for name in extra if name not in ours}
    if all(value is None for value in found.get("pair_id", [])):
        found.pop("pair_id", None)
    return found
