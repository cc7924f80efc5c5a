"""A user's file of atoms: what is read, and what is refused with its line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from semdpo.data.atoms import Atom, read_atoms
from semdpo.data.records import content_id
from semdpo.errors import DataError

CAT = {"question": "Is there a cat?", "skill": "object"}


def _file(folder: Path, *rows: object) -> Path:
    path = folder / "atoms.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def test_prompts_ids_and_genevals_lines_are_read(tmp_path: Path) -> None:
    geneval = {
        "prompt": "two metal toys", "atom_count": 3, "skills": ["count", "attribute", "position"],
        "vqa_list": [["How many toys are there?", "two"], ["Are the toys metal?", "Yes"], ["Are they big?", "Yes"]],
    }  # fmt: skip
    path = _file(tmp_path, {"prompt": " a cat ", "atoms": [CAT, CAT]}, {"prompt_id": "77", "atoms": [CAT]}, geneval)
    cat, toys = content_id("a cat"), content_id("two metal toys")
    assert read_atoms(path) == {
        cat: [Atom(cat, "object", "Is there a cat?")],
        "77": [Atom("77", "object", "Is there a cat?")],
        toys: [
            Atom(toys, "count", "How many toys are there?", "two"),
            Atom(toys, "attribute", "Are the toys metal?"),
            Atom(toys, "relation", "Are they big?"),
        ],
    }


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"atoms": [CAT]}, "line 1 has no prompt; add 'prompt'"),
        ({"prompt": "a", "prompt_id": "b", "atoms": [CAT]}, "prompt_id 'b' is not that of its prompt"),
        ({"prompt": "a"}, "must have 'atoms'"),
        ({"prompt": "a", "atoms": []}, "has 0 atoms"),
        ({"prompt": "a", "atoms": "x"}, "'atoms' must be a list"),
        ({"prompt": "a", "atoms": [CAT | {"skil": 1}]}, "atom has the key 'skil'; did you mean 'skill'?"),
        ({"prompt": "a", "atoms": [CAT | {"skill": "attributes"}]}, "unknown; did you mean 'attribute'?"),
        ({"prompt": "a", "atoms": [CAT | {"question": "a cat"}]}, "atom 1: 'a cat' is not a question"),
        ({"prompt": "a", "atoms": [CAT | {"answer": "no"}]}, "the answer 'no' does not fit"),
        ({"prompt": "a", "atoms": [CAT | {"answer": "two"}]}, "the answer 'two' does not fit"),
        ({"prompt": "a", "vqa_list": [["Is it?", "Yes"]], "skills": []}, "must be lists of one length"),
        (
            {"prompt": "a", "vqa_list": [["How many?", "eleven"]], "skills": ["count"]},
            "the answer 'eleven' does not fit",
        ),
        ({"prompt": "a", "atoms": [CAT | {"question": "x" * 600 + "?"}]}, "has 601 characters"),
    ],
)
def test_another_line_is_refused_by_its_number(row: object, said: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"line 1") as found:
        read_atoms(_file(tmp_path, row))
    assert said in str(found.value)


def test_two_lines_of_one_prompt_and_other_files_are_refused(tmp_path: Path) -> None:
    line = {"prompt": "a", "atoms": [CAT]}
    with pytest.raises(DataError, match="line 2: this prompt has a line already"):
        read_atoms(_file(tmp_path, line, line))
    with pytest.raises(DataError, match="has no lines"):
        read_atoms(_file(tmp_path))
    (tmp_path / "atoms.csv").write_text("prompt\na\n")
    with pytest.raises(DataError, match="is not a jsonl file"):
        read_atoms(tmp_path / "atoms.csv")
