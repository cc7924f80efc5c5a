from __future__ import annotations

import random

import pytest

from semdpo.tiny_world import facts, grammar, requests
from semdpo.tiny_world.grammar import HELD_OUT
from tests.tiny_world.unseen import names_unseen

COUNT = 8000


@pytest.fixture(scope="module")
def asked() -> list[requests.Request]:
    rng = random.Random(21)
    return [requests.ask(rng) for _ in range(COUNT)]


def test_equal_seeds_give_equal_requests(asked: list[requests.Request]) -> None:
    rng = random.Random(21)
    assert [requests.ask(rng) for _ in range(100)] == asked[:100]
    assert requests.ask(random.Random(22)) != asked[0]


def test_the_shares_of_stated_facts(asked: list[requests.Request]) -> None:
    scenes = [request.asked for request in asked]
    items = [item for scene in scenes for item in scene.items]
    shares = {
        "one thing": sum(len(scene.items) == 1 for scene in scenes) / COUNT,
        "place": sum(scene.place is not None for scene in scenes) / COUNT,
        "time": sum(scene.time is not None for scene in scenes) / COUNT,
        "size": sum(item.size is not None for item in items) / len(items),
        "color": sum(item.color is not None for item in items) / len(items),
    }
    wanted = {"one thing": 0.65, "place": 0.6, "time": 0.38, "size": 0.3, "color": 0.92}
    assert shares == pytest.approx(wanted, abs=0.02)
    assert not any(scene.styles for scene in scenes)


def test_a_request_names_no_held_out_combination_unasked(asked: list[requests.Request]) -> None:
    assert all(grammar.allowed(request.asked) for request in asked)
    assert not any(names_unseen(request.prompt) or names_unseen(request.wording.text) for request in asked)


def test_a_request_names_a_held_out_combination_when_asked() -> None:
    rng = random.Random(22)
    held_out = [requests.ask(rng, held_out=True) for _ in range(500)]
    assert {(one.asked.items[0].thing, one.asked.items[0].color) for one in held_out} == HELD_OUT
    assert all(names_unseen(one.prompt) and names_unseen(one.wording.text) for one in held_out)


@pytest.mark.parametrize("count", [1, 2])
def test_the_number_of_things_can_be_chosen(count: int) -> None:
    rng = random.Random(23)
    assert all(len(requests.request(rng, count=count).items) == count for _ in range(100))


def test_prompt_and_wording_say_the_same(asked: list[requests.Request]) -> None:
    for request in asked[:1000]:
        found = facts.compare(facts.parse(request.prompt), facts.parse(request.wording.text))
        assert found.wrong == found.added == ()
