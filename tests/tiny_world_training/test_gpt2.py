from __future__ import annotations

import random
import re
from collections import Counter

import pytest

from semdpo.tiny_world import facts, wordings
from semdpo.tiny_world.wordings import WAYS
from semdpo.tiny_world_training import gpt2
from tests.tiny_world.unseen import names_unseen

COUNT = 5000
BETWEEN = re.compile(r"\n| Rephrase: | -> | \| ")  # what may stand between a prompt and its rewrite


def _halves(document: str) -> list[str]:
    """The prompt and the rewrite of a document, or the one caption."""
    return BETWEEN.split(document, maxsplit=1)


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


def test_a_copy_repeats_its_first_half() -> None:
    rng = random.Random(43)
    for _ in range(3000):
        first, second = _halves(gpt2._copied(rng))
        assert f"{second}, ".startswith(f"{first.lower()}, ")
        assert 3 <= len(first.split()) <= 14


def test_no_document_names_a_held_out_combination(documents: list[str]) -> None:
    assert not any(names_unseen(text) for text in documents)


def test_prompts_are_worded_in_every_way(monkeypatch: pytest.MonkeyPatch) -> None:
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
        first, *second = _halves(gpt2.document(rng))
        if second:
            used[ways.get(first.lower().removesuffix("."), "copied")] += 1
    assert set(used) == {*WAYS, "copied"}
    prompts = sum(used[way] for way in WAYS)
    assert {way: used[way] / prompts for way in WAYS} == pytest.approx(WAYS, abs=0.03)


def test_rewrites_keep_the_facts_of_their_prompts_and_add_some(documents: list[str]) -> None:
    read = [[facts.parse(half) for half in _halves(text)] for text in documents]
    pairs = [pair for pair in read if len(pair) == 2 and not pair[0].unread and len(pair[0].items) in (1, 2)]
    compared = [facts.compare(asked, said) for asked, said in pairs]
    assert len(compared) > COUNT / 2
    assert not any(found.wrong for found in compared)
    assert 0.1 < sum(bool(found.added) for found in compared) / len(compared) < 0.3
