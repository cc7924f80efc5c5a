"""What is written is whole or not there; what is removed was written by this package."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from semdpo import disk
from semdpo.engine import model_folders, shard_files, store
from semdpo.errors import StoreError

PLAN = store.Plan({"n": 4}, {"file": "a" * 64})


def test_a_temporary_name_cannot_be_known_beforehand(tmp_path: Path) -> None:
    """A link under a name that could be guessed would have its target overwritten."""
    victim = tmp_path / "victim"
    victim.write_text("the user's")
    (tmp_path / ".f.txt.tmp").symlink_to(victim)
    disk.write_bytes(tmp_path / "f.txt", b"ours")
    assert victim.read_text() == "the user's"
    assert (tmp_path / "f.txt").read_bytes() == b"ours"
    assert sorted(path.name for path in tmp_path.iterdir()) == [".f.txt.tmp", "f.txt", "victim"]


def test_a_file_behind_a_link_is_not_overwritten(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("the user's")
    (tmp_path / "f.txt").symlink_to(victim)
    disk.write_bytes(tmp_path / "f.txt", b"ours")
    assert victim.read_text() == "the user's"
    assert not (tmp_path / "f.txt").is_symlink()


def test_new_files_have_the_users_permissions(tmp_path: Path) -> None:
    disk.write_bytes(tmp_path / "f", b"")
    (tmp_path / "g").write_bytes(b"")
    assert (tmp_path / "f").stat().st_mode == (tmp_path / "g").stat().st_mode


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "f").write_text("before")

    def full(_handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="no space left"):
        disk.write_bytes(tmp_path / "f", b"after")
    assert [path.name for path in tmp_path.iterdir()] == ["f"]
    assert (tmp_path / "f").read_text() == "before"


def test_long_names_have_room_for_the_temporary_one(tmp_path: Path) -> None:
    path = tmp_path / ("n" * 255)
    disk.write_bytes(path, b"x")
    assert path.read_bytes() == b"x"
    with pytest.raises(StoreError, match="too long"):
        disk.write_bytes(tmp_path / ("n" * 256), b"x")


# ------------------------------------------------------------------------------------------------- removing


@pytest.mark.parametrize("name", ["manifest.json", "started.json", "notes.txt", ".hidden"])
def test_a_users_folder_is_never_removed(name: str, tmp_path: Path) -> None:
    """Also where it holds a file of a name that ours have too, such as a web page's manifest.json."""
    folder = tmp_path / "sft"
    folder.mkdir()
    (folder / name).write_text('{"name": "my page"}')
    for action in (
        lambda: disk.remove(folder),
        lambda: model_folders.remove_stage(folder),
        lambda: shard_files.start(folder, PLAN),
        lambda: model_folders.start(folder, PLAN),
        lambda: disk.mark(folder),
    ):
        with pytest.raises(StoreError, match="was not made by semdpo"):
            action()
    assert [path.name for path in folder.iterdir()] == [name]


@pytest.mark.parametrize("beside", ["sft.partial", "sft.partial.checkpoints"])
def test_a_users_folder_beside_a_stage_is_never_removed(beside: str, tmp_path: Path) -> None:
    (tmp_path / beside).mkdir()
    (tmp_path / beside / "mine").write_text("")
    shard_files.start(tmp_path / "sft", PLAN)
    with pytest.raises(StoreError, match="was not made by semdpo"):
        model_folders.remove_stage(tmp_path / "sft")
    assert (tmp_path / beside / "mine").is_file()
    assert (tmp_path / "sft/started.json").is_file(), "nothing is removed where one of them is not ours"


def test_nothing_is_removed_behind_a_link(tmp_path: Path) -> None:
    real = tmp_path / "elsewhere"
    shard_files.start(real, PLAN)
    shard_files.finish(real, PLAN, 0, 1)
    (tmp_path / "run").mkdir()
    (tmp_path / "run/prompts").symlink_to(real)
    for action in (model_folders.remove_stage, disk.remove):
        with pytest.raises(StoreError, match="is a link"):
            action(tmp_path / "run/prompts")
    assert (real / "manifest.json").is_file()


def test_links_inside_of_a_folder_go_and_not_what_they_lead_to(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/file").write_text("the user's")
    folder = tmp_path / "stage"
    shard_files.start(folder, PLAN)
    (folder / "folder").symlink_to(tmp_path / "mine")
    (folder / "file").symlink_to(tmp_path / "mine/file")
    disk.remove(folder)
    assert not folder.exists()
    assert (tmp_path / "mine/file").read_text() == "the user's"


@pytest.mark.parametrize("pattern", ["[ab]", "*", "a?"])
def test_names_are_no_patterns(pattern: str, tmp_path: Path) -> None:
    for name in ("a", "b", "ab"):
        shard_files.start(tmp_path / f"{name}.partial", PLAN)
        shard_files.start(tmp_path / f".{name}.partial-xyz", PLAN)
    before = sorted(path.name for path in tmp_path.iterdir())
    work = model_folders.start(tmp_path / pattern, PLAN)
    model_folders.remove_stage(tmp_path / pattern)
    assert work.name == f"{pattern}.partial"
    assert sorted(path.name for path in tmp_path.iterdir()) == before


@pytest.mark.parametrize("name", ["../../x", "/tmp/x", "a/../../x", "linked/x", "..", ".", "", "report", "\0"])
def test_a_list_of_files_leads_out_of_no_folder(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "run/report"
    folder.mkdir(parents=True)
    (tmp_path / "x").write_text("the user's")
    (folder / "linked").symlink_to(tmp_path)
    disk.remove_file(folder, name)
    assert (tmp_path / "x").read_text() == "the user's"
    assert folder.is_dir()


def test_a_folder_that_is_being_removed_stays_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever a kill comes, the same command can remove the rest."""
    folder = tmp_path / "sft"

    def made() -> None:
        shard_files.start(folder, PLAN)
        for name in ("a", "b"):
            (folder / name).write_text("x")
        shard_files.finish(folder, PLAN, 0, 1)

    made()
    real, left = Path.unlink, 99
    for left in range(5):
        done = 0

        def unlink(path: Path, missing_ok: bool = False, left: int = left) -> None:
            nonlocal done
            if done == left:
                raise KeyboardInterrupt
            done += 1
            real(path, missing_ok=missing_ok)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "unlink", unlink)
            try:
                disk.remove(folder)
            except KeyboardInterrupt:
                assert disk.was_made_by_semdpo(folder)
                assert not (folder / "manifest.json").exists() or left == 0
        disk.remove(folder)
        assert not folder.exists()
        made()


def test_a_finished_folder_takes_no_other_ones_place(tmp_path: Path) -> None:
    disk.mark(tmp_path / "new")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken/mine").write_text("")
    with pytest.raises(StoreError, match="was not made by semdpo"):
        disk.rename(tmp_path / "new", tmp_path / "taken")
    (tmp_path / "empty").mkdir()
    disk.rename(tmp_path / "new", tmp_path / "empty")
    assert disk.was_made_by_semdpo(tmp_path / "empty")


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), True),
        (OSError(errno.EACCES, "Permission denied"), False),
        (RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos 64 vs 0"), True),
        (RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed"), True),
        (RuntimeError("I/O error: No space left on device (os error 28)"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("unexpected pos"), False),
    ],
)
def test_a_full_disk_is_told_in_one_sentence(error: Exception, full: bool, tmp_path: Path) -> None:
    with pytest.raises(StoreError if full else type(error)) as caught, disk.explain_full_disk(tmp_path / "m"):
        raise error
    assert ("no space left" in str(caught.value).lower() and str(tmp_path / "m") in str(caught.value)) is full


def test_marks_are_objects_of_ours(tmp_path: Path) -> None:
    for content in ("", "[]", '"made by"', "[" * 100_000, json.dumps({"by": "somebody"})):
        (tmp_path / disk.MARK).write_text(content)
        assert not disk.was_made_by_semdpo(tmp_path)
    (tmp_path / disk.MARK).unlink()
    (tmp_path / "mark").write_text('{"made by": "semdpo"}')
    (tmp_path / disk.MARK).symlink_to(tmp_path / "mark")
    assert not disk.was_made_by_semdpo(tmp_path)


def test_a_mark_that_another_process_is_writing_makes_no_foreign_folder(tmp_path: Path) -> None:
    half = tmp_path / ".started.json.0123456789abcdef.tmp"
    half.write_bytes(b"{")
    disk.refuse_foreign(tmp_path)
    (tmp_path / ".started.json.tmp").write_bytes(b"the user's")
    with pytest.raises(StoreError, match="was not made by semdpo"):
        disk.refuse_foreign(tmp_path)
