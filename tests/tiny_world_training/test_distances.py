from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np
import pytest

from semdpo.protocols import Float
from semdpo.tiny_world import facts, requests
from semdpo.tiny_world.facts import Comparison
from semdpo.tiny_world_training.distances import distance_quantiles, rewrites_by_kind


def _compared() -> Iterator[dict[str, Comparison]]:
    """What each kind of rewrite changes, for 300 requests."""
    rng = random.Random(51)
    asked = [requests.request(rng, count=1) for _ in range(2000)]
    fitting = [one for one in asked if one.place and not one.time and one.items[0].color]
    for said in fitting[:300]:
        texts = rewrites_by_kind(said, rng)
        prompt = facts.parse(texts.pop("prompt"))
        yield {kind: facts.compare(prompt, facts.parse(text)) for kind, text in texts.items()}


@pytest.fixture(scope="module")
def compared() -> list[dict[str, Comparison]]:
    return list(_compared())


@pytest.mark.parametrize("kind", ["other wording", "telegraphic", "empty word", "one style", "three styles"])
def test_harmless_rewrites_change_no_fact(kind: str, compared: list[dict[str, Comparison]]) -> None:
    assert all(found[kind].wrong == found[kind].added == () for found in compared)


@pytest.mark.parametrize("kind", ["place swapped", "color swapped", "thing swapped"])
def test_a_swap_changes_one_fact(kind: str, compared: list[dict[str, Comparison]]) -> None:
    assert all(len(found[kind].wrong) == 1 and found[kind].added == () for found in compared)


@pytest.mark.parametrize(("kind", "added"), [("sunset added", ("sunset",)), ("thing added", ("purple cat",))])
def test_an_addition_leaves_the_facts_as_they_are(
    kind: str, added: tuple[str, ...], compared: list[dict[str, Comparison]]
) -> None:
    assert all(found[kind].wrong == () and found[kind].added == added for found in compared)


def test_a_telegram_has_the_words_of_its_prompt() -> None:
    """Its distance is that of what it leaves out, not of another wording."""
    rng = random.Random(52)
    said = requests.request(rng, count=1)
    while not (said.place and said.items[0].color) or said.time:
        said = requests.request(rng, count=1)
    texts = [rewrites_by_kind(said, rng) for _ in range(50)]
    for each in texts:
        assert set(each["telegraphic"].split()) <= set(each["prompt"].replace(",", "").split())


def test_another_prompt_is_mostly_wrong(compared: list[dict[str, Comparison]]) -> None:
    assert sum(bool(found["another prompt"].wrong) for found in compared) > 0.98 * len(compared)


def test_quantiles_rise_and_repeat() -> None:
    def embed(texts: list[str]) -> Float:
        return np.array([[text.count(letter) + 1.0 for letter in "aeiou"] for text in texts], dtype=np.float32)

    quantiles = distance_quantiles(embed, count=40, seed=3)
    assert all(low <= middle <= high for low, middle, high in quantiles.values())
    assert distance_quantiles(embed, count=40, seed=3) == quantiles
