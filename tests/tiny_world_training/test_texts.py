from __future__ import annotations

import json
from pathlib import Path

import pytest

from semdpo.data.tables import DATA
from semdpo.tiny_world import facts
from semdpo.tiny_world_training import texts
from tests.tiny_world.unseen import names_unseen

SIZES = {
    **{name: count for name, (_, count) in texts.PROMPTS.items()},
    texts.REWRITES[0]: texts.REWRITES[2],
    **{name: count for name, (_, count, *_) in texts.SETS.items()},
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, str]]]:
    folder = tmp_path_factory.mktemp("texts") / "data"
    texts.write(folder)
    return {path.name: [json.loads(line) for line in path.read_text().splitlines()] for path in folder.iterdir()}


def test_no_prompt_is_in_two_files_or_twice_in_one(files: dict[str, list[dict[str, str]]]) -> None:
    assert {name: len(rows) for name, rows in files.items()} == SIZES
    prompts = [row["prompt"] for rows in files.values() for row in rows]
    assert len(set(prompts)) == len(prompts) == 6600


def test_only_the_unseen_set_names_held_out_combinations(files: dict[str, list[dict[str, str]]]) -> None:
    for name, rows in files.items():
        unseen = [text for row in rows for text in row.values() if names_unseen(text)]
        assert len(unseen) == (len(rows) if name == "unseen.jsonl" else 0), name


@pytest.mark.parametrize(("name", "things"), [("one-thing.jsonl", 1), ("two-things.jsonl", 2)])
def test_the_sets_of_a_study_have_their_number_of_things(
    name: str, things: int, files: dict[str, list[dict[str, str]]]
) -> None:
    assert all(len(facts.parse(row["prompt"]).items) == things for row in files[name])


def test_the_shipped_files_are_those_that_are_written(tmp_path: Path) -> None:
    texts.write(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in DATA.iterdir()}
    for path in tmp_path.iterdir():
        assert path.read_bytes() == (DATA / path.name).read_bytes(), f"{path.name} is not what is shipped"
