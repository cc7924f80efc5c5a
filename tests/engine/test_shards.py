"""A stage's rows piece by piece: the same rows, few of them in memory, and never damaged ones."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from semdpo.data.records import Prompt, RenderedImage
from semdpo.engine import parquet, shard_files, store
from semdpo.engine.shards import Shards, in_groups
from semdpo.errors import StoreError

PLAN = store.Plan({"n": 4}, {})
SIZES = [3, 0, 4, 1]
PROMPTS = [Prompt.of(f"prompt {i}", "s", "train") for i in range(sum(SIZES))]


def _stage(folder: Path) -> Path:
    shard_files.start(folder, PLAN)
    for index, size in enumerate(SIZES):
        start = sum(SIZES[:index])
        shard_files.write_shard(folder, index, parquet.encode(Prompt, PROMPTS[start : start + size], {"seen": size}))
    shard_files.finish(folder, PLAN, len(SIZES), 1)
    return folder


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Shards[Prompt]:
    return Shards(_stage(tmp_path_factory.mktemp("run") / "prompts"), Prompt)


def test_all_ways_to_read_agree(shards: Shards[Prompt]) -> None:
    assert shards.sizes == SIZES
    assert [row for index in range(len(SIZES)) for row in shards.read(index)] == PROMPTS
    assert list(shards.column("prompt")) == [each.prompt for each in PROMPTS]


@given(start=st.integers(0, 8), stop=st.integers(0, 8))
def test_rows_between_two_places(shards: Shards[Prompt], start: int, stop: int) -> None:
    assert shards.between(start, stop) == PROMPTS[start:stop]


@given(rows=st.sets(st.integers(0, 7)))
def test_single_cells(shards: Shards[Prompt], rows: set[int]) -> None:
    assert shards.cells("prompt", sorted(rows)) == [PROMPTS[row].prompt for row in sorted(rows)]


@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_bytes(b"PAR1")])
@pytest.mark.parametrize(
    "read",
    [
        lambda shards: shards.sizes,
        lambda shards: shards.read(2),
        lambda shards: shards.between(3, 5),
        lambda shards: list(shards.column("prompt")),
        lambda shards: shards.cells("prompt", [4]),
    ],
)
def test_a_damaged_shard_is_refused_however_it_is_read(damage, read, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    found = Shards(_stage(tmp_path / "prompts"), Prompt)
    damage(tmp_path / "prompts/part-00002.parquet")
    with pytest.raises(StoreError, match=r"prompts (lacks|holds a damaged or edited) part-00002\.parquet.*--fresh"):
        read(found)


def test_a_few_images_are_read_without_the_others(tmp_path: Path) -> None:
    images = [RenderedImage("m", f"p{i}", "p", "s", 0, "r", 1, 0.1, False, os.urandom(200_000)) for i in range(40)]
    path = tmp_path / "part.parquet"
    path.write_bytes(parquet.encode(RenderedImage, images, {}))
    assert parquet.read_file(path, RenderedImage) == images
    content = path.read_bytes()
    last = content.index(images[24].image[:1000])  # what cannot be compressed lies there as it is
    path.write_bytes(content[:last] + bytes(1_000_000) + content[last + 1_000_000 :])
    assert parquet.read_cells(path, "image", [0, 7]) == [images[0].image, images[7].image]
    without = parquet.read_file(path, RenderedImage, unread={"image": b""})
    assert [(row.prompt_id, row.image) for row in without] == [(row.prompt_id, b"") for row in images]
    with pytest.raises(StoreError, match="is damaged"):
        parquet.read_file(path, RenderedImage)
    with pytest.raises(StoreError, match="is damaged"):
        parquet.read_cells(path, "image", [39])
    assert parquet.read_cells(path, "image", []) == []


def test_a_cell_that_is_not_there_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "part.parquet"
    path.write_bytes(parquet.encode(Prompt, PROMPTS[:3], {}))
    for name, rows in (("prompt", [3]), ("image", [0])):
        with pytest.raises(StoreError, match="is damaged"):
            parquet.read_cells(path, name, rows)
    with pytest.raises(StoreError, match="is damaged"):
        parquet.read_column(path, "image")


def test_rows_with_a_value_in_groups() -> None:
    splits = ["test"] * 2 + ["train"] * 5 + ["tune"]
    assert in_groups(splits, "train", 2) == [(2, 4), (4, 6), (6, 7)]
    assert in_groups(splits, "test", 9) == [(0, 2)]
    assert in_groups(splits, "other", 2) == in_groups([], "train", 2) == []
    with pytest.raises(ValueError, match="the rows with 'train' do not follow each other"):
        in_groups(["train", "test", "train"], "train", 2)
