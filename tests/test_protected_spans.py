from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semdpo.protected_spans import LostSpanError, contains, join, protect


@pytest.mark.parametrize(
    ("prompt", "plain", "spans"),
    [
        ("a (red:1.2) ball", "a red ball", ["(red:1.2)"]),
        ("a ((red ball:1.2) in (snow):0.9), big", "a red ball in snow, big", ["((red ball:1.2) in (snow):0.9)"]),
        ("a cat, <lora:oil:0.8>, red", "a cat, red", ["<lora:oil:0.8>"]),
        ("<lora:oil:0.8> a cat", "a cat", ["<lora:oil:0.8>"]),
        ("a cat embedding:easy:1.1 in snow", "a cat in snow", ["embedding:easy:1.1"]),
        ("a [cat|dog] in [fog]", "a cat in fog", ["[cat|dog]", "[fog]"]),
        ("a [cat:dog:0.5] [:sun:3]", "a dog sun", ["[cat:dog:0.5]", "[:sun:3]"]),
        ("a {2$$red|blue} {0.5::hat|cap}", "a red hat", ["{2$$red|blue}", "{0.5::hat|cap}"]),
        ("a __pets/small_cat__ at sea", "a small cat at sea", ["__pets/small_cat__"]),
        ("saber \\(fate\\), 1girl", "saber fate, 1girl", ["\\(fate\\)", "1girl"]),
        ('a sign "OPEN (24h)"', "a sign OPEN (24h)", ['"OPEN (24h)"']),
        ("ein Schild „Offen“, «ouvert», “open”", "ein Schild Offen, ouvert, open", ["„Offen“", "«ouvert»", "“open”"]),
        ("three cats, 35mm f/1.8, 50% 4k.", "three cats, 35mm f/1.8, 50% 4k.", ["three", "35mm", "f/1.8", "50%", "4k"]),
        ("a cat --ar 16:9 --no dogs", "a cat", ["--ar 16:9 --no dogs"]),
        ("a cat\nNegative prompt: bad (hands:2) BREAK", "a cat", ["Negative prompt: bad (hands:2) BREAK"]),
        ("a cat's (ball", "a cat's (ball", []),
        ("don't say 'hi' ]", "don't say 'hi' ]", []),
        ("someone else's phone, often", "someone else's phone, often", []),
    ],
)
def test_what_is_protected(prompt: str, plain: str, spans: list[str]) -> None:
    (part,) = protect(prompt)
    assert part.plain == plain
    assert list(part.texts) == spans


@pytest.mark.parametrize(
    ("prompt", "rewrite", "restored"),
    [
        ("a (red:1.2) ball", "a photo of a Red ball, art", "a photo of a (red:1.2) ball, art"),
        ("a red ball, a (red:1.2) car", "a red ball and a red car", "a red ball and a (red:1.2) car"),
        ("a red ball, a (red:1.2) car", "a ball and a red car", "a ball and a (red:1.2) car"),
        ("(red:1.2), [red], red", "a red, red and red hat", "a (red:1.2), [red] and red hat"),
        ("<lora:oil:0.8>, a cat", "a fat cat", "<lora:oil:0.8>, a fat cat"),
        ("a cat, <lora:oil:0.8> red", "a red cat, art", "a red cat, art, <lora:oil:0.8>"),
        ('3 cats and "3 cats"', "3 cats by 3  cats", '3 cats by "3 cats"'),
        ("a cat --ar 16:9", "a cat, art", "a cat, art --ar 16:9"),
        ("a cat\nNegative prompt: dogs", "a cat, art", "a cat, art\nNegative prompt: dogs"),
    ],
)
def test_spans_are_put_back_where_they_belong(prompt: str, rewrite: str, restored: str) -> None:
    (part,) = protect(prompt)
    assert part.restore(rewrite) == restored


@pytest.mark.parametrize(
    ("prompt", "rewrite", "lost"),
    [
        ("a (red:1.2) ball", "a purple ball", "(red:1.2)"),
        ("a (red:1.2) ball", "a sacred ball", "(red:1.2)"),
        ("(red:1.2) and [red]", "a red ball", "[red]"),
        ("three cats", "cats", "three"),
        ('a sign "OPEN"', "a sign", '"OPEN"'),
    ],
)
def test_a_rewrite_without_the_words_is_refused(prompt: str, rewrite: str, lost: str) -> None:
    with pytest.raises(LostSpanError) as raised:
        protect(prompt)[0].restore(rewrite)
    assert raised.value.text in (lost, "(red:1.2)")


def test_what_the_user_names_is_kept() -> None:
    (part,) = protect("a Red  ball and a (red:1.2) car in the snow", ["red", "car in", "dog"])
    assert part.texts == ("Red", "(red:1.2)", "car in")
    assert part.restore("a red car in a red hall") == "a Red car in a (red:1.2) hall"
    (part,) = protect("a (red:1.2) ball, <lora:x:1> big", ["red ball"])
    assert part.texts == ("(red:1.2) ball", "<lora:x:1>")
    assert contains("a (red:1.2) Ball", "red ball")
    assert not contains("a (red:1.2) Balloon", "red ball")


def test_parts_are_rewritten_one_by_one() -> None:
    prompt = "a cat BREAK a (dog AND bird:1.2)\nBREAK\n fog AND sea"
    parts = protect(prompt)
    assert [part.plain for part in parts] == ["a cat", "a dog AND bird", "fog", "sea"]
    rewrites = [part.restore(part.plain + ", art") for part in parts]
    assert join(prompt, rewrites) == "a cat, art BREAK a (dog AND bird:1.2), art\nBREAK\n fog, art AND sea, art"
    assert [part.plain for part in protect("BREAK a cat BREAK")] == ["", "a cat", ""]
    assert [part.plain for part in protect("A CAT AND A DOG")] == ["A CAT AND A DOG"]


PIECES = st.sampled_from(
    [
        *(
            "a red ball",
            "cat",
            ", ",
            " ",
            "\n",
            "BREAK",
            " AND ",
            "(red:1.2)",
            "((big))",
            "[cat|dog]",
            "{a|b}",
            "(",
            "]",
        ),
        *("<lora:x:0.8>", "__pets__", "embedding:neg", '"OPEN"', "three", "35mm", "\\(fate\\)", "é", "🐈", "--ar 16:9"),
        *("[a:b:0.5]", "“", "”", "\\", "|", ":", "(", "]", "negative prompt: x", "_", "1", ".", "<", ">"),
    ]
)


@settings(max_examples=1000, deadline=None)
@given(st.lists(PIECES, max_size=14).map("".join), st.lists(st.sampled_from(["red", "a red ball", "cat"]), max_size=2))
def test_a_rewrite_that_says_the_same_has_every_span(prompt: str, keep: list[str]) -> None:
    parts = protect(prompt, keep)
    restored = join(prompt, [part.restore(part.plain) for part in parts])
    for part in parts:
        for text in part.texts:
            assert text in restored
    assert sorted("".join(restored.replace(",", "").split())) == sorted("".join(prompt.replace(",", "").split()))


@settings(max_examples=1000, deadline=None)
@given(st.lists(PIECES, max_size=14).map("".join), st.integers(0, 10**6))
def test_no_rewrite_loses_a_span(prompt: str, seed: int) -> None:
    """A rewriter that shuffles, drops, repeats and adds words either keeps every span, or is refused."""
    rng = Random(seed)
    for part in protect(prompt):
        words = [word for word in part.plain.split() for _ in range(rng.choice((0, 1, 1, 1, 2)))] + ["art"]
        rng.shuffle(words)
        try:
            restored = part.restore(" ".join(words))
        except LostSpanError:
            continue
        for text in set(part.texts):
            assert restored.count(text) >= part.texts.count(text)


@pytest.mark.parametrize(
    "text", ["(", "(((([[", "_", "__a", "a/", "a-", '"', "<a:", "--a ", "1.", "BREAK ", "(a:1) ", "\\("]
)
def test_long_and_odd_prompts_are_read_quickly(text: str) -> None:
    prompt = "x " + text * (10_000 // len(text))
    assert join(prompt, [part.restore(part.plain) for part in protect(prompt, ["a"])])
    closed = "(" * 5000 + "a" + ")" * 5000
    assert protect(closed)[0].restore("a") == closed
