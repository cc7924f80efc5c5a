from __future__ import annotations

import random
import re
from collections import Counter
from dataclasses import replace

import pytest

from semdpo.tiny_world import grammar, requests, wordings
from semdpo.tiny_world.grammar import EMPTY_WORDS, PLACE_WORDS, SIZE_WORDS, STYLES, THING_WORDS, TIME_WORDS, Item, Scene
from semdpo.tiny_world.wordings import BEFORE, WAYS, Wording
from tests.tiny_world.unseen import names_unseen

ARTICLES = {"a", "an", "the"}
ARTICLES_AND_PREPOSITIONS = {*wordings.SMALL_WORDS, "above", "over", "below", "beside", "next", "to", "for"}
TWO = Wording(
    ("a small red cat", "an automobile"), "to the left of", ("in front of a skyline", "at night"), "a photo of "
)


def _words(text: str) -> set[str]:
    return set(re.findall(r"[a-z]+", text.lower()))


def test_equal_seeds_give_equal_texts() -> None:
    def texts(seed: int) -> list[str]:
        rng = random.Random(seed)
        captions = [wordings.caption(grammar.scene(rng), rng)[0] for _ in range(50)]
        return captions + [wordings.as_typed(wordings.compose(requests.request(rng), rng), rng) for _ in range(50)]

    assert texts(1) == texts(1)
    assert texts(1) != texts(2)


@pytest.mark.parametrize("way", WAYS)
def test_every_way_names_every_stated_fact(way: str) -> None:
    rng = random.Random(4)

    def names_one(phrases: tuple[str, ...], text: str) -> bool:
        return any(set(words.split()) - wordings.SMALL_WORDS <= _words(text) for words in phrases)

    for _ in range(500):
        request = requests.request(rng)
        text = wordings.say(wordings.compose(request, rng), way, rng)
        for item in request.items:
            assert item.color is None or item.color in _words(text)
            assert item.size is None or names_one(SIZE_WORDS[item.size], text)
            assert names_one(THING_WORDS.get(item.thing, (item.thing,)), text)
        assert request.place is None or names_one(PLACE_WORDS[request.place], text)
        assert request.time is None or names_one(TIME_WORDS[request.time], text)


def test_the_ways_of_one_wording() -> None:
    rng = random.Random(0)
    said = {way: wordings.say(TWO, way, rng) for way in WAYS}
    chatty = said.pop("chatty")
    assert said == {
        "caption": "a photo of a small red cat to the left of an automobile in front of a skyline at night",
        "without articles": "photo of small red cat to left of automobile in front of skyline at night",
        "telegraphic": "small red cat left of automobile skyline night",
        "tags": "small red cat left of automobile, skyline, night",
    }
    assert chatty.startswith(BEFORE)
    assert "a small red cat to the left of an automobile in front of a skyline at night" in chatty


def test_only_a_relation_that_says_and_is_left_out() -> None:
    rng = random.Random(0)
    for relation in ("and", "next to", "beside"):
        wording = replace(TWO, relation=relation, circumstances=())
        assert wordings.say(wording, "telegraphic", rng) == "small red cat automobile"
        assert wordings.say(wording, "tags", rng) == "small red cat, automobile"
    for relation in ("above", "over", "below"):
        wording = replace(TWO, relation=relation, circumstances=())
        for way in ("telegraphic", "tags"):
            assert wordings.say(wording, way, rng) == f"small red cat {relation} automobile"


def test_circumstances_may_come_first() -> None:
    first = replace(TWO, in_front=True)
    assert first.text.startswith("in front of a skyline at night, a photo of a small red cat")
    assert replace(first, circumstances=()).text == replace(TWO, circumstances=()).text
    rng = random.Random(0)
    assert all("in front of a skyline at night, " not in wordings.say(first, "chatty", rng) for _ in range(50))


def test_no_chatty_prompt_asks_for_a_picture_of_a_picture() -> None:
    rng = random.Random(1)
    texts = [wordings.say(TWO, "chatty", rng) for _ in range(500)]
    assert all(any(text.startswith(before) for text in texts) for before in BEFORE)
    assert not any(re.search(r"of (a|an) (picture|photo|image) of", text) for text in texts)


def test_left_and_right_say_the_same_scene() -> None:
    row = Scene((Item("cat", "red", None), Item("car", "blue", None)), "row", None, None)
    texts = {wordings.wording(row, random.Random(k)).removeprefix("a photo of ") for k in range(200)}
    assert any("a red cat to the left of a blue" in text for text in texts)
    assert any("to the right of a red" in text for text in texts)
    assert not any(text.endswith("to the right of a blue car") for text in texts)


def test_above_and_below_say_the_same_scene() -> None:
    stack = Scene((Item("tree", "red", None), Item("fish", "blue", None)), "stack", None, None)
    texts = {replace(wordings.compose(stack, random.Random(k)), opening="").text for k in range(100)}
    assert texts == {
        "a red tree above a blue fish",
        "a red tree over a blue fish",
        "a blue fish below a red tree",
    }


def test_a_name_has_the_article_of_its_first_word() -> None:
    rng = random.Random(2)
    assert wordings.name(Item("umbrella", None, None), rng) == "an umbrella"
    assert wordings.name(Item("umbrella", "red", None), rng) == "a red umbrella"
    cars = {wordings.name(Item("car", None, None), rng) for _ in range(50)}
    assert cars == {"a car", "an automobile"}


def test_prompts_leave_words_out_as_often_as_real_ones() -> None:
    rng = random.Random(3)
    texts = [requests.ask(rng).prompt for _ in range(8000)]
    without_article = sum(not _words(text) & ARTICLES for text in texts) / len(texts)
    assert without_article == pytest.approx(0.4, abs=0.03)
    bare = sum(not _words(text) & ARTICLES_AND_PREPOSITIONS for text in texts) / len(texts)
    assert bare == pytest.approx(0.19, abs=0.03)
    assert sum(text[0].isupper() for text in texts) / len(texts) == pytest.approx(wordings.CAPITAL, abs=0.02)
    assert sum(text.endswith(".") for text in texts) / len(texts) == pytest.approx(wordings.FULL_STOP, abs=0.01)


def test_every_way_is_used_as_often_as_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    used: Counter[str] = Counter()
    monkeypatch.setattr(wordings, "say", lambda wording, way, rng: used.update([way]) or way)
    rng = random.Random(4)
    for _ in range(5000):
        wordings.as_typed(TWO, rng)
    assert {way: count / 5000 for way, count in used.items()} == pytest.approx(WAYS, abs=0.02)
    used.clear()
    for _ in range(5000):
        wordings.written(TWO, 1.0, rng)
    casual = {way: 2 * share for way, share in WAYS.items() if way != "caption"}
    assert {way: count / 5000 for way, count in used.items()} == pytest.approx(casual, abs=0.03)


def _shares(captions: wordings.Captions, count: int) -> tuple[float, float, float]:
    """The shares of captions that name a style, are casual, and have words without effect."""
    rng = random.Random(5)
    styled = casual = empty = 0
    for _ in range(count):
        full = grammar.scene(rng)
        text, said = wordings.caption(full, rng, captions)
        assert {style for style in STYLES if style in text} == set(said.styles) <= set(full.styles)
        assert not names_unseen(text)
        styled += bool(said.styles)
        casual += text.startswith(BEFORE) or not _words(text) & ARTICLES
        empty += any(words in text for words in EMPTY_WORDS)
    return styled / count, casual / count, empty / count


def test_the_captions_of_encoders_hardly_ever_name_a_style_and_are_often_casual() -> None:
    styled, casual, empty = _shares(wordings.WEB, 8000)
    assert 0.05 < styled < 0.1
    assert 0.2 < casual < 0.3
    assert 0.2 < empty < 0.3


def test_the_captions_of_the_renderer_are_sentences_and_often_name_a_style() -> None:
    styled, casual, empty = _shares(wordings.DESCRIPTIVE, 3000)
    assert 0.35 < styled < 0.5
    assert casual == 0
    assert 0.35 < empty < 0.45


def test_a_caption_says_what_its_facts_are() -> None:
    rng = random.Random(6)
    for _ in range(500):
        text, said = wordings.caption(grammar.scene(rng), rng)
        colors = [item.color for item in said.items if item.color]
        assert sorted(colors) == sorted(re.findall("|".join(grammar.COLORS), text.replace("green field", "")))


@pytest.mark.parametrize("empty", [0, 1, 2])
def test_decoration_follows_the_text(empty: int) -> None:
    text = wordings.decorate("a red ball", ("vintage",), empty, random.Random(1))
    assert text.startswith("a red ball, ")
    assert len(text.split(", ")) == 2 + empty


def test_nothing_is_appended_to_a_text_without_decoration() -> None:
    assert wordings.decorate("a red ball", (), 0, random.Random(1)) == "a red ball"
