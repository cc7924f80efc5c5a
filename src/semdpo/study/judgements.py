"""Judgements: votes with the methods behind the sides; their table ``judgements.csv``; and whose are analysed.

A table of judgements may come from any program. Its columns:

| column | | |
|---|---|---|
| rater | needed | the rater's name |
| prompt_id | needed | the prompt, by any name |
| left_method, right_method | needed | the methods; in an attention check, ``right answer`` and ``wrong answer`` |
| choice | needed | ``left``, ``right`` or ``tie`` |
| question | optional | the question's name; ``match`` where there is none |
| kind | optional | ``comparison``, ``repeat`` or ``attention``; ``comparison`` where there is none |
| trial | optional | the name of what the rater saw; a row's own place in the file where there is none |
| repeats | optional | of a repeat, the trial that it repeats |
| seconds | optional | time of the answer |
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from statistics import median
from typing import Any, get_args

from semdpo.data.tables import Table, read_table
from semdpo.data.writers import check_suffix, encoded
from semdpo.disk import write_bytes
from semdpo.errors import DataError, did_you_mean
from semdpo.study.design import (
    MATCH,
    RIGHT_ANSWER,
    WRONG_ANSWER,
    Choice,
    Exclusion,
    Judgement,
    Kind,
    Plan,
    StudyImage,
    Trial,
    Vote,
)
from semdpo.texts import shown

NEEDED = ("rater", "prompt_id", "left_method", "right_method", "choice")
WANTED = f"; judgements need the columns {', '.join(NEEDED)}: add or rename it"
TYPES: Mapping[str, type] = {"repeats": str, "seconds": float}


def rater_name(number: int) -> str:
    """The name of a plan's rater in judgements, such as ``r003``."""
    return f"r{number:03d}"


def judgements(plan: Plan, votes: Iterable[Vote]) -> list[Judgement]:
    """The votes of a study with the methods behind the sides, in the plan's order.

    Args:
        plan: the study's plan.
        votes: its votes, in any order.

    Raises:
        DataError: a vote does not belong to the plan: it names an unknown trial or question, another rater or other
            images than the plan, is a tie where the plan has none, or answers a question twice.
    """
    trials, images = {trial.name: trial for trial in plan.trials}, {image.name: image for image in plan.images}
    order = {trial.name: place for place, trial in enumerate(plan.trials)}
    questions = {question: place for place, question in enumerate(plan.questions)}
    found: dict[tuple[int, int], Judgement] = {}
    for vote in votes:
        if vote.trial not in trials or vote.question not in questions:
            raise _foreign(vote, "which the plan does not have")
        trial = trials[vote.trial]
        if (vote.rater, vote.left, vote.right) != (trial.rater, trial.left, trial.right):
            raise _foreign(vote, "with another rater or other images than the plan has there")
        if vote.choice == "tie" and plan.tie is None:
            raise _foreign(vote, "as a tie, which the plan does not allow")
        key = (order[trial.name], questions[vote.question])
        if key in found:
            raise _foreign(vote, "twice")
        left, right = methods_of_sides(trial, images)
        found[key] = Judgement(
            rater_name(trial.rater), trial.prompt_id, vote.question, trial.kind, left, right, vote.choice,
            trial.name, trial.repeats, vote.seconds,
        )  # fmt: skip
    return [found[key] for key in sorted(found)]


def _foreign(vote: Vote, fault: str) -> DataError:
    return DataError(
        f"a vote answers question '{vote.question}' of trial '{vote.trial}' {fault}; give the votes of this study only"
    )


def methods_of_sides(trial: Trial, images: Mapping[str, StudyImage]) -> tuple[str, str]:
    """The methods of the left and the right image; in an attention check, which one is the right answer.

    Args:
        trial: a trial of a plan.
        images: the plan's images, by name.
    """
    left, right = images[trial.left], images[trial.right]
    if trial.kind != "attention":
        return left.method, right.method
    return (RIGHT_ANSWER, WRONG_ANSWER) if left.prompt_id == trial.prompt_id else (WRONG_ANSWER, RIGHT_ANSWER)


# ------------------------------------------------------------------------------------------------- the table


def write_judgements(path: Path, rows: Sequence[Judgement]) -> None:
    """Writes judgements as csv, tsv, jsonl or parquet; the suffix decides which.

    Raises:
        DataError: the suffix is unknown.
        StoreError: no space is left, or the folder cannot be written.
    """
    check_suffix(path)
    columns = {field.name: [getattr(row, field.name) for row in rows] for field in fields(Judgement)}
    write_bytes(path, encoded(path.suffix.lower(), columns, TYPES))


def read_judgements(name: str | Path) -> list[Judgement]:
    """Judgements from a table of this or another program; the module lists its columns.

    Raises:
        DataError: see ``read_table``; or a column is missing, or a row has an unknown choice or kind, compares a method
            with itself, repeats no earlier comparison of its rater, or is there twice. The message names the row.
    """
    table = read_table(name)
    columns: dict[str, Sequence[Any]] = {column: table.texts(column, WANTED) for column in NEEDED}
    columns["question"] = _filled(table, "question", [MATCH] * len(table.rows))
    columns["kind"] = _filled(table, "kind", ["comparison"] * len(table.rows))
    columns["trial"] = _filled(table, "trial", table.rows)
    columns["repeats"] = [text or None for text in _filled(table, "repeats", [""] * len(table.rows))]
    columns["seconds"] = table.numbers("seconds")
    rows = [Judgement(**dict(zip(columns, row, strict=True))) for row in zip(*columns.values(), strict=True)]
    named = "trial" in table.columns
    seen: dict[tuple[str, ...], str] = {}
    firsts = {(row.rater, row.trial, row.question): row for row in rows if row.kind == "comparison"}
    for row, place in zip(rows, table.rows, strict=True):
        where = f"{table.file}, {place}"
        _check(row, where)
        if row.repeats is not None:
            _check_repeat(row, firsts.get((row.rater, row.repeats, row.question)), where)
        _refuse_twice(row, seen, named=named, file=table.file, place=place)
    return rows


def _filled(table: Table, name: str, default: Sequence[str]) -> list[str]:
    """An optional column of texts; where the column or a cell is missing, the default of its row."""
    if name not in table.columns:
        return list(default)
    return [text or other for text, other in zip(table.texts(name, empty=True), default, strict=True)]


def _check(row: Judgement, where: str) -> None:
    for name, allowed in (("choice", get_args(Choice)), ("kind", get_args(Kind))):
        if (value := getattr(row, name)) not in allowed:
            raise DataError(f"{where}: '{name}' is {shown(value)}{did_you_mean(value, allowed)}")
    answers = {row.left_method, row.right_method} == {RIGHT_ANSWER, WRONG_ANSWER}
    if (row.kind == "attention") != answers:
        raise DataError(
            f"{where}: an attention check, and nothing else, has the methods '{RIGHT_ANSWER}' and '{WRONG_ANSWER}'; "
            "correct the methods or the kind"
        )
    if row.left_method == row.right_method:
        raise DataError(f"{where}: both sides show the method {shown(row.left_method)}; remove the row")
    if (row.kind == "repeat") != (row.repeats is not None):
        raise DataError(f"{where}: a repeat, and nothing else, names in 'repeats' what it repeats; correct the row")
    if row.seconds is not None and row.seconds < 0:
        raise DataError(f"{where}: 'seconds' is {row.seconds:g}; it must be 0 or more, or empty")


def _check_repeat(row: Judgement, first: Judgement | None, where: str) -> None:
    if first is None:
        raise DataError(
            f"{where}: the rater {shown(row.rater)} has no comparison {shown(row.repeats)} with the question "
            f"'{row.question}'; correct 'repeats'"
        )
    if first.prompt_id != row.prompt_id or _pair(first) != _pair(row):
        raise DataError(f"{where}: its prompt or methods are not those of {shown(row.repeats)}; correct 'repeats'")


def _pair(row: Judgement) -> tuple[str, ...]:
    return tuple(sorted((row.left_method, row.right_method)))


def _refuse_twice(row: Judgement, seen: dict[tuple[str, ...], str], *, named: bool, file: str, place: str) -> None:
    """Refuses a second row for one answer, which would count twice.

    A row whose trial has no name is known by what it compares; checks and repeats are then all different.
    """
    key: tuple[str, ...] = (row.rater, row.question, row.trial)
    if not named and row.kind == "comparison":
        key = (row.rater, row.question, row.prompt_id, *_pair(row))
    if key in seen:
        cure = "remove one" if named else "remove one, or name what was shown in a column 'trial'"
        raise DataError(f"{file}, {place}: the same answer is in {seen[key]} (rater {shown(row.rater)}); {cure}")
    seen[key] = place


# ------------------------------------------------------------------------------------------------- exclusion


@dataclass(frozen=True, slots=True)
class Kept:
    """What is analysed.

    Attributes:
        judgements: those of the raters who are kept, of all kinds, in their order.
        reasons: excluded rater → why, as the end of a sentence.
    """

    judgements: list[Judgement]
    reasons: Mapping[str, str]


def exclude(rows: Sequence[Judgement], exclusion: Exclusion) -> Kept:
    """Excludes the raters that the plan's rules name; no other rows are removed.

    Args:
        rows: the judgements of a study.
        exclusion: the plan's rules. Attention checks count by their answer to ``match``, and a tie is a failure.
            A rater without attention checks, or without repeats, passes their rule.

    Raises:
        DataError: the rules limit the time of answers, but a rater's answers have none.
    """
    by_rater: dict[str, list[Judgement]] = {}
    for row in rows:
        by_rater.setdefault(row.rater, []).append(row)
    reasons = {rater: reason for rater, own in by_rater.items() if (reason := _reason(rater, own, exclusion))}
    return Kept([row for row in rows if row.rater not in reasons], reasons)


def chosen_method(row: Judgement) -> str | None:
    """The method of the side that was chosen; None for a tie."""
    return {"left": row.left_method, "right": row.right_method}.get(row.choice)


def _reason(rater: str, rows: Sequence[Judgement], rules: Exclusion) -> str | None:
    checks = [row for row in rows if row.kind == "attention" and row.question == MATCH]
    failed = sum(chosen_method(row) != RIGHT_ANSWER for row in checks)
    if checks and failed / len(checks) > rules.max_attention_failures:
        return f"failed {failed} of {len(checks)} attention checks"
    firsts = {(row.trial, row.question): row for row in rows if row.kind == "comparison"}
    twice = [(row, first) for row in rows if row.repeats and (first := firsts.get((row.repeats, row.question)))]
    same = sum(chosen_method(row) == chosen_method(first) for row, first in twice)
    if twice and same / len(twice) < rules.min_consistency:
        return f"gave the same answer again on {same} of {len(twice)} repeats"
    if rules.min_seconds > 0:
        times = [row.seconds for row in rows if row.seconds is not None]
        if not times:
            raise DataError(
                f"the answers of rater {shown(rater)} have no times, but the plan excludes raters who answer in less "
                f"than {rules.min_seconds:g} s; give the column 'seconds'"
            )
        if (middle := median(times)) < rules.min_seconds:
            return f"took {middle:.2g} s for half of the answers or less"
    return None
