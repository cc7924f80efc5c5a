"""Reads rewrites and preference pairs from users' files, and writes pairs."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
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
ENCODER = ("encoder", "encoder_fingerprint")  # of the model that measured the distances
SCORES = ("score", "rating", "reward")  # other programs' words for a score
WANTED = "; a file of pairs has the columns prompt, chosen and rejected: add or rename it"
UNPAIRED = (
    "has one completion and a label per row, but pairs are needed: write the good and the bad completion of a prompt "
    "into one row, as chosen and rejected, or train on this file with TRL's KTOTrainer"
)
TYPES: Mapping[str, type] = {
    **dict.fromkeys(NUMBERS, float), **dict.fromkeys(ENCODER, str), "truncated": bool,
}  # fmt: skip
COSINE = (-1e-6, 2 + 1e-6)  # float32 rounding may put a distance slightly outside 0 and 2
LIMITS = {"distance": COSINE, "rejected_distance": COSINE, "weight": (0.0, math.inf)}


def read_rewrites(name: str | Path) -> list[tuple[str, str]]:
    """Pairs (prompt, rewrite) to fine-tune on, from a file with the columns prompt and rewrite.

    Raises:
        DataError: see ``read_table``; or a column is missing, or a row is empty or not text.
    """
    table = read_table(name)
    return list(zip(table.texts("prompt"), table.texts("rewrite"), strict=True))


def read_pairs(name: str | Path) -> list[Pair]:
    """Preference pairs, from a file with the columns prompt, chosen and rejected; scores and distances are optional.

    Raises:
        DataError: see ``read_table``; or a column is missing, a text is empty, a number is not finite, or the two
            sides of a pair are equal.
    """
    return pairs_of(read_table(name))


def pairs_of(table: Table, scores: OtherScores | None = None) -> list[Pair]:
    """The pairs of a table; see ``read_pairs``. Outer blanks of the texts are removed.

    Args:
        table: the table.
        scores: where the scores are, if the table is a piece of a larger one, in all of which they were looked for.
    """
    if {"completion", "label"} <= table.columns.keys() and "chosen" not in table.columns:
        raise DataError(f"{table.file} {UNPAIRED}")
    table = as_texts(table)
    if names := (scores or other_scores([table])).names:
        renamed = dict(zip(NUMBERS[:2], (table.columns[name] for name in names), strict=True))
        table = Table(table.file, layered(renamed, table.columns), table.rows)
    texts = [table.texts(name, WANTED) for name in ("prompt", "chosen", "rejected")]
    numbers = [table.numbers(name) for name in NUMBERS]
    for name, (low, high) in LIMITS.items():
        for row, value in zip(table.rows, table.numbers(name), strict=True):
            if value is not None and not low <= value <= high:
                raise DataError(f"{table.file}, {row}: '{name}' is {value:g}; {_allowed(name)}")
    encoders = _encoders(table)
    truncated = [_true_or_false(value) for value in table.columns.get("truncated", [None] * len(table.rows))]
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
    """Scores in columns that have other names than ``chosen_score`` and ``rejected_score``.

    Attributes:
        names: the names of the two columns, chosen first; None where no such columns are used.
        note: a remark for the user about these columns; empty where there are none.
    """

    names: tuple[str, str] | None
    note: str = ""


def other_scores(pieces: Iterable[Table]) -> OtherScores:
    """Looks for columns such as ``score_chosen``, ``chosen-rating`` and ``reward_rejected``, one for each side.

    Args:
        pieces: a table in pieces, at least one, which are gone over once for every two such columns.
    """
    columns = list(next(iter(pieces)).columns)
    if any(name in columns for name in NUMBERS[:2]):
        return OtherScores(None)
    by_words = {frozenset(re.split(r"[-_ .]+", name.lower())): name for name in columns}
    note = ""
    for kind in SCORES:
        chosen, rejected = (by_words.get(frozenset({side, kind})) for side in ("chosen", "rejected"))
        if chosen is None or rejected is None:
            if single := chosen or rejected:
                note = note or f"{single!r} is not used, because the other side has no such score"
        elif all(_all_numbers(table, (chosen, rejected)) for table in pieces):
            return OtherScores((chosen, rejected), f"the scores are those of {chosen!r} and {rejected!r}")
        else:
            note = note or f"{chosen!r} and {rejected!r} are not used, because they hold values that are not numbers"
    return OtherScores(None, note)


def _all_numbers(table: Table, names: Sequence[str]) -> bool:
    try:
        return all(table.numbers(name) for name in names)
    except DataError:
        return False


def _encoders(table: Table) -> list[tuple[str | None, str | None]]:
    """Each row's encoder and its fingerprint, as ``semdpo weigh`` writes them; None where one of the two is missing."""
    names, fingerprints = (table.columns.get(name, [None] * len(table.rows)) for name in ENCODER)
    rows = list(zip(names, fingerprints, strict=True))
    return [row if all(isinstance(cell, str) and cell for cell in row) else (None, None) for row in rows]


def _allowed(name: str) -> str:
    if name == "weight":
        return "a pair's weight is 0 or more"
    return "a cosine distance lies between 0 and 2; measure it again with `semdpo weigh`"


def _true_or_false(value: Any) -> bool | None:
    """A truth value; None where a cell holds anything else."""
    words = {"true": True, "false": False}
    return value if isinstance(value, bool) else words.get(str(value).lower())


# ------------------------------------------------------------------------------------------------- writing


def refuse_own_columns(table: Table) -> None:
    """Refuses a user's column that has the name of one that ``weigh`` writes, since it would be lost.

    Raises:
        DataError: there is such a column.
    """
    written = [name for name in ENCODER if name in table.columns]
    taken = written[0] if len(written) == 1 else None
    if not written and any(value is not None and value != "" for value in table.columns.get("truncated", [])):
        taken = "truncated"
    if taken is not None:
        raise DataError(f"{table.file} has a column '{taken}', but weigh writes its own column of that name; rename it")


def write_pairs(path: Path, pairs: Sequence[Pair], extra: Mapping[str, Sequence[Any]] | None = None) -> None:
    """Writes pairs as csv, tsv, jsonl or parquet; the suffix decides which.

    Args:
        path: the file.
        pairs: the pairs, [n].
        extra: name → values, [n], of the user's other columns, which are written too; see ``columns_of``.

    Raises:
        DataError: the suffix is unknown, or an extra column has values that such a file cannot hold.
        StoreError: no space is left, or the folder cannot be written.
    """
    check_suffix(path)
    write_bytes(path, encoded(path.suffix.lower(), columns_of(pairs, extra or {}), TYPES, extra))


def columns_of(
    pairs: Sequence[Pair], extra: Mapping[str, Sequence[Any]], own_ids: bool | None = None
) -> dict[str, Sequence[Any]]:
    """The columns of a file of pairs.

    Args:
        pairs: the pairs, [n].
        extra: name → values, [n], of the user's columns.
        own_ids: as for ``user_columns``.
    """
    columns: dict[str, Sequence[Any]] = {
        field.name: [getattr(pair, field.name) for pair in pairs] for field in fields(Pair)
    }
    return columns | user_columns(extra, own_ids)


def user_columns(extra: Mapping[str, Sequence[Any]], own_ids: bool | None = None) -> dict[str, Sequence[Any]]:
    """The user's columns that are written unchanged: all but those that semdpo computes or reads.

    Args:
        extra: name → values, [n], of the user's columns.
        own_ids: whether the user's ``pair_id`` replaces semdpo's; None takes it where it has a value.
    """
    of_pairs = {field.name for field in fields(Pair)} - {"pair_id"}
    columns = {name: extra[name] for name in extra if name not in of_pairs}
    if not (has_own_ids(extra) if own_ids is None else own_ids):
        columns.pop("pair_id", None)
    return columns


def has_own_ids(extra: Mapping[str, Sequence[Any]]) -> bool:
    """Whether a table has ids of the user's own."""
    return any(value is not None for value in extra.get("pair_id", []))
