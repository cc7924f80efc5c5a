"""Readers of the public prompt sets, on small files in their real schemas."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semdpo.data.prompts import choose_by_hash, normalised, read_every_prompt, read_prompts
from semdpo.engine.fingerprint import rows
from semdpo.errors import DataError


def test_coco_captions(tmp_path: Path) -> None:
    """``captions_val2017.json``, with the captions' stray line ends."""
    captions = ["A man rides a horse.\n", "Two dogs on a beach ", "A man rides a horse."]
    known = {
        "info": {"year": 2017},
        "images": [{"id": 1, "file_name": "000000000001.jpg"}],
        "annotations": [{"image_id": 1, "id": i, "caption": each} for i, each in enumerate(captions)],
    }
    path = tmp_path / "captions_val2017.json"
    path.write_text(json.dumps(known))
    assert read_prompts(path) == ["A man rides a horse.", "Two dogs on a beach"]
    path.write_text(json.dumps({"images": []}))
    with pytest.raises(DataError, match="is not COCO's file of captions"):
        read_prompts(path)


def test_a_column_of_a_list_of_objects_is_the_one_that_is_named(tmp_path: Path) -> None:
    path = tmp_path / "list.json"
    path.write_text(json.dumps([{"prompt": "a cat", "caption": "a dog"}, {"prompt": "a fox", "caption": "a dog"}]))
    assert read_every_prompt(path, "caption") == ["a dog", "a dog"]
    assert read_prompts(path, "caption") == ["a dog"]
    assert read_every_prompt(path) == read_prompts(path) == ["a cat", "a fox"]
    for read in (read_every_prompt, read_prompts):
        with pytest.raises(DataError, match=r"has no column 'captoin'.*did you mean 'caption'"):
            read(path, "captoin")


def test_where_prompts_have_a_fixed_place_no_column_is_chosen(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("a cat\na cat\n")
    (tmp_path / "coco.json").write_text(json.dumps({"annotations": [{"caption": "a cat"}]}))
    for name in ("p.txt", "coco.json"):
        assert read_prompts(tmp_path / name, "text") == ["a cat"], "a recipe names it for its other sources"
        with pytest.raises(DataError, match="its prompts have a fixed place; name no column"):
            read_every_prompt(tmp_path / name, "text")
    (tmp_path / "coco.json").write_text(json.dumps({"annotations": []}))
    with pytest.raises(DataError, match="has no prompts"):
        read_prompts(tmp_path / "coco.json")


def test_diffusiondb_metadata(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """``metadata.parquet``: one row an image, so prompts repeat, and some are missing."""
    path = tmp_path / "metadata.parquet"
    prompts = ["a castle, oil painting", "a castle, oil painting", None, "", "portrait of a fox"]
    table = {"image_name": ["x.png"] * 5, "prompt": prompts, "seed": range(5), "cfg": [7.5] * 5, "sampler": [8] * 5}
    pd.DataFrame(table).to_parquet(path)
    with pytest.raises(DataError, match="row 3: 'prompt' must be text, not missing"):
        read_prompts(path)
    with caplog.at_level(logging.WARNING, "semdpo"):
        assert read_prompts(path, skip_empty=True) == ["a castle, oil painting", "portrait of a fox"]
    assert "left out 2 rows without text" in caplog.text
    assert "left out 1 exact duplicates" in caplog.text


def test_lexica_has_its_own_column(tmp_path: Path) -> None:
    path = tmp_path / "train.parquet"
    pd.DataFrame({"Prompt": ["a fox by greg", "a ship"]}).to_parquet(path)
    assert read_prompts(path) == ["a fox by greg", "a ship"]
    pd.DataFrame({"words": ["a"]}).to_parquet(path)
    with pytest.raises(DataError, match=r"no column 'prompt', only 'words'.*prompts\.column"):
        read_prompts(path)
    assert read_prompts(path, "words") == ["a"]


def test_a_data_set_of_the_hubs_form(tmp_path: Path) -> None:
    """``datasets`` reads a folder as it reads a repository of the hub."""
    folder = tmp_path / "set"
    folder.mkdir()
    pd.DataFrame({"Prompt": ["a fox", "a ship"]}).to_parquet(folder / "train.parquet")
    pd.DataFrame({"Prompt": ["a hut"]}).to_parquet(folder / "test.parquet")
    assert read_prompts(f"hub:{folder}") == ["a fox", "a ship"]
    assert read_prompts(f"hub:{folder}:test") == ["a hut"]
    assert rows(f"hub:{folder}") != rows(f"hub:{folder}:test")


def test_without_a_connection_the_cure_is_told() -> None:
    code = (
        "from semdpo.data.prompts import read_prompts\n"
        "from semdpo.errors import DataError\n"
        "try: read_prompts('hub:Gustavosta/Stable-Diffusion-Prompts')\n"
        "except DataError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"HF_HUB_OFFLINE": "1", "HOME": "/nowhere"},
    )
    assert "could not be read from the hub" in done.stdout, done.stderr
    assert "download it and give the file" in done.stdout


@pytest.mark.parametrize(
    ("one", "other"), [("A Castle!", "a castle"), ("caf\u00e9", "cafe\u0301"), ("a-b", "a b"), ("  x\t", "X")]
)
def test_alike(one: str, other: str) -> None:
    assert normalised(one) == normalised(other)


def test_not_alike() -> None:
    assert normalised("a cat") != normalised("a cats")
    assert normalised("!!!") != normalised("???")


@given(st.lists(st.text(min_size=1), min_size=1), st.integers(1, 5))
def test_a_draw_depends_on_words_only(prompts: list[str], count: int) -> None:
    drawn = choose_by_hash(prompts, count)
    assert drawn == choose_by_hash(prompts[::-1], count)
    assert drawn == choose_by_hash(prompts, None)[:count]
    assert len({normalised(each) for each in drawn}) == len(drawn)


def test_prompts_come_from_the_folder_of_a_split(tmp_path: Path) -> None:
    for name, prompt in (("a", "a fox"), ("b", "a ship")):
        pd.DataFrame({"Prompt": [prompt]}).to_parquet(tmp_path / f"{name}.parquet")
    assert read_prompts(tmp_path) == read_every_prompt(tmp_path, "Prompt") == ["a fox", "a ship"]
