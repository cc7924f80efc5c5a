"""Atoms: the single facts that a prompt states, each as a yes/no question; and how a user's file of them is read.

Skills and answers are those of GenEval 2 (arXiv 2512.16853; github.com/facebookresearch/GenEval2), whose file is read
as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from semdpo.data.readers import jsonl_records
from semdpo.data.records import content_id
from semdpo.data.tables import resolve
from semdpo.errors import DataError, did_you_mean
from semdpo.texts import is_visible, shown, trimmed

SKILLS = ("object", "attribute", "count", "relation", "scene")
OTHER_NAMES = {"position": "relation", "verb": "relation"}  # GenEval 2's names of what this package calls a relation
KEYS = ("question", "skill", "answer")
YES = "yes"
NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
LONGEST = 500  # characters of a question
MOST = 100  # atoms of a prompt
NO_ATOMS = "its prompt has no atoms"  # why an image has no score


@dataclass(frozen=True, slots=True)
class Atom:
    """A fact that a prompt states, as a question about its image.

    Attributes:
        prompt_id: the prompt's id.
        skill: one of ``SKILLS``.
        question: the question.
        answer: what is right: ``yes``, or for "How many …?" one of ``NUMBERS``.
        words: the words of the prompt that state the fact, in their order, joined by spaces; empty where they are not
            known.
    """

    prompt_id: str
    skill: str
    question: str
    answer: str = YES
    words: str = ""


@dataclass(frozen=True, slots=True)
class AtomAnswer:
    """How sure a model is that an image of a method's rewrite shows an atom of the user's prompt.

    ``probability`` is that of the right answer; None where the renderer's safety checker blackened the image, it could
    not be rendered, no model answers, or its server refused the question. ``kept`` is whether the words of the rewrite
    still state the atom; None where that is not known.
    """

    candidate_id: str
    prompt_id: str
    image_seed: int
    skill: str
    question: str
    probability: float | None
    kept: bool | None


def by_prompt(atoms: Iterable[Atom]) -> dict[str, list[Atom]]:
    """Prompt id → its atoms, in their order."""
    found: dict[str, list[Atom]] = {}
    for atom in atoms:
        found.setdefault(atom.prompt_id, []).append(atom)
    return found


def checked(question: object, skill: object, answer: object, place: str) -> tuple[str, str, str]:
    """A question, its skill and its answer, in the form in which they are kept.

    Args:
        question: the question.
        skill: one of ``SKILLS`` or of ``OTHER_NAMES``.
        answer: yes, or one of ``NUMBERS`` for "How many …?"; any capitals.
        place: where they were written, for messages.

    Raises:
        DataError: one of them is something else.
    """
    if not isinstance(question, str) or not is_visible(question) or not trimmed(question).endswith("?"):
        raise DataError(f"{place}: {shown(question)} is not a question; write one that ends with a question mark")
    text = " ".join(trimmed(question).split())
    if len(text) > LONGEST:
        raise DataError(f"{place}: the question has {len(text)} characters; write one of at most {LONGEST}")
    name = OTHER_NAMES.get(skill, skill) if isinstance(skill, str) else skill
    if name not in SKILLS:
        raise DataError(f"{place}: the skill {shown(skill)} is unknown{did_you_mean(str(skill), SKILLS)}")
    right = answer.strip().lower() if isinstance(answer, str) else answer
    if right not in (YES, *NUMBERS) or (right != YES) != text.lower().startswith("how many"):
        raise DataError(
            f"{place}: the answer {shown(answer)} does not fit '{shown(text)}'; ask what yes answers, "
            f"or begin with How many and be answered by a word from {NUMBERS[0]} to {NUMBERS[-1]}"
        )
    return text, str(name), str(right)


def read_atoms(file: str | Path) -> dict[str, list[Atom]]:
    """A user's atoms, by the ids of their prompts.

    Each line is an object with ``prompt`` or ``prompt_id``, and with ``atoms``: a list of {question, skill}, where
    ``answer`` may be added. GenEval 2's lines, with ``prompt``, ``vqa_list`` and ``skills``, are read too. Other keys
    are ignored. Of equal questions about one prompt, the first is kept.

    Args:
        file: a jsonl file.

    Raises:
        DataError: the file cannot be read, a line is something else, or a prompt has two lines; the message names the
            line.
    """
    path = resolve(str(file))
    if path.suffix.lower() != ".jsonl":
        raise DataError(
            f"{path} is not a jsonl file; write one line of JSON for each prompt, and name it {path.stem}.jsonl"
        )
    found: dict[str, list[Atom]] = {}
    for row, record in jsonl_records(path):
        place = f"{path}, {row}"
        identity = _prompt_id(record, place)
        if identity in found:
            raise DataError(f"{place}: this prompt has a line already; put all of its atoms into one")
        listed = _listed(record, place)
        atoms: dict[str, Atom] = {}
        for question, skill, answer in listed:
            atoms.setdefault(question, Atom(identity, skill, question, answer))
        found[identity] = list(atoms.values())
    if not found:
        raise DataError(f"{path} has no lines; write one for each prompt")
    return found


def _prompt_id(record: Mapping[str, Any], place: str) -> str:
    prompt, identity = record.get("prompt"), record.get("prompt_id")
    text = trimmed(prompt) if isinstance(prompt, str) else ""
    if text and is_visible(text):
        if identity not in (None, content_id(text)):
            raise DataError(f"{place}: prompt_id {shown(identity)} is not that of its prompt; leave one of them out")
        return content_id(text)
    if isinstance(identity, str) and identity and prompt is None:
        return identity
    raise DataError(f"{place} has no prompt; add 'prompt', its text, or 'prompt_id'")


def _listed(record: Mapping[str, Any], place: str) -> list[tuple[str, str, str]]:
    if ("atoms" in record) == ("vqa_list" in record):
        raise DataError(f"{place} must have 'atoms', a list of {{question, skill}}, or 'vqa_list' and 'skills'")
    entries = _entries(record, place)
    if not 0 < len(entries) <= MOST:
        raise DataError(f"{place} has {len(entries)} atoms; write 1 to {MOST}")
    return [checked(*entry, f"{place}, atom {number}") for number, entry in enumerate(entries, start=1)]


def _entries(record: Mapping[str, Any], place: str) -> list[tuple[object, object, object]]:
    atoms, pairs, skills = record.get("atoms"), record.get("vqa_list"), record.get("skills")
    if pairs is not None:  # GenEval 2's
        if not isinstance(pairs, list) or not isinstance(skills, list) or len(pairs) != len(skills):
            raise DataError(f"{place}: 'vqa_list' and 'skills' must be lists of one length")
        if not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
            raise DataError(f"{place}: 'vqa_list' must be [question, answer] pairs")
        return [(question, skill, answer) for (question, answer), skill in zip(pairs, skills, strict=True)]
    if not isinstance(atoms, list) or not all(isinstance(atom, dict) for atom in atoms):
        raise DataError(f"{place}: 'atoms' must be a list of {{question, skill}}")
    for atom in atoms:
        if unknown := sorted(atom.keys() - set(KEYS)):
            raise DataError(f"{place}: an atom has the key '{unknown[0]}'{did_you_mean(unknown[0], KEYS)}")
    return [(atom.get("question"), atom.get("skill"), atom.get("answer", YES)) for atom in atoms]
