"""The tiny world's atoms: every stated fact is asked for once, and read back from any wording."""

from __future__ import annotations

from random import Random

import pytest

from semdpo.analysis.atoms import share_lost, states
from semdpo.data.atoms import SKILLS, Atom
from semdpo.tiny_world import requests, rewrites, wordings
from semdpo.tiny_world.atoms import asked_number, atoms_of
from semdpo.tiny_world.facts import compare, parse


def test_the_atoms_of_a_prompt() -> None:
    assert atoms_of("a small red cat and a blue car in the snow at night, watercolor") == [
        ("object", "Is there a cat?"),
        ("object", "Is there a car?"),
        ("attribute", "Is there a red cat?"),
        ("attribute", "Is there a small cat?"),
        ("attribute", "Is there a blue car?"),
        ("count", "Are there exactly two things?"),
        ("relation", "Is a cat next to a car?"),
        ("scene", "Is it in the snow?"),
        ("scene", "Is it at night?"),
    ]
    assert atoms_of("an umbrella") == [("object", "Is there an umbrella?"), ("count", "Is there exactly one thing?")]
    assert atoms_of("a zeppelin") == []
    assert atoms_of("in the snow") == []
    questions = ("Is there exactly one thing?", "Are there exactly two things?", "Is there a cat?")
    assert [asked_number(question) for question in questions] == [1, 2, None]


def _atoms(prompt: str) -> list[Atom]:
    return [Atom("x", skill, question) for skill, question in atoms_of(prompt)]


def test_every_wording_and_faithful_rewrite_states_the_atoms_of_its_prompt() -> None:
    rng = Random(5)
    for _ in range(300):
        request = requests.ask(rng)
        atoms = _atoms(request.prompt)
        assert {atom.skill for atom in atoms} <= set(SKILLS)
        stated = compare(parse(request.prompt), parse(request.prompt)).stated
        alike = len({item.thing for item in request.asked.items}) < len(request.asked.items)
        assert alike or len(atoms) == stated + 1, "each fact, and the number of things"
        other = rewrites.tail(wordings.wording(request.asked, rng), rng)
        assert share_lost(other, atoms, "tiny") == 0.0, (request.prompt, other)


@pytest.mark.parametrize(
    ("rewrite", "lost"),
    [
        ("a yellow cat above a blue car in the snow", ["Is there a red cat?"]),
        ("a red cat below a blue car in the snow", ["Is a cat above a car?"]),
        ("a red cat above a blue car", ["Is it in the snow?"]),
        ("a red cat, a blue car and a star in the snow", ["Are there exactly two things?", "Is a cat above a car?"]),
        ("a red cat above a blue car in the snow at night, 8k", []),
    ],
)
def test_the_fact_that_a_rewrite_loses_is_named(rewrite: str, lost: list[str]) -> None:
    atoms = _atoms("a red cat above a blue car in the snow")
    assert [atom.question for atom in atoms if not states(rewrite, atom, "tiny")] == lost
