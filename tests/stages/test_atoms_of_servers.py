"""Atoms that a model behind a URL answers: what is stored, refused questions, and how a run resumes."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from semdpo.data.atoms import AtomAnswer
from semdpo.data.records import Candidate, Score
from semdpo.engine import store
from semdpo.engine.counts import described
from semdpo.errors import DataError, ModelError, StoreError
from semdpo.recipe.schema import Recipe
from semdpo.stages.flow import flow
from tests import stand_ins
from tests.image_servers import (
    answer,
    recipe_of,
    run_stages,
)
from tests.loopback import Asked, Loopback, Reply, error, told

pytestmark = pytest.mark.usefixtures("stand_in_trainings")


def _answer_atoms(asked: Asked) -> Reply:
    """As sure as the question is long; nothing of thing 3."""
    if "messages" not in asked.body:
        return answer(asked)
    text = asked.body["messages"][0]["content"][1]["text"]
    if "Answer in one word" not in text:
        return answer(asked)
    return error(422, "too many pixels") if "thing 3?" in text else told(("Yes", -len(text) / 50))


def _with_atoms(folder: Path, url: str, *overrides: str) -> Recipe:
    rows = [
        {"prompt": prompt, "atoms": [{"question": f"Is there {prompt}?", "skill": "object"}]}
        for prompt in [*(f"a thing {k}" for k in range(20)), *(f"another {k}" for k in range(6))]
    ]
    (folder / "atoms.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    atoms = json.dumps({"maker": "file", "file": str(folder / "atoms.jsonl"), "model": url})
    return recipe_of(folder, url, f"atoms={atoms}", "label.fidelity=atoms", "label.max_failed=0.5", *overrides)


STAGES = ("prompts", "atoms", "sft", "candidates", "label", "evaluate/human/images", "evaluate/human/atoms")


def test_atoms_are_answered_by_a_server(tmp_path: Path, server: Loopback) -> None:
    server.answer = _answer_atoms
    recipe, run = _with_atoms(tmp_path, server.url), tmp_path / "run"
    run_stages(recipe, run, *STAGES)
    scores = [row for row in store.read_rows(run / "label", Score) if row.scorer == "atoms"]
    made = {row.candidate_id: row.prompt for row in store.read_rows(run / "candidates", Candidate)}
    for row in scores:
        if made[row.candidate_id] == "a thing 3":
            assert "too many pixels" in str(row.error)
        else:
            text = f"Is there {made[row.candidate_id]}? Answer in one word."
            assert row.score == pytest.approx(math.exp(-len(text) / 50), abs=1e-6)
    answers = store.read_rows(run / "evaluate/human/atoms", AtomAnswer)
    assert answers
    assert all(row.probability is not None for row in answers)
    for stage in ("label", "evaluate/human/atoms"):
        manifest = json.loads((run / stage / "manifest.json").read_text())
        assert manifest["config"]["scoring"]["endpoints"] == {server.url: {"model_name": "m", "body": {}}}
        assert "atoms.model" not in manifest["inputs"]
    count = len(server.asked)
    run_stages(recipe, run, *STAGES)
    assert len(server.asked) == count, "nothing is asked again"
    other = _with_atoms(tmp_path, server.url, f"scoring.endpoints={{'{server.url}': {{model_name: n}}}}")
    with pytest.raises(StoreError, match=r"label was made with scoring\.endpoints"):
        run_stages(other, run, "evaluate/human/atoms")
    of_atoms = [next(each for each in flow(some) if each.name == "evaluate/human/atoms") for some in (recipe, other)]
    assert of_atoms[0].config != of_atoms[1].config


def test_questions_that_a_server_does_not_answer_are_counted(tmp_path: Path, server: Loopback) -> None:
    def picky(asked: Asked) -> Reply:
        text = str(asked.body.get("messages"))
        return error(422, "no") if "another 1? Answer" in text else _answer_atoms(asked)

    server.answer = picky
    recipe, run = _with_atoms(tmp_path, server.url), tmp_path / "run"
    run_stages(recipe, run, *STAGES)
    answers = store.read_rows(run / "evaluate/human/atoms", AtomAnswer)
    open_ = [row for row in answers if row.probability is None]
    assert 0 < len(open_) < len(answers)
    assert store.counts(run / "evaluate/human/atoms")["unanswered"] == len(open_)
    assert described("evaluate/…/atoms", {"rows": 9, "unanswered": 2}) == (
        "9 questions about images, 2 questions that the server did not answer"
    )
    server.answer = lambda asked: error(422, "no") if "messages" in asked.body else answer(asked)
    with pytest.raises(DataError, match=r"none of \d+ questions about images was answered; the first: .*\(no\)"):
        run_stages(recipe, tmp_path / "other", "prompts", "atoms", "sft", "candidates", *STAGES[-2:])


def test_a_run_whose_server_of_atoms_ended_resumes_with_the_same_files(tmp_path: Path) -> None:
    with Loopback(_answer_atoms) as server:
        run_stages(_with_atoms(tmp_path, server.url), tmp_path / "whole", *STAGES)
        port = server.port

    def ends_soon(asked: Asked) -> Reply:
        return Reply(dropped=True) if len(first.asked) > 60 else _answer_atoms(asked)

    recipe = _with_atoms(tmp_path, server.url)
    with Loopback(ends_soon, port=port) as first, pytest.raises(ModelError, match="cannot be reached"):
        run_stages(recipe, tmp_path / "run", *STAGES)
    with Loopback(_answer_atoms, port=port):
        run_stages(recipe, tmp_path / "run", *STAGES)
    assert stand_ins.files_of(tmp_path / "run") == stand_ins.files_of(tmp_path / "whole")
