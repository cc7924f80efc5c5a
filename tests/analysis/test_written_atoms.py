"""What a language model answers when it is asked for atoms: read strictly, or refused with a reason."""

from __future__ import annotations

import pytest

from semdpo.analysis.written_atoms import read_written

CAT = '{"question": "Is there a cat?", "skill": "object"}'
RED = '{"question": "Is the cat red?", "skill": "attribute"}'


@pytest.mark.parametrize(
    "answer",
    [f"{CAT}\n{RED}", f"```json\n{CAT}\n{RED}\n```", f"<think>hm</think>\n{CAT} {RED}", f"{CAT}\n{RED}\n{CAT}\n"],
)
def test_lines_of_json_are_atoms(answer: str) -> None:
    atoms, reason = read_written(answer, False, "x", "a red cat")
    assert reason == ""
    assert [(a.prompt_id, a.skill, a.question, a.words) for a in atoms] == [
        ("x", "object", "Is there a cat?", "cat"),
        ("x", "attribute", "Is the cat red?", "red cat"),
    ]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("", "it has 0 questions"),
        ("I cannot help with that.", "it is not lines of JSON"),
        (f"Here you are: {CAT}", "it is not lines of JSON"),
        (f"{CAT}\nDone!", "it is not lines of JSON"),
        (f"[{CAT}]", "without exactly a question and a skill"),
        ('{"question": "Is there a cat?"}', "without exactly a question and a skill"),
        ('{"question": "Is there a cat?", "skill": "object", "id": 1}', "without exactly a question and a skill"),
        ('{"question": "A cat.", "skill": "object"}', "is not a question"),
        ('{"question": "Is there a cat?", "skill": "colour"}', "the skill 'colour' is unknown"),
        ('{"question": "How many cats are there?", "skill": "count"}', "does not fit"),
        ('{"question": 3, "skill": "object"}', "is not a question"),
        ("<think>still", "truncated"),
        ("[" * 5000, "it is not lines of JSON"),
    ],
)
def test_another_answer_is_refused_as_a_whole(answer: str, reason: str) -> None:
    atoms, said = read_written(answer, False, "x", "a red cat")
    assert atoms == []
    assert reason in said


def test_a_truncated_answer_is_refused_although_its_lines_are_whole() -> None:
    assert read_written(CAT, True, "x", "a cat") == ([], "the token budget truncated it")
