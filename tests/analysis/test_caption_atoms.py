"""The rules that make atoms of simple captions: what they ask, and what they leave out and count."""

from __future__ import annotations

import pytest

from semdpo.analysis.caption_atoms import caption_atoms


def _asked(caption: str) -> tuple[list[tuple[str, str]], int]:
    atoms, unread = caption_atoms("x", caption)
    return [(atom.skill, atom.question) for atom in atoms], unread


def test_a_caption_is_split_into_objects_counts_attributes_and_relations() -> None:
    assert _asked("Two red balls on a wooden table.") == (
        [
            ("object", "Does the image show any balls?"),
            ("count", "Does the image show exactly two balls?"),
            ("attribute", "Are the balls red?"),
            ("object", "Does the image show a table?"),
            ("count", "Does the image show exactly one table?"),
            ("attribute", "Is the table wooden?"),
            ("relation", "Are the balls on the table?"),
        ],
        0,
    )


def test_several_things_of_one_kind_are_not_counted_one_by_one() -> None:
    asked, unread = _asked("a red ball and two blue balls on a table")
    assert unread == 0
    assert [question for _, question in asked] == [
        "Does the image show a ball?",
        "Does the image show a red ball?",
        "Does the image show any balls?",
        "Does the image show any blue balls?",
        "Does the image show a table?",
        "Does the image show exactly one table?",
        "Are the balls on the table?",
    ]
    assert ("relation", "Is the ball on the ball?") not in _asked("a red ball on a blue ball")[0]


@pytest.mark.parametrize(
    ("caption", "skill", "question"),
    [
        ("a cat chasing a mouse", "relation", "Is the cat chasing the mouse?"),
        ("a fluffy cat sleeping on a sofa", "relation", "Is the fluffy cat sleeping on the sofa?"),
        ("a dog sleeping", "attribute", "Is the dog sleeping?"),
        ("a building next to an old king", "relation", "Is the building next to the king?"),
        ("the moon above a house at sunset", "scene", "Is the scene at sunset?"),
        ("a red and white ball", "attribute", "Is the ball white?"),
        ("a photo of three people", "count", "Does the image show exactly three people?"),
        ("3 cats", "count", "Does the image show exactly three cats?"),
        ("two sheep", "count", "Does the image show exactly two sheep?"),
        ("a fire truck", "object", "Does the image show a fire truck?"),
        ("four white bicycles in front of three plastic cows", "relation", "Are the bicycles in front of the cows?"),
    ],
)
def test_a_caption_gives_a_question(caption: str, skill: str, question: str) -> None:
    asked, unread = _asked(caption)
    assert (skill, question) in asked
    assert unread == 0


@pytest.mark.parametrize(
    ("caption", "atoms", "unread"),
    [
        ("a cat sits on a mat", 0, 1),
        ("portrait of a woman by greg rutkowski", 0, 1),
        ("a cat, highly detailed, 8k, trending on artstation", 2, 3),
        ("snow, red ball", 2, 1),
        ("a cat sleeping and a dog", 0, 1),
        ("in the garden", 0, 1),
        ("several cats", 0, 1),
        ("a cats", 0, 1),
        ("two cat", 0, 1),
        ("oil painting", 0, 1),
        ("a very long thing with many words", 0, 1),
        ("", 0, 0),
        ("and and and", 0, 1),
        ("!!!", 0, 0),
    ],
)
def test_what_cannot_be_read_is_left_out_and_counted(caption: str, atoms: int, unread: int) -> None:
    asked, count = _asked(caption)
    assert (len(asked), count) == (atoms, unread)


def test_no_question_asks_for_a_word_that_the_caption_does_not_have() -> None:
    asking = {"does", "is", "are", "the", "image", "show", "a", "an", "any", "exactly", "one", "scene", "at"}
    for caption in ("two red balls on a wooden table", "a fluffy cat sleeping on a red sofa in the garden"):
        for _, question in _asked(caption)[0]:
            assert set(question.lower().rstrip("?").split()) - asking <= set(caption.split())
