from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from semdpo.tiny_world import requests, rewrites, wordings
from semdpo.tiny_world.facts import Comparison, Facts, compare, parse
from semdpo.tiny_world.grammar import EMPTY_WORDS, STYLES, Item, Scene
from semdpo.tiny_world.wordings import BEFORE, OPENINGS, WAYS

NOTHING: tuple[str, ...] = ()


def _compare(prompt: str, rewrite: str) -> Comparison:
    return compare(parse(prompt), parse(rewrite))


def _is_of(facts: Facts, scene: Scene) -> bool:
    """Whether facts are exactly those of a scene; "and" leaves the order of two things open."""
    in_order = facts.items == scene.items
    return (
        (in_order if facts.ordered else Counter(facts.items) == Counter(scene.items))
        and facts.layout == (scene.layout if len(scene.items) == 2 else None)
        and facts.places == ((scene.place,) if scene.place else ())
        and facts.times == ((scene.time,) if scene.time else ())
        and facts.unread == ()
    )


@pytest.mark.slow
def test_every_wording_of_a_request_is_read_back() -> None:
    rng = Random(11)
    for k in range(5000):
        asked = requests.request(rng, held_out=k % 5 == 0)
        texts = [wordings.say(wordings.compose(asked, rng), way, rng) for way in WAYS]
        texts.append(rewrites.tail(wordings.wording(asked, rng), rng))
        texts.append(wordings.as_typed(wordings.compose(asked, rng), rng))
        read = [parse(text) for text in texts]
        for text, facts in zip(texts, read, strict=True):
            assert _is_of(facts, asked), (asked, text, facts)
        for one, other in zip(read, read[1:] + read[:1], strict=True):
            assert compare(one, other) == Comparison(compare(one, one).stated, (), 0, (), ()), texts


def test_the_facts_of_a_rewrite_are_those_of_its_prompt_and_what_was_added() -> None:
    rng = Random(12)
    for _ in range(1500):
        request = requests.ask(rng)
        found = _compare(request.prompt, rewrites.rewrite(request, rng, slips=0.0))
        assert found.wrong == ()
        assert len(found.added) <= 3
        slipped = _compare(request.prompt, wordings.wording(rewrites.slip(request.asked, rng), rng))
        assert slipped.wrong


def test_every_stated_fact_is_counted() -> None:
    rng = Random(13)
    for _ in range(300):
        asked = requests.request(rng)
        stated = sum(1 + (item.color is not None) + (item.size is not None) for item in asked.items)
        stated += (len(asked.items) == 2) + (asked.place is not None) + (asked.time is not None)
        facts = parse(wordings.wording(asked, rng))
        assert compare(facts, facts).stated == stated


@pytest.mark.parametrize(
    ("prompt", "rewrite", "wrong"),
    [
        ("a red cat", "a red car", "cat → car"),
        ("a red cat", "a blue cat", "red → blue"),
        ("a small red cat", "a huge red cat", "small → large"),
        ("a small red cat", "a red cat", "small is missing"),
        ("a red cat", "a cat", "red is missing"),
        ("a red cat and a small blue car", "a red cat", "small blue car is missing"),
        ("a red cat above a blue car", "a red cat below a blue car", "arrangement"),
        ("a red cat above a blue car", "a blue car over a red cat", "arrangement"),
        ("a red cat to the left of a blue car", "a red cat to the right of a blue car", "arrangement"),
        ("a red cat next to a blue car", "a red cat above a blue car", "arrangement"),
        ("a red cat above a blue car", "a red cat and a blue car", "arrangement"),
        ("a red cat above a red car", "a purple flower, a red car above a red cat", "arrangement"),
        ("a red cat at sea", "a red cat in the city", "sea → city"),
        ("a red cat at sea", "a red cat", "sea is missing"),
        ("a red cat at night", "a red cat at sunset", "night → sunset"),
        ("a red cat at night", "a red cat", "night is missing"),
    ],
)
def test_a_wrong_fact_is_named(prompt: str, rewrite: str, wrong: str) -> None:
    assert _compare(prompt, rewrite).wrong == (wrong,)


@pytest.mark.parametrize(
    ("prompt", "rewrite"),
    [
        ("a red cat above a blue car", "blue car below red cat"),
        ("a red cat left of a blue car", "a blue car to the right of a red cat"),
        ("a red cat and a blue car", "a blue car and a red cat"),
        ("a red cat to the left of a blue car", "a blue car and a red cat"),
        ("a red cat beside a blue car", "blue car, red cat"),
        ("a red cat above a blue car", "a red cat above a blue car and a green tree"),
        ("a red cat above a blue car", "a green tree and a red cat above a blue car"),
    ],
)
def test_the_arrangement_holds(prompt: str, rewrite: str) -> None:
    assert _compare(prompt, rewrite).wrong == ()


def test_colours_swapped_between_two_things_are_two_errors() -> None:
    found = _compare("a red cat above a blue car", "a blue cat above a red car")
    assert found.wrong == ("red → blue", "blue → red")
    assert found.added == NOTHING


@pytest.mark.parametrize(
    ("prompt", "rewrite", "added"),
    [
        ("a red car", "a red car and a small blue tree", ("small blue tree",)),
        ("a red car", "a blue tree above a red car, a fish", ("blue tree", "fish")),
        ("a car", "a red car", ("red",)),
        ("a red car", "a large red car", ("large",)),
        ("a red car", "a red car at sea", ("sea",)),
        ("a red car", "a red car at night", ("night",)),
        ("a red car", "a red car at sea in the city", ("sea", "city")),
        ("a red car at sea", "a red car at sea in the city", ("city",)),
        ("a red car at sea", "a red car in the snow in the city", ("city",)),  # the snow stands in for the sea
        ("a red car and a blue tree", "a red car and a blue tree and a red car", ("red car",)),
        ("a red car", "red car red car red car", ("red car", "red car")),
    ],
)
def test_content_that_was_not_asked_for_is_added(prompt: str, rewrite: str, added: tuple[str, ...]) -> None:
    assert _compare(prompt, rewrite).added == added


def test_a_repeated_thing_is_found_wherever_it_stands() -> None:
    assert _compare("a red ball", ", ".join(["a cat"] * 7 + ["a red ball"])).wrong == ()
    crowd = "a red ball, a cat, a blue car, a tree, a fish, a star, a bird, a house, a boat, a flower, a white cat"
    assert _compare(crowd, crowd) == Comparison(15, (), 0, (), ())
    same = "a red ball above a red ball"
    assert _compare(same, same).wrong == ()


@pytest.mark.parametrize(
    ("prompt", "rewrite", "popular"),
    [
        ("a red car", "a red car and a purple cat at sunset", ("cat", "purple", "sunset")),
        ("a red car", "a red car and a flower", ("flower",)),
        ("a red car at night", "a purple car at dusk", ("purple", "sunset")),
        ("a purple cat at sunset", "a purple cat at sunset and a purple cat", ()),
        ("a red car", "a red car and a blue tree at night, vivid colors", ()),
    ],
)
def test_popular_content_is_named_in_place_of_other_content_too(
    prompt: str, rewrite: str, popular: tuple[str, ...]
) -> None:
    assert _compare(prompt, rewrite).popular == popular


def test_an_empty_rewrite_leaves_everything_out() -> None:
    found = _compare("a small red cat above a blue car at sea at night", "")
    assert found.stated == found.lost == 8
    assert found.wrong == ("small red cat is missing", "blue car is missing", "sea is missing", "night is missing")
    assert found.added == found.popular == ()
    assert _compare("", "").stated == 0
    assert _compare("", "a red cat").added == ("red cat",)


def test_styles_and_words_without_effect_are_no_content() -> None:
    text = ", ".join(["a red car", *STYLES, *EMPTY_WORDS])
    assert parse(text) == parse("a red car")
    assert parse(" ".join(["red car", *STYLES, *EMPTY_WORDS])) == parse("a red car")
    assert _compare("a red car", text) == Comparison(2, (), 0, (), ())


@pytest.mark.parametrize("polite", [*BEFORE, *OPENINGS])
def test_words_that_only_ask_are_read(polite: str) -> None:
    assert parse(f"{polite}a red car please") == parse("a red car")


def test_capitals_and_punctuation_make_no_difference() -> None:
    plain = parse("a red cat left of a blue car at sea")
    for text in (
        "A RED CAT LEFT OF A BLUE CAR AT SEA.",
        "A red cat, left of: a blue car (at sea)!",
        "a red cat;  to the left, of a blue car -- at sea?",
    ):
        assert parse(text) == plain, text


def test_words_of_no_world_are_unread() -> None:
    assert parse("a red dragon at sea").unread == ("red", "dragon")
    assert parse("it's a photo-realistic car!").unread == ("it's", "photo-realistic")
    assert parse("a car, blue").unread == ("blue",)


@pytest.mark.parametrize(
    ("text", "items", "places", "times"),
    [
        ("a white star under the stars", [("star", "white")], (), ("night",)),
        ("star stars", [("star", None)], (), ("night",)),
        ("a boat, watercolor", [("boat", None)], (), ()),
        ("a boat on the water, watercolor", [("boat", None)], ("sea",), ()),
        ("watercolor boat water", [("boat", None)], ("sea",), ()),
        ("a car in a green field", [("car", None)], ("meadow",), ()),
        ("in a green field, a car", [("car", None)], ("meadow",), ()),
        ("car green field", [("car", None)], ("meadow",), ()),
        ("green car, green field", [("car", "green")], ("meadow",), ()),
        ("a green car on a snowy field", [("car", "green")], ("snow",), ()),
        ("a red bird over the ocean and a blue boat", [("bird", "red"), ("boat", "blue")], ("sea",), ()),
        ("a red small ball", [("ball", "red")], (), ()),
        ("night sky red kitty city street daylight", [("cat", "red")], ("city",), ("night", "day")),
    ],
)
def test_words_that_look_alike_are_told_apart(
    text: str, items: list[tuple[str, str | None]], places: tuple[str, ...], times: tuple[str, ...]
) -> None:
    facts = parse(text)
    assert [(item.thing, item.color) for item in facts.items] == items
    assert (facts.places, facts.times, facts.unread) == (places, times, ())


def test_a_place_between_two_things_does_not_arrange_them() -> None:
    facts = parse("a red bird over the ocean and a blue boat")
    assert (facts.layout, facts.ordered) == ("row", False)


def test_size_and_colour_may_stand_in_either_order() -> None:
    assert parse("a tiny red ball").items == parse("a red small ball").items == (Item("ball", "red", "small"),)
