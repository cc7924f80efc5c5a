"""How words of prompt and rewrite are compared, and how numbers are written."""

from __future__ import annotations

import math
import time

import pytest

from semdpo.analysis.statistics import Difference
from semdpo.reporting.formats import decimals, number, signed
from semdpo.reporting.words import Word, runs, word_marks


def test_word_marks():
    marks = word_marks("A red ball", "a RED cube, oil painting")
    assert marks == [
        Word("a", "same"),
        Word("RED", "same"),
        Word("cube,", "added"),
        Word("oil", "added"),
        Word("painting", "added"),
        Word("ball", "lost"),
    ]
    assert all(word.kind == "same" for word in word_marks("two cats", "two cats ."))
    assert [w.text for w in word_marks("x", "") if w.kind == "lost"] == ["x"]


@pytest.mark.parametrize(
    ("prompt", "rewrite", "added", "lost"),
    [
        ("yellow fish below a red cat", "red fish below a yellow cat", ["red", "yellow"], ["yellow", "red"]),
        ("a cat on a dog", "a dog on a cat", ["dog", "cat"], ["cat", "dog"]),
        ("red cat, blue dog", "Red cat, red dog", ["red"], ["blue"]),
        ("the cat", "cat cat", ["cat"], []),
        ("a cat by the sea", "A cat, by a sea.", [], []),
        ("a cat at night", "at night, a cat", ["cat"], ["cat"]),
        ("a cat", "", [], ["cat"]),
    ],
)
def test_words_are_compared_in_their_order(prompt, rewrite, added, lost):
    marks = word_marks(prompt, rewrite)
    assert [w.text for w in marks if w.kind != "lost"] == rewrite.split(), "nothing of the rewrite is left out"
    assert [w.text for w in marks if w.kind == "added"] == added
    assert [w.text for w in marks if w.kind == "lost"] == lost


def test_long_texts_are_compared_quickly():
    begun = time.monotonic()
    word_marks("a b c d e f g " * 3000, "b a d c " * 5000)
    word_marks("x " * 900, "x y " * 500)
    assert time.monotonic() - begun < 10


def test_neighbouring_words_share_a_mark():
    assert [w.text for w in runs(word_marks("a red ball", "a red ball, oil painting"))] == [
        "a red ball,",
        "oil painting",
    ]


def test_an_end_off_zero_is_not_printed_as_zero():
    assert signed(Difference(0.015, 0.0004, 0.030, 0.04, 0.04, 0.02, 9)) == ("+0.0150", "[+0.0004, +0.0300]")
    assert signed(Difference(0.015, 0.004, 0.026, 0.01, 0.01, 0.02, 9)) == ("+0.015", "[+0.004, +0.026]")


@pytest.mark.parametrize(
    ("half", "places"),
    [(12.0, 0), (1.5, 1), (0.5, 1), (0.05, 2), (0.012, 3), (0.0, 2), (math.nan, 2), (1e-9, 5), (1e-16, 2)],
)
def test_decimals(half, places):
    assert decimals(half) == places


def test_numbers():
    assert number(-0.12, 2) == "−0.12"
    assert number(0.12, 1, sign=True) == "+0.1"
    assert number(-0.0001, 2, sign=True) == "0.00"
