from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from semdpo.study.plan import Study
from tests.study.studies import Served, make, served


@pytest.fixture
def study(tmp_path: Path) -> Study:
    """A small study of three raters and four prompts."""
    return make(tmp_path / "study")


@pytest.fixture
def server(study: Study) -> Iterator[Served]:
    """A server of the small study."""
    with served(study) as started:
        yield started


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 2 MB in memory; only an administrator of Linux can mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", place]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no disk can be mounted here; test_a_file_that_cannot_grow has a limit of the file's size")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)
