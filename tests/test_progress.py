"""Progress: a line now and then where there is no terminal, a bar where there is one."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import time

import pytest

from semdpo import progress

CODE = """
from semdpo.progress import bar
with bar("drawing") as tell:
    for done in range(4):
        tell(done, 4, "note [x]")
"""


def test_plain_lines_come_every_few_seconds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with progress.bar("drawing") as tell:
        now[0] += 4  # loading
        for done in range(10, 21):
            tell(done, 20, f"at {done}")
            now[0] += 1
    # Counting began with 10 done; a row takes a second.
    assert capsys.readouterr().err.splitlines() == ["drawing: 11/20, 9 s left at 11", "drawing: 16/20, 4 s left at 16"]


def test_the_time_left_of_a_second_count_is_its_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with progress.bar("drawing") as tell:
        for done in [*range(1, 101), *range(1, 8)]:
            tell(done, 100)
            now[0] += 1
    assert capsys.readouterr().err.splitlines()[-1] == "drawing: 6/100, 94 s left"  # a step takes a second


def test_a_short_step_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.bar("drawing") as tell:
        tell(1, 2)
        tell(2, 2)
    assert capsys.readouterr().err == ""


def test_a_terminal_gets_a_bar() -> None:
    leader, follower = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    subprocess.run([sys.executable, "-c", CODE], stderr=follower, check=True, env=environment)
    os.close(follower)
    said = os.read(leader, 65536).decode()
    os.close(leader)
    assert "drawing" in said
    assert "/4" in said
    assert "note [x]" in said


def test_a_part_counts_within_the_whole() -> None:
    told: list[tuple[int, int, str]] = []
    part = progress.progress_of_part(lambda done, total, note="": told.append((done, total, note)), 30, 100)
    part(5, 10, "a")
    assert told == [(35, 100, "a")]


def test_libraries_are_silenced_before_they_are_imported() -> None:
    code = """
from semdpo.progress import quiet_libraries
quiet_libraries()
from transformers.utils import logging
print(logging.get_verbosity() == logging.ERROR, logging.is_progress_bar_enabled())
"""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "TRANSFORMERS_"))}
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=clean)
    assert said.stdout == "True False\n"
    assert said.stderr == ""


def test_waiting_threads_sleep_soon_unless_the_user_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOMP_SPINCOUNT", "")
    monkeypatch.delenv("GOMP_SPINCOUNT")
    progress.share_the_cpu()
    assert os.environ["GOMP_SPINCOUNT"] == "1000"
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    progress.share_the_cpu()
    assert os.environ["GOMP_SPINCOUNT"] == "7"
