"""Rewrites are shortened by whole clauses, and never lose their first one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from semdpo.errors import ConfigError
from semdpo.fitting import fitted, most_tokens


def words(text: str) -> int:
    return len(text.split())


@pytest.mark.parametrize(
    ("rewrite", "most", "banned", "truncated", "wanted"),
    [
        ("a cat, oil, at sunset", 9, (), False, "a cat, oil, at sunset"),
        ("a cat, oil, at sunset", 4, (), False, "a cat, oil"),
        ("a cat, oil, at sunset", 2, (), False, "a cat"),
        ("a cat, oil, at sunset", 1, (), False, None),
        ("a cat, oil, at sunset", None, ("OIL",), False, "a cat, at sunset"),
        ("a cat, oily", None, ("oil",), False, "a cat, oily"),
        ("an oil cat, art", None, ("oil",), False, None),
        ("a cat, at  the Sunset, art", None, ("at the sunset",), False, "a cat, art"),
        ("a cat, very high def", None, (), True, "a cat"),
        ("a cat very high def", None, (), True, "a cat very high def"),
        ("1,000 cats, 2.5 dogs", 2, (), False, "1,000 cats"),
        ("a cat, oil, art", None, ("cat, art",), False, "a cat, oil, art"),
        ("a cat, 夕日の海, oil", None, ("夕日",), False, "a cat, oil"),  # no blanks between words
        ("可爱的猫在沙漠", None, ("猫",), False, None),
        ("a cat, 귀여운 고양이가, oil", None, ("고양이",), False, "a cat, oil"),
        ("a cat, 猫cat猫", None, ("cat猫",), False, "a cat"),
        ("a cat, 4.5 stars, 4 birds", None, ("4",), False, "a cat, 4.5 stars"),
        ("a cat, закаты, oil", None, ("закат",), False, "a cat, закаты, oil"),
        ("a cat, oil, art", None, ("oil", "cat, art"), False, None),
    ],
)
def test_clauses_are_left_out(
    rewrite: str, most: int | None, banned: tuple[str, ...], truncated: bool, wanted: str | None
) -> None:
    assert fitted(rewrite, most, words, banned, truncated) == wanted


@given(st.lists(st.text("ab ", min_size=1, max_size=9), min_size=1, max_size=5), st.integers(1, 9))
def test_what_is_left_is_a_beginning_that_fits(clauses: list[str], most: int) -> None:
    rewrite = ", ".join(clause.strip() or "c" for clause in clauses)
    text = fitted(rewrite, most, words)
    if text is None:
        assert words(rewrite.split(", ")[0]) > most
    else:
        assert rewrite.startswith(text)
        assert words(text) <= most
        rest = rewrite[len(text) :].removeprefix(", ").split(", ")[0]
        assert rest == "" or words(f"{text}, {rest}") > most


def test_classes_are_shares_of_what_the_renderer_reads() -> None:
    found = [most_tokens(length, 75) for length in ("short", "medium", "long", None, 1, 75)]
    assert found == [18, 37, 75, 75, 1, 75]
    assert most_tokens("short", 3) == 1
    for length in ("", "Short", 0, 76, True, -1):
        with pytest.raises(ConfigError):
            most_tokens(length, 75)
