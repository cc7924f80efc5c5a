"""A disk that fills in any stage: one sentence, no file that is not whole, and the same command resumes."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.child import BALLAST
from tests.faults.runs import Runs, files_of, same
from tests.faults.test_signals import PLACES

pytestmark = pytest.mark.slow  # processes


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 32 MB in memory; only an administrator of Linux can mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", place]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no disk can be mounted here; test_no_file_can_be_written has every stage too")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


def _refused(runs: Runs, run: Path, place: str, act: str) -> None:
    """Lets the disk fill at a place of a run."""
    code, said = runs.start(run, match=place, act=act).ended()
    assert code == 2, f"{place}: {said}"
    assert "Traceback" not in said, said
    last = said.splitlines()[-1]
    assert last.startswith("semdpo: there is no space left to write "), last
    assert last.endswith("; free some space, then run the same command again"), last


def test_a_disk_is_full_in_every_stage(runs: Runs, whole: dict[str, bytes], small_disk: Path) -> None:
    run = small_disk / "run"
    for place in PLACES[::2]:  # one of each stage
        _refused(runs, run, place, "fill")
        (small_disk / BALLAST).unlink()
        found = files_of(run)
        assert [name for name in found.keys() & whole.keys() if found[name] != whole[name]] == [], place
        assert [name for name in found if name.endswith(".tmp")] == [], place
    runs.finish(run)
    same(files_of(run), whole)


def test_no_file_can_be_written(runs: Runs, whole: dict[str, bytes], tmp_path: Path) -> None:
    """The same with a stand-in for the disk, at the other places."""
    for place in PLACES[1::2]:
        _refused(runs, tmp_path / "run", place, "full")
    runs.finish(tmp_path / "run")
    same(files_of(tmp_path / "run"), whole)
