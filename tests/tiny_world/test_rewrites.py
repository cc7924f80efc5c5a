from __future__ import annotations

import random
import statistics
from dataclasses import replace

import pytest

from semdpo.tiny_world import facts, grammar, requests, rewrites
from semdpo.tiny_world.grammar import EMPTY_WORDS, STYLES
from semdpo.tiny_world.requests import Request
from tests.tiny_world.unseen import names_unseen

COUNT = 8000


@pytest.fixture(scope="module")
def examples() -> list[tuple[Request, str]]:
    rng = random.Random(31)
    asked = [requests.ask(rng) for _ in range(COUNT)]
    return [(request, rewrites.rewrite(request, rng)) for request in asked]


def test_equal_seeds_give_equal_rewrites() -> None:
    request = requests.ask(random.Random(1))
    texts = [rewrites.rewrite(request, random.Random(seed)) for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


def test_the_shares_of_additions_and_errors(examples: list[tuple[Request, str]]) -> None:
    read = [(facts.parse(request.prompt), facts.parse(text)) for request, text in examples]
    found = [facts.compare(asked, said) for asked, said in read]
    assert 0.44 < sum(bool(one.added) for one in found) / COUNT < 0.5
    assert 0.01 < sum(bool(one.wrong) for one in found) / COUNT < 0.03
    more = [
        sum(len(said.items) > len(asked.items) for asked, said in read) / COUNT,
        sum(len(said.places) > len(asked.places) for asked, said in read) / COUNT,
        sum(len(said.times) > len(asked.times) for asked, said in read) / COUNT,
    ]
    assert more == pytest.approx([0.29, 0.17, 0.09], abs=0.02)


def test_rewrites_are_two_to_three_times_as_long(examples: list[tuple[Request, str]]) -> None:
    ratios = [len(text.split()) / len(request.prompt.split()) for request, text in examples]
    assert 2 < statistics.median(ratios) < 3


def test_rewrites_hold_words_that_the_reader_knows(examples: list[tuple[Request, str]]) -> None:
    assert all(facts.parse(text).unread == () for _, text in examples)


def test_most_rewrites_end_with_styles_and_words_without_effect(examples: list[tuple[Request, str]]) -> None:
    texts = [text for _, text in examples]
    assert sum(any(style in text for style in STYLES) for text in texts) / COUNT == pytest.approx(0.9, abs=0.02)
    assert sum(any(words in text for words in EMPTY_WORDS) for text in texts) / COUNT == pytest.approx(0.9, abs=0.02)


def test_no_rewrite_names_a_held_out_combination_unasked(examples: list[tuple[Request, str]]) -> None:
    assert not any(names_unseen(text) for _, text in examples)
    rng = random.Random(32)
    for request, _ in examples[:3000]:
        assert not names_unseen(rewrites.add(request, rng).text)
        assert grammar.allowed(rewrites.slip(request.asked, rng))


def test_a_rewrite_of_a_held_out_combination_keeps_it() -> None:
    rng = random.Random(33)
    for _ in range(500):
        request = requests.ask(rng, held_out=True)
        text = rewrites.rewrite(request, rng, slips=1.0)
        assert names_unseen(text)
        assert facts.compare(facts.parse(request.prompt), facts.parse(text)).wrong == ()


def test_additions_leave_what_was_stated_alone(examples: list[tuple[Request, str]]) -> None:
    rng = random.Random(34)
    for request, _ in examples[:2000]:
        wording = rewrites.add(request, rng)
        assert facts.compare(facts.parse(request.prompt), facts.parse(wording.text)).wrong == ()
        assert wording.opening == ""


def test_additions_are_popular_more_often_than_chance() -> None:
    rng = random.Random(35)
    request = requests.ask(random.Random(1), count=1)
    request = replace(request, wording=replace(request.wording, items=("a red ball",), circumstances=()))
    request = replace(request, asked=replace(request.asked, place=None, time=None))
    texts = [rewrites.add(request, rng).text for _ in range(3000)]
    found = [facts.compare(facts.parse("a red ball"), facts.parse(text)) for text in texts]
    popular = [word for one in found for word in one.popular]
    things = sum(len([word for word in one.added if len(word.split()) == 2]) for one in found)
    assert popular.count("cat") / things > 2 / 12
    assert popular.count("purple") / things > 2 / 8
    assert popular.count("sunset") / 3000 == pytest.approx(0.15 * 3 / 5, abs=0.02)


def test_a_slip_exchanges_one_stated_fact() -> None:
    rng = random.Random(36)
    kinds = set()
    for _ in range(2000):
        asked = requests.request(rng)
        changed = rewrites.slip(asked, rng)
        before = [(item.thing, item.color, item.size) for item in asked.items]
        after = [(item.thing, item.color, item.size) for item in changed.items]
        differ = [
            kind
            for one, other in zip(before, after, strict=True)
            for kind, a, b in zip(("thing", "color", "size"), one, other, strict=True)
            if a != b
        ]
        differ += [kind for kind in ("place", "time") if getattr(asked, kind) != getattr(changed, kind)]
        assert len(differ) == 1
        kinds.update(differ)
        for fact in ("place", "time"):
            assert (getattr(asked, fact) is None) == (getattr(changed, fact) is None)
    assert kinds == {"thing", "color", "place", "time"}
