from __future__ import annotations

import random
from collections import Counter

import pytest

from semdpo.tiny_world import facts, wordings
from semdpo.tiny_world.wordings import WAYS
from semdpo.tiny_world_training import gpt2
from tests.tiny_world.unseen import names_unseen

COUNT = 5000


@pytest.fixture(scope="module")
def documents() -> list[str]:
    rng = random.Random(41)
    return [gpt2.document(rng) for _ in range(COUNT)]


def test_equal_seeds_give_equal_documents(documents: list[str]) -> None:
    rng = random.Random(41)
    assert [gpt2.document(rng) for _ in range(100)] == documents[:100]


def test_a_third_of_the_documents_are_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpt2, "_copied", lambda _: "copied")
    monkeypatch.setattr(wordings, "caption", lambda *_: ("caption", None))
    rng = random.Random(42)
    kinds = Counter(gpt2.document(rng) for _ in range(COUNT))
    assert kinds["copied"] / COUNT == pytest.approx(0.35, abs=0.02)
    assert kinds["caption"] / COUNT == pytest.approx(0.08, abs=0.02)


def test_a_copy_repeats_its_first_line() -> None:
    rng = random.Random(43)
    for _ in range(3000):
        first, second = gpt2._copied(rng).split("\n")
        assert second == first or second.startswith(first + ", ")
        assert 3 <= len(first.split()) <= 14


def test_no_document_names_a_held_out_combination(documents: list[str]) -> None:
    assert not any(names_unseen(text) for text in documents)


def test_first_lines_are_worded_in_every_way(monkeypatch: pytest.MonkeyPatch) -> None:
    ways: dict[str, str] = {}
    say = wordings.say

    def record(wording: wordings.Wording, way: str, rng: random.Random) -> str:
        text = say(wording, way, rng)
        ways[text.lower()] = way
        return text

    monkeypatch.setattr(wordings, "say", record)
    rng = random.Random(44)
    used: Counter[str] = Counter()
    for _ in range(COUNT):
        first, _, second = gpt2.document(rng).partition("\n")
        if second:
            used[ways.get(first.lower().removesuffix("."), "copied")] += 1
    assert set(used) == {*WAYS, "copied"}
    prompts = sum(used[way] for way in WAYS)
    assert {way: used[way] / prompts for way in WAYS} == pytest.approx(WAYS, abs=0.03)


def test_second_lines_keep_the_facts_of_first_lines_and_add_some(documents: list[str]) -> None:
    pairs = [[facts.parse(line) for line in text.split("\n")] for text in documents if "\n" in text]
    read = [facts.compare(*pair) for pair in pairs if not pair[0].unread and len(pair[0].items) in (1, 2)]
    assert len(read) > COUNT / 2
    assert not any(found.wrong for found in read)
    assert 0.1 < sum(bool(found.added) for found in read) / len(read) < 0.3
