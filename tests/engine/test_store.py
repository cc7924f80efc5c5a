"""The store: whole files or none, equal bytes for equal rows, one process at a time."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from semdpo import disk
from semdpo.data.records import EvaluationRow, Pair, Prompt
from semdpo.engine import model_folders, parquet, shard_files, store
from semdpo.errors import StoreError

PLAN = store.Plan({"n": 4, "renderer": {"steps": 20}}, {"prompts": "abc"})
PROMPTS = [Prompt.of(f"prompt {i}", "s", "train") for i in range(5)]


def _stage(folder: Path) -> None:
    shard_files.start(folder, PLAN)
    for index in range(2):
        data = parquet.encode(Prompt, PROMPTS[index * 3 : index * 3 + 3], {"seen": index + 1})
        shard_files.write_shard(folder, index, data, time.monotonic())
    shard_files.finish(folder, PLAN, 2, 1)


def test_rows_come_back_in_order_with_their_counts(tmp_path: Path) -> None:
    _stage(tmp_path / "a")
    assert store.read_rows(tmp_path / "a", Prompt) == PROMPTS
    assert store.counts(tmp_path / "a") == {"rows": 5, "seen": 3}


def test_equal_rows_give_equal_files_and_hashes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        _stage(tmp_path / name)
    for path in (tmp_path / "a").iterdir():
        if path.name != "timing.json":
            assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
    assert store.manifest_hash(tmp_path / "a") == store.manifest_hash(tmp_path / "b")
    assert (tmp_path / "a/timing.json").read_bytes() != (tmp_path / "b/timing.json").read_bytes()


def test_optional_and_spread_columns_keep_their_types(tmp_path: Path) -> None:
    pair = Pair("id", "p", "c", "r", None, 1.0)
    row = EvaluationRow("dpo", "i", "p", "s", 2**62, "r", 3, 0.5, True, {"clip": 0.25, "hps": 1.0}, None)
    shown_methods = EvaluationRow("dpo", "i", "p", "s", 1, "r", 3, 0.5, False, {"clip": 0.5, "hps": -1.0}, b"\x00w")
    for kind, rows in ((Pair, [pair]), (EvaluationRow, [row, shown_methods]), (Pair, [])):
        (tmp_path / "f.parquet").write_bytes(parquet.encode(kind, rows, {}))
        assert parquet.read_file(tmp_path / "f.parquet", kind) == rows


def test_a_plan_agrees_with_what_it_made(tmp_path: Path) -> None:
    _stage(tmp_path)
    assert store.mismatch(tmp_path, PLAN) is None
    assert store.mismatch(tmp_path / "absent", PLAN) is None
    changed = store.Plan({"n": 4, "renderer": {"steps": 30}}, PLAN.inputs)
    assert store.mismatch(tmp_path, changed) == "was made with renderer.steps = 20, which is now 30"
    assert store.mismatch(tmp_path, store.Plan({"n": 4}, PLAN.inputs)) == (
        'was made with renderer.steps = 20, which is now "…"'
    )
    assert store.mismatch(tmp_path, store.Plan(PLAN.config, {"prompts": "x"})) == (
        "was made from a different version of prompts"
    )
    assert store.mismatch(tmp_path, store.Plan(PLAN.config, {})) is None, "an unknown input is not compared"


def test_half_done_work_is_tied_to_its_plan_and_to_the_libraries(tmp_path: Path) -> None:
    shard_files.start(tmp_path, PLAN)
    assert not store.is_complete(tmp_path)
    assert store.mismatch(tmp_path, PLAN) is None
    assert "was made with n = 4" in str(store.mismatch(tmp_path, store.Plan({**PLAN.config, "n": 5}, {})))
    started = store.read_json(tmp_path / "started.json")
    started["versions"]["torch"] = "0.1"
    (tmp_path / "started.json").write_bytes(store.canonical(started))
    assert "was started with torch 0.1" in str(store.mismatch(tmp_path, PLAN))


def test_leftovers_of_a_killed_process_are_swept(tmp_path: Path) -> None:
    shard_files.start(tmp_path, PLAN)
    half = ".part-00000.parquet.0123456789abcdef.tmp"
    (tmp_path / "train").mkdir()
    for place in (tmp_path, tmp_path / "train"):
        (place / half).write_bytes(b"half")
    (tmp_path / ".notes.tmp").write_text("the user's")
    with store.shared(tmp_path):  # they may be another process's
        assert (tmp_path / "train" / half).exists()
    with store.locked(tmp_path):
        assert sorted(p.name for p in tmp_path.rglob("*") if p.suffix == ".tmp") == [".notes.tmp"]
    assert (tmp_path / "started.json").is_file()


def test_a_damaged_note_of_the_time_is_in_nobodys_way(tmp_path: Path) -> None:
    folder = tmp_path / "sft"
    model_folders.time_note(folder).write_text("")
    shard_files.start(folder, PLAN)
    model_folders.remove_stage(folder)
    assert not folder.exists()


def _finished(folder: Path) -> Path:
    shard_files.start(folder, PLAN)
    for index in range(2):
        shard_files.write_shard(folder, index, parquet.encode(Prompt, PROMPTS[index * 3 : index * 3 + 3], {}))
    shard_files.finish(folder, PLAN, 2, 1)
    return folder


DAMAGE: dict[str, Callable[[Path], object]] = {
    "emptied": lambda path: path.write_bytes(b""),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-9]),
    "flipped": lambda path: path.write_bytes(path.read_bytes()[:50] + b"\xff" + path.read_bytes()[51:]),
    "removed": lambda path: path.unlink(),
    "another": lambda path: path.write_bytes(parquet.encode(Prompt, PROMPTS[:1], {})),
}


@pytest.mark.parametrize("how", DAMAGE)
def test_damaged_rows_are_never_used(how: str, tmp_path: Path) -> None:
    folder = _finished(tmp_path / "prompts")
    assert store.mismatch(folder, PLAN) is None
    DAMAGE[how](folder / "part-00001.parquet")
    with pytest.raises(StoreError, match=r"part-00001\.parquet.* --fresh"):
        store.read_rows(folder, Prompt)
    assert "part-00001.parquet" in str(store.mismatch(folder, PLAN))
    model_folders.remove_stage(folder)
    assert not folder.exists()


@pytest.mark.parametrize("content", ["", "{", "[]", "3", "{}", '{"config": 1, "inputs": {}}', "[" * 100_000])
def test_a_damaged_manifest_is_told_and_can_be_made_anew(content: str, tmp_path: Path) -> None:
    folder = _finished(tmp_path / "prompts")
    (folder / "manifest.json").write_text(content)
    with pytest.raises(StoreError, match=r"manifest\.json is damaged"):
        store.counts(folder)
    assert "manifest.json is damaged" in str(store.mismatch(folder, PLAN))
    model_folders.remove_stage(folder)
    assert not folder.exists()


@pytest.mark.parametrize(
    ("before", "after"), [('"rows": 5', '"rows": 6'), ('"threads": 1', '"threads": 2'), ("0", "1")]
)
def test_no_change_of_a_manifest_goes_unnoticed(before: str, after: str, tmp_path: Path) -> None:
    folder = _finished(tmp_path / "prompts")
    path = folder / "manifest.json"
    path.write_text(path.read_text().replace(before, after, 1))
    with pytest.raises(StoreError, match=r"manifest\.json is damaged"):
        store.counts(folder)
    assert "manifest.json is damaged" in str(store.mismatch(folder, PLAN))


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_shard_of_an_unfinished_stage_is_made_again(how: str, tmp_path: Path) -> None:
    shard_files.start(tmp_path, PLAN)
    for index in range(2):
        shard_files.write_shard(tmp_path, index, parquet.encode(Prompt, PROMPTS, {}))
    DAMAGE[how](tmp_path / "part-00001.parquet")
    assert [shard_files.has_shard(tmp_path, index) for index in range(3)] == [True, False, False]


NOTES: dict[str, Callable[[Path], object]] = {
    **DAMAGE,
    "no object": lambda path: path.write_text("[]"),
    "no number": lambda path: path.write_text(path.read_text().replace("0.0", '"long"')),
}


@pytest.mark.parametrize("how", [how for how in NOTES if how != "another"])
def test_a_shard_whose_note_is_damaged_is_made_again(how: str, tmp_path: Path) -> None:
    shard_files.start(tmp_path, PLAN)
    shard_files.write_shard(tmp_path, 0, parquet.encode(Prompt, PROMPTS, {}))
    note = tmp_path / "made/part-00000.json"
    assert shard_files.has_shard(tmp_path, 0)
    NOTES[how](note)
    assert not shard_files.has_shard(tmp_path, 0)
    with pytest.raises(StoreError, match="has changed since it was written; run the same command again"):
        shard_files.finish(tmp_path, PLAN, 1, 1)
    assert not store.is_complete(tmp_path)


def test_exchanged_shards_are_found(tmp_path: Path) -> None:
    shard_files.start(tmp_path, PLAN)
    for index in range(2):
        shard_files.write_shard(tmp_path, index, parquet.encode(Prompt, PROMPTS[index : index + 1], {}))
    first, second = (shard_files.shard_path(tmp_path, index) for index in range(2))
    one, other = first.read_bytes(), second.read_bytes()
    first.write_bytes(other)
    second.write_bytes(one)
    assert not shard_files.has_shard(tmp_path, 0)
    assert not shard_files.has_shard(tmp_path, 1)


def test_notes_that_a_killed_process_left_are_no_damage(tmp_path: Path) -> None:
    folder = _finished(tmp_path / "prompts")
    assert not (folder / "made").exists()
    whole = store.manifest_hash(folder)
    (folder / "made").mkdir()
    (folder / "made/part-00000.json").write_text("{}")
    assert store.mismatch(folder, PLAN) is None
    assert store.manifest_hash(folder) == whole
    assert store.read_rows(folder, Prompt) == PROMPTS
    shard_files.remove_notes(folder)
    assert not (folder / "made").exists()


def test_a_users_files_are_no_notes(tmp_path: Path) -> None:
    folder, elsewhere = _finished(tmp_path / "prompts"), tmp_path / "elsewhere"
    (folder / "made").mkdir()
    (folder / "made/by me.txt").write_text("mine")
    shard_files.remove_notes(folder)
    assert (folder / "made/by me.txt").is_file()
    assert "holds made/by me.txt, which does not belong to it" in str(store.mismatch(folder, PLAN))
    shutil.rmtree(folder / "made")
    elsewhere.mkdir()
    (elsewhere / "part-00000.json").write_text("{}")
    (folder / "made").symlink_to(elsewhere)
    shard_files.remove_notes(folder)
    assert (elsewhere / "part-00000.json").is_file()


def test_a_model_gets_its_name_only_when_it_is_finished(tmp_path: Path) -> None:
    folder = tmp_path / "train" / "dpo"
    work = model_folders.start(folder, PLAN)
    (work / "half").write_text("half-trained")
    disk.mark(tmp_path / "train" / ".dpo.partial-abc")
    (tmp_path / "train" / ".dpo.partial-def").mkdir()  # killed before it was marked
    again = model_folders.start(folder, PLAN)
    assert again == work
    assert [p.name for p in again.iterdir()] == ["started.json"]
    assert [p.name for p in (tmp_path / "train").iterdir()] == ["dpo.partial"]
    (again / "model.bin").write_text("weights")
    model_folders.finish(folder, PLAN, {"rows": 1})
    assert not work.exists()
    assert store.read_json(folder / "manifest.json")["files"].keys() == {"model.bin"}


def test_a_finished_folders_hash_follows_what_is_in_it_now(tmp_path: Path) -> None:
    folder = tmp_path / "train" / "dpo"
    (model_folders.start(folder, PLAN) / "model.bin").write_bytes(b"a" * 3 * 2**20)
    model_folders.finish(folder, PLAN, {"rows": 1})
    whole = store.manifest_hash(folder)
    assert whole == store.digest((folder / "manifest.json").read_bytes())
    (folder / "timing.json").write_text("{}")
    assert store.manifest_hash(folder) == whole
    (folder / "model.bin").write_bytes(b"a" * 2**20 + b"b" + b"a" * (2**21 - 1))
    changed = store.manifest_hash(folder)
    (folder / "adapter_config.json").write_text("{}")
    assert len({whole, changed, store.manifest_hash(folder)}) == 3


def test_one_process_holds_a_run(tmp_path: Path) -> None:
    code = f"""
import sys; from pathlib import Path; from semdpo.engine import store, timing
with store.locked(Path({str(tmp_path)!r})):
    print("held", flush=True); sys.stdin.readline()
"""
    holder = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdin is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(StoreError, match=f"in use by process {holder.pid}; wait"), store.locked(tmp_path):
        pass
    holder.kill()
    holder.wait()
    holder.stdin.close()
    holder.stdout.close()
    with store.locked(tmp_path):
        assert (tmp_path / ".lock.pid").read_text() == f"{os.getpid()}\n"
    assert not (tmp_path / ".lock.pid").exists()


def test_no_space_left_leaves_nothing_half_written(tmp_path: Path) -> None:
    # A limit on the size of files makes the kernel refuse the write, as a full disk does.
    code = f"""
import resource
from pathlib import Path
from semdpo.engine import shard_files, store, timing
from semdpo.errors import StoreError
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    shard_files.write_shard(Path({str(tmp_path)!r}), 0, b"x" * 5000)
except StoreError as error:
    print(error)
"""
    # `make coverage` does not measure this process: its file of results would not fit either.
    unmeasured = {name: value for name, value in os.environ.items() if name != "COVERAGE_PROCESS_CONFIG"}
    command = [sys.executable, "-c", code]
    said = subprocess.run(command, capture_output=True, text=True, check=True, env=unmeasured).stdout
    assert "there is no space left to write" in said
    assert "free some" in said
    assert not list(tmp_path.iterdir())


def test_shards_stay_in_order_when_their_index_gets_a_sixth_digit() -> None:
    names = [shard_files.shard_path(Path(), index).name for index in (0, 9, 99_999, 100_000, 100_001)]
    assert parquet.shard_names(reversed(names)) == names
