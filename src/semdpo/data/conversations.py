"""Turns pairs that are written as conversations into one prompt and two answers.

These forms are read: TRL's conversational columns, with the prompt in a column or at the beginning of both sides;
UltraFeedback's (the prompt is a text, and both sides are whole conversations); Anthropic's HH (both sides are texts of
"Human:" and "Assistant:" turns); and conversations as JSON in a CSV file.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from semdpo.data.readers import parse
from semdpo.data.tables import Table, layered
from semdpo.errors import DataError
from semdpo.texts import shown, trimmed

SIDES = ("chosen", "rejected")
USERS, ASSISTANTS = ("user", "human"), ("assistant", "gpt", "model")
ONE_TURN = "a rewriter reads one prompt and gives one rewrite, so"
_TURN = re.compile(r"(?:\A\s*|\n\n)(Human|Assistant):")
_HH = re.compile(r"\A\s*Human:.*\n\nAssistant:", re.DOTALL)


class Message(NamedTuple):
    """One turn of a conversation: the speaker's role and the text."""

    role: str
    text: str


def as_texts(table: Table) -> Table:
    """The table with ``prompt``, ``chosen`` and ``rejected`` as texts; a table without conversations is unchanged.

    Args:
        table: the user's table.

    Raises:
        DataError: a row has more than one turn or an unknown form, or its two sides answer different prompts; the
            message names the row.
    """
    given = {name: table.columns[name] for name in ("prompt", *SIDES) if name in table.columns}
    if not all(side in given for side in SIDES) or not any(
        _is_conversation(v) for column in given.values() for v in column
    ):
        return table
    prompts = given.get("prompt", [None] * len(table.rows))
    rows = zip(table.rows, prompts, given["chosen"], given["rejected"], strict=True)
    texts = [_row(f"{table.file}, {row}", *values) for row, *values in rows]
    names = ("prompt", *SIDES)
    columns = dict(zip(names, map(list, zip(*texts, strict=True)), strict=True))
    return Table(table.file, layered(columns, table.columns), table.rows)


def _is_conversation(value: Any) -> bool:
    return isinstance(value, list) or (isinstance(value, str) and (_is_notation(value) or bool(_HH.match(value))))


def _is_notation(text: str) -> bool:
    """Whether a text is a conversation in the notation of JSON or Python, as in a CSV file."""
    begin = text.lstrip()[:2000]
    return begin.startswith(("[{", "[ {")) and "role" in begin and "content" in begin


def _row(place: str, prompt: Any, chosen: Any, rejected: Any) -> tuple[Any, Any, Any]:
    own_prompt = _turns(prompt, f"{place}: prompt")
    sides = {name: _turns(value, f"{place}: {name}") for name, value in zip(SIDES, (chosen, rejected), strict=True)}
    before: list[Any] = []
    answers: list[Any] = []
    for name, turns in sides.items():
        if not isinstance(turns, list):
            answers.append(turns)
            continue
        if not turns or turns[-1].role not in ASSISTANTS:
            raise DataError(
                f"{place}: {name} must be one message of the assistant, or a conversation that ends with one; "
                f"{ONE_TURN} remove the row or the messages after the answer"
            )
        answers.append(turns[-1].text)
        before += [_prompt(turns[:-1], f"{place}: {name}")] if turns[:-1] else []
    if isinstance(own_prompt, list):
        own_prompt = _prompt(own_prompt, f"{place}: prompt", whole=True)
    if own_prompt is not None:
        before.insert(0, own_prompt)
    if differing := [text for text in before[1:] if _comparable(text) != _comparable(before[0])]:
        raise DataError(
            f"{place}: the two sides answer different prompts, {shown(before[0])} and {shown(differing[0])}; "
            "a pair is two answers to one prompt, so correct or remove the row"
        )
    return before[0] if before else own_prompt, answers[0], answers[1]


def _comparable(text: Any) -> Any:
    return trimmed(text) if isinstance(text, str) else text


def _prompt(turns: list[Message], place: str, *, whole: bool = False) -> str:
    """The user's prompt: the one message before the answer."""
    if len(turns) == 1 and turns[0].role in USERS:
        return turns[0].text
    template = "put other text into --template"
    if whole:
        raise DataError(f"{place} must be one message of the user; {ONE_TURN} {template}, or remove the row")
    raise DataError(
        f"{place} has {len(turns)} messages before its answer, but must have one, of the user; {ONE_TURN} keep "
        f"only rows with one turn, and {template}"
    )


def _turns(value: Any, place: str) -> Any:
    """A conversation's messages; any other value is unchanged."""
    if isinstance(value, str):
        if _HH.match(value):
            return _of_hh(value)
        if not _is_notation(value):
            return value
        value = _parsed(value, place)
    if not isinstance(value, list):
        return value
    return [_message(message, place) for message in value]


def _of_hh(text: str) -> list[Message]:
    """The turns of a text in HH's form; an empty last turn of the assistant is left out."""
    _, *parts = _TURN.split(text)
    roles = {"Human": USERS[0], "Assistant": ASSISTANTS[0]}
    turns = [Message(roles[who], words.strip()) for who, words in zip(parts[::2], parts[1::2], strict=True)]
    return turns[:-1] if turns[-1] == Message(ASSISTANTS[0], "") else turns


def _parsed(text: str, place: str) -> Any:
    try:
        return parse(text, place)
    except DataError as error:
        raise DataError(
            f"{place} is a conversation that is not JSON; write the data set as .jsonl or .parquet"
        ) from error


def _message(value: Any, place: str) -> Message:
    if isinstance(value, dict):
        role, content = value.get("role", value.get("from")), value.get("content", value.get("value"))
        if isinstance(content, list) and len(content) == 1 and isinstance(content[0], dict):
            content = content[0].get("text")  # the form for models that also read images
        if isinstance(role, str) and isinstance(content, str):
            return Message(role.lower(), content)
    raise DataError(
        f'{place} must be a list of messages such as {{"role": "user", "content": "a cat"}}; correct the row'
    )
