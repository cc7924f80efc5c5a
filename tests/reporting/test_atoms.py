"""The table of facts: Soft-TIFA's means, GenEval 2's analysis by skill, and differences paired by prompt."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy.stats import gmean

from semdpo.data.atoms import AtomAnswer
from semdpo.reporting.atoms import ALL, AM, GM, SHOWN, STATED, AtomData, atom_tables, frames, page

SKILLS = {"p0": ["object", "attribute", "attribute"], "p1": ["object", "count"], "p2": ["object", "attribute"]}
METHODS = ["human", "dpo", "sem_dpo"]


def _answers(method: str, seeds: int = 2) -> list[AtomAnswer]:
    rows = []
    for prompt, skills in SKILLS.items():
        for seed in range(seeds):
            for k, skill in enumerate(skills):
                p = float(np.random.default_rng([METHODS.index(method), int(prompt[1]), seed, k]).uniform(0.1, 1))
                kept = not (method == "dpo" and skill == "attribute" and prompt == "p0")
                rows.append(AtomAnswer("c", prompt, seed, skill, f"{prompt} {skill} {k}?", p, kept))
    return rows


def _data(**answers: list[AtomAnswer]) -> AtomData:
    return AtomData({m: _answers(m) for m in METHODS} | answers, "tiny", "tiny:judge", len(SKILLS), 0)


def _chances(method: str, skill: str | None = None) -> list[list[float]]:
    """The probabilities of every image, as the public analysis has them."""
    images: dict[tuple[str, int], list[float]] = {}
    for row in _answers(method):
        if skill in (None, row.skill):
            images.setdefault((row.prompt_id, row.image_seed), []).append(float(row.probability or 0))
    return list(images.values())


def test_the_numbers_are_those_of_the_public_analysis() -> None:
    tables = atom_tables(_data(), METHODS, "sem_dpo", ["dpo", "human"])
    for method in METHODS:
        means = {name: tables.means[method, (SHOWN, name)].mean for name in (AM, GM, "object", "attribute")}
        assert means[AM] == pytest.approx(np.mean([np.mean(image) for image in _chances(method)]))
        assert means[GM] == pytest.approx(np.mean([gmean(image) for image in _chances(method)]))
        for skill in ("object", "attribute"):
            assert means[skill] == pytest.approx(np.mean(np.concatenate(_chances(method, skill)))), "over its atoms"
    assert (SHOWN, "count") not in tables.columns, "one prompt gives no interval"
    assert tables.atoms[SHOWN, "attribute"] == 3
    assert tables.atoms[SHOWN, AM] == tables.atoms[STATED, ALL] == 7
    assert tables.means["dpo", (STATED, "attribute")].mean == pytest.approx(1 / 3)
    difference = tables.differences["dpo", (STATED, "attribute")]
    assert difference.mean == pytest.approx(2 / 3)
    assert difference.prompts == 2
    am = tables.differences["dpo", (SHOWN, AM)]
    assert am.mean == pytest.approx(tables.means["sem_dpo", (SHOWN, AM)].mean - tables.means["dpo", (SHOWN, AM)].mean)
    assert am.low < am.mean < am.high
    all_kept = tables.means["human", (STATED, "attribute")]
    assert (all_kept.low, all_kept.mean, all_kept.high) == (1, 1, 1), "two atoms of a prompt and one of another"
    assert tables.lost == {
        "human": [], "sem_dpo": [], "dpo": [("p0 attribute 1?", 1, 1), ("p0 attribute 2?", 1, 1)],
    }  # fmt: skip


def test_a_blackened_image_is_left_out_for_all_methods() -> None:
    gone = ("p1", 0)
    dark = [
        dataclasses.replace(r, probability=None) if (r.prompt_id, r.image_seed) == gone else r for r in _answers("dpo")
    ]
    tables = atom_tables(_data(dpo=dark), METHODS, None, [])
    objects = [row for row in _answers("human") if row.skill == "object"]
    wanted = [row.probability for row in objects if (row.prompt_id, row.image_seed) != gone]
    by_prompt = [np.mean(wanted[:2]), wanted[2], np.mean(wanted[3:])]
    assert tables.means["human", (SHOWN, "object")].mean == pytest.approx(np.mean(by_prompt))
    assert tables.differences == {}


def test_without_a_model_only_texts_are_compared() -> None:
    blind = {m: [dataclasses.replace(row, probability=None) for row in _answers(m)] for m in METHODS}
    data = dataclasses.replace(_data(**blind), model=None)
    tables = atom_tables(data, METHODS, "sem_dpo", ["dpo"])
    assert {what for what, _ in tables.columns} == {STATED}
    assert [name for name, _, _ in frames(tables, "sem_dpo")] == ["atoms", "atoms_differences"]
    shown = page(data, tables, METHODS, ["dpo"])
    (part,) = shown["parts"]
    assert part["columns"] == [(ALL, 7), ("object", 3), ("attribute", 3)]
    assert shown["differences"][0]["rows"][0][1] is None


def test_atoms_whose_words_are_not_known_are_not_counted_as_stated() -> None:
    """A question may share a word with one prompt and with another none: "Is the ball red?" of "a crimson sphere"."""
    answers = {
        m: [
            AtomAnswer("c", p, 0, skill, question, 0.5, kept)
            for p, known in (("p0", True), ("p1", True), ("p2", None))
            for skill, question, kept in (
                ("object", "Is there a ball?", True),
                ("attribute", "Is the ball red?", known and m != "dpo"),
            )
        ]
        for m in METHODS
    }
    tables = atom_tables(AtomData(answers, "file", "a-judge", 3, 0), METHODS, None, [])
    assert (tables.atoms[SHOWN, AM], tables.atoms[SHOWN, "attribute"]) == (6, 3)
    assert (tables.atoms[STATED, ALL], tables.atoms[STATED, "attribute"]) == (5, 2)
    assert tables.means["dpo", (STATED, "attribute")].mean == 0
    assert tables.lost["dpo"] == [("Is the ball red?", 2, 2)], "the third rewrite could not lose it"


def test_what_cannot_be_told_of_a_text_is_no_number() -> None:
    unknown = {m: [dataclasses.replace(row, kept=None) for row in _answers(m)] for m in METHODS}
    tables = atom_tables(_data(**unknown), METHODS, "sem_dpo", ["dpo"])
    assert {what for what, _ in tables.columns} == {SHOWN}
    assert tables.lost["dpo"] == []
    nothing = {m: [dataclasses.replace(row, probability=None) for row in rows] for m, rows in unknown.items()}
    data = dataclasses.replace(_data(**nothing), model=None)
    tables = atom_tables(data, METHODS, "sem_dpo", ["dpo"])
    assert (tables.columns, frames(tables, "sem_dpo")) == ([], [])
    assert page(data, tables, METHODS, ["dpo"])["parts"] == []
