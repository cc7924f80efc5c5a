"""Soft-TIFA's means, and whether a text still states an atom."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import gmean

from semdpo.analysis.atoms import arithmetic_mean, geometric_mean, share_lost, states, stating_words
from semdpo.analysis.caption_atoms import caption_atoms
from semdpo.data.atoms import Atom


def test_the_means_are_those_of_soft_tifa() -> None:
    for seed in range(20):
        p = np.random.default_rng(seed).uniform(0, 1, 1 + seed % 7)
        assert arithmetic_mean(p) == pytest.approx(sum(p) / len(p), abs=1e-12)
        assert geometric_mean(p) == pytest.approx(gmean(p), abs=1e-12)
    assert geometric_mean([0.0, 0.9]) == 0.0
    for bad in ([], [1.2], [float("nan")], [[0.5]]):
        with pytest.raises(ValueError, match="probabilities must lie in"):
            arithmetic_mean(bad)


@pytest.mark.parametrize(
    ("prompt", "rewrite", "lost"),
    [
        ("two red balls on a table", "two large, red balls on a table, oil painting", ()),
        ("two red balls on a table", "2 red balls lie on the old wooden table", ()),
        ("two red balls on a table", "a red ball on a table", ("exactly two balls",)),
        ("a red ball and a blue cat", "a blue ball and a red cat", ("Is the ball red", "Is the cat blue")),
        ("a red ball and a blue cat", "a ball, red, and a blue cat", ()),
        ("a cat chasing a dog", "a dog chasing a cat", ("Is the cat chasing the dog",)),
        ("a cat", "two cats", ("exactly one cat",)),
        ("a cat", "a dog", ("show a cat", "exactly one cat")),
        ("a cat, at night", "a cat in the dark", ("at night",)),
    ],
)
def test_what_a_rewrite_loses_of_a_caption(prompt: str, rewrite: str, lost: tuple[str, ...]) -> None:
    atoms, unread = caption_atoms("x", prompt)
    assert unread == 0
    assert all(states(prompt, atom, "rules") for atom in atoms), "a prompt states its own atoms"
    gone = [atom.question for atom in atoms if not states(rewrite, atom, "rules")]
    assert len(gone) == len(lost)
    assert all(any(words in question for question in gone) for words in lost)
    assert share_lost(rewrite, atoms, "rules") == pytest.approx(len(lost) / len(atoms))


def test_the_words_that_state_a_question_of_any_origin() -> None:
    prompt = "Four white bicycles in front of 3 plastic cows"
    assert stating_words("How many bicycles are in the image?", "four", prompt) == "four bicycle"
    assert stating_words("How many cows are in the image?", "three", prompt) == "three cow"
    assert stating_words("Are the bicycles white?", "yes", prompt) == "white bicycle"
    assert stating_words("Are the bicycles in front of the cows?", "yes", prompt) == "bicycle front cow"
    assert stating_words("Is it nice?", "yes", prompt) == ""
    unknown = Atom("x", "object", "Is it nice?")
    assert states("anything", unknown, "lm") is None
    assert share_lost("anything", [unknown], "file") is None
    known = Atom("x", "object", "Are there cows?", words="cow")
    assert share_lost("a dog", [unknown, known], "file") == 1.0, "only what can be told counts"
