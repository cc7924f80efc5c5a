"""A training goes on from a whole checkpoint of its own, and from nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from semdpo.errors import StoreError
from semdpo.training.checkpoints import opened, seal, sweep

IDENTITY = {"model": "a" * 64}


def _checkpoint(folder: Path, step: int) -> Path:
    path = folder / f"checkpoint-{step}"
    path.mkdir()
    (path / "model.safetensors").write_bytes(bytes(range(256)))
    (path / "optimizer.pt").write_bytes(b"momentum")
    (path / "trainer_state.json").write_text(json.dumps({"global_step": step}))
    seal(path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "m.checkpoints"
    assert opened(place, IDENTITY) is None
    _checkpoint(place, 10)
    _checkpoint(place, 20)
    return place


def test_the_last_one_is_taken(folder: Path) -> None:
    assert opened(folder, IDENTITY) == folder / "checkpoint-20"


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.pt", "trainer_state.json", "sha256.json"])
@pytest.mark.parametrize("how", ["emptied", "truncated", "flipped", "edited"])
def test_a_damaged_one_is_not_gone_on_from(name: str, how: str, folder: Path) -> None:
    path = folder / "checkpoint-20" / name
    data = path.read_bytes()
    changed = {
        "emptied": b"",
        "truncated": data[:-3],
        "flipped": bytes([data[0] ^ 1]) + data[1:],
        "edited": data + b" ",
    }
    path.write_bytes(changed[how])
    last = opened(folder, IDENTITY)
    if how == "edited" and name == "sha256.json":  # the same JSON
        assert last == folder / "checkpoint-20"
    else:
        assert last == folder / "checkpoint-10"
        assert not (folder / "checkpoint-20").exists()


def test_one_that_was_being_written_is_removed(folder: Path) -> None:
    (folder / "checkpoint-30").mkdir()
    (folder / "checkpoint-30/model.safetensors").write_bytes(b"half")
    assert opened(folder, IDENTITY) == folder / "checkpoint-20"
    assert not (folder / "checkpoint-30").exists()


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.pt"])
def test_one_that_was_being_removed_is_not_gone_on_from(name: str, folder: Path) -> None:
    """Files of a folder are removed in any order; without the optimizer's state training would go on from zeros."""
    for gone in (name, "sha256.json"):
        (folder / "checkpoint-20" / gone).unlink()
    assert opened(folder, IDENTITY) == folder / "checkpoint-10"


def test_random_states_of_other_processes_may_come_later(folder: Path) -> None:
    (folder / "checkpoint-20/rng_state_1.pth").write_bytes(b"")
    assert opened(folder, IDENTITY) == folder / "checkpoint-20"


def test_another_trainings_are_removed(folder: Path) -> None:
    assert opened(folder, {"model": "b" * 64}) is None
    assert not list(folder.glob("checkpoint-*"))


def test_a_users_folder_of_that_name_stays(tmp_path: Path) -> None:
    place = tmp_path / "m.checkpoints"
    place.mkdir()
    (place / "mine").write_text("")
    with pytest.raises(StoreError, match="was not made by semdpo"):
        opened(place, IDENTITY)
    with pytest.raises(StoreError, match="was not made by semdpo"):
        sweep(place)
    assert (place / "mine").exists()


def test_checkpoints_behind_a_link_stay(folder: Path, tmp_path: Path) -> None:
    real = tmp_path / "elsewhere"
    (folder / "checkpoint-20").rename(real)
    (folder / "checkpoint-20").symlink_to(real)
    assert opened(folder, IDENTITY) == folder / "checkpoint-10"
    assert (real / "model.safetensors").is_file()


def test_nothing_stays_where_there_is_nothing_to_go_on_from(tmp_path: Path) -> None:
    place = tmp_path / "m.checkpoints"
    opened(place, IDENTITY)
    sweep(place)
    assert not place.exists()
