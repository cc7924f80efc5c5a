"""Reads what a language model answers when it is asked for atoms: lines of JSON, and nothing else."""

from __future__ import annotations

import json

from semdpo import answers
from semdpo.analysis.atoms import stating_words
from semdpo.data.atoms import MOST, YES, Atom, checked
from semdpo.errors import DataError
from semdpo.texts import shown

KEYS = {"question", "skill"}


def read_written(raw: str, truncated: bool, prompt_id: str, prompt: str) -> tuple[list[Atom], str]:
    """The atoms in an answer; or none, and why the whole answer is refused.

    An answer is JSON objects, each with ``question`` and ``skill`` and no other key, one after the other; around them
    there may be a code fence, and before them a thought that the model closes. Of equal questions the first counts.

    Args:
        raw: the answer.
        truncated: whether the token budget truncated it.
        prompt_id: the prompt's id.
        prompt: the prompt that the model was asked about.

    Returns:
        The atoms and an empty text; or no atoms and the reason, in a few words.
    """
    text = answers.unfenced(raw)
    if truncated or text is None:
        return [], "the token budget truncated it"
    decoder, place, found = json.JSONDecoder(), 0, dict[str, Atom]()
    while place < len(text):
        try:
            value, end = decoder.raw_decode(text, place)
        except (ValueError, RecursionError):
            return [], f"it is not lines of JSON: {shown(text[place:])}"
        if not isinstance(value, dict) or value.keys() != KEYS:
            return [], f"it has an entry without exactly a question and a skill: {shown(text[place:end])}"
        try:
            question, skill, answer = checked(value["question"], value["skill"], YES, "its answer")
        except DataError as error:
            return [], str(error)
        words = stating_words(question, answer, prompt)
        found.setdefault(question, Atom(prompt_id, skill, question, answer, words))
        place = end + len(text[end:]) - len(text[end:].lstrip())
    if not 0 < len(found) <= MOST:
        return [], f"it has {len(found)} questions"
    return list(found.values()), ""
