from __future__ import annotations

import pytest

from semdpo.analysis.wording import CLICHES, cliches, content_words, repetition


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("a red ball on the grass", 0.0),
        ("", 0.0),
        ("red ball", 0.0),
        ("a red ball, a red ball", 1 / 4),  # a-red-ball twice among four
        ("no no no no no", 2 / 3),
        ("A RED ball. a red-ball", 1 / 4),  # case and marks do not count
    ],
)
def test_repetition(text: str, share: float) -> None:
    assert repetition(text) == pytest.approx(share)


def test_cliches_are_those_that_the_user_did_not_write() -> None:
    assert cliches("a cat", "a cat, Highly Detailed, 8K, trending on ArtStation") == [
        "highly detailed",
        "8k",
        "trending on artstation",
    ]
    assert cliches("a cat, 8k", "a cat, 8k, 8k, masterpiece") == ["masterpiece"]
    assert cliches("a cat", "a smoothie on a canvas") == [], "whole words only"
    assert cliches("a cat", "") == []
    assert cliches("a cat, intricate details", "a cat, intricate, 4k") == ["4k"], "a part of what the user wrote"
    assert cliches("a cat, trending on artstation", "artstation, a cat") == []


def test_the_list_is_in_order_without_doubles() -> None:
    assert list(CLICHES) == sorted(set(CLICHES))


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("A red ball, on the RED mat!", ["red", "ball", "mat"]),
        ("of the and with", []),
        ("", []),
        ("un café à Paris", ["un", "café", "à", "paris"]),
        ("cafe\u0301 ❤\ufe0f au_lait", ["cafe\u0301", "au", "lait"]),
        ("लाल गेंद, रेगिस्तान में", ["लाल", "गेंद", "रेगिस्तान", "में"]),  # vowels are signs of their own
    ],
)
def test_content_words(text: str, kept: list[str]) -> None:
    assert content_words(text) == kept
