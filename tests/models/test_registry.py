from __future__ import annotations

from pathlib import Path

import pytest

from semdpo.errors import ModelError
from semdpo.models import registry


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("clip", "clip-b", "image-reward"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(registry, "TINY", tmp_path)
    return tmp_path


def test_a_tiny_name_is_a_folder_of_the_package(world: Path) -> None:
    place = registry.resolve("tiny:clip-b")
    assert (place.local, place.folder()) == (True, world / "clip-b")


def test_a_misspelt_tiny_name_gets_a_suggestion(world: Path) -> None:
    with pytest.raises(ModelError, match="did you mean 'tiny:image-reward'"):
        registry.resolve("tiny:image_reward")


def test_without_an_embedded_world_the_cure_is_to_build_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "TINY", tmp_path / "absent")
    with pytest.raises(ModelError, match="semdpo world build"):
        registry.resolve("tiny:clip")


def test_an_existing_folder_is_itself(tmp_path: Path) -> None:
    assert registry.resolve(str(tmp_path)).folder() == tmp_path


def test_a_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.touch()
    with pytest.raises(ModelError, match="is a file; give the folder"):
        registry.resolve(str(file))


@pytest.mark.parametrize(
    ("name", "hub"), [("pickscore", "yuvalkirstain/PickScore_v1"), ("openai/clip-vit-base-patch32",) * 2]
)
def test_published_names_and_hub_ids_are_not_local(name: str, hub: str, tmp_path: Path) -> None:
    place = registry.resolve(name)
    assert (place.local, place.path) == (False, hub)


@pytest.mark.parametrize("name", ["pikscore", "", "no/such/folder", "a b/c"])
def test_unknown_names_are_refused(name: str, world: Path) -> None:
    with pytest.raises(ModelError, match="neither a folder nor a known name"):
        registry.resolve(name)
    if name == "pikscore":
        with pytest.raises(ModelError, match="did you mean 'pickscore'"):
            registry.resolve(name)
