from __future__ import annotations

from pathlib import Path

import pytest

from semdpo.errors import StoreError
from semdpo.training.folder import renamed_at_the_end


def test_the_folder_appears_whole(tmp_path: Path) -> None:
    output = tmp_path / "runs" / "model"
    with renamed_at_the_end(output) as folder:
        (folder / "semdpo.json").write_text("{}")
        assert not output.exists()
    assert [each.name for each in output.iterdir()] == ["semdpo.json"]
    assert [each.name for each in output.parent.iterdir()] == ["model"]


def _write_and_fail(output: Path) -> None:
    with renamed_at_the_end(output) as folder:
        (folder / "semdpo.json").write_text("{}")
        raise RuntimeError("stop")


def test_after_a_failure_nothing_is_left(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="stop"):
        _write_and_fail(tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_an_earlier_rewriter_is_replaced_and_nothing_else_is(tmp_path: Path) -> None:
    output = tmp_path / "model"
    output.mkdir()
    (output / "semdpo.json").write_text("old")
    (output / "old.txt").touch()
    with renamed_at_the_end(output) as folder:
        (folder / "semdpo.json").write_text("new")
    assert [each.name for each in output.iterdir()] == ["semdpo.json"]
    assert (output / "semdpo.json").read_text() == "new"

    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").touch()
    with (
        pytest.raises(StoreError, match="was not made by semdpo"),
        renamed_at_the_end(tmp_path / "thesis"),
    ):
        pass
    assert (tmp_path / "thesis" / "chapter.txt").exists()


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot be written"), renamed_at_the_end(tmp_path / "file" / "model"):
        pass
