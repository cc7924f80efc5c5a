"""Kill -9 at any moment of a run: the same command ends with the files of an undisturbed run, and with no others."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.faults.runs import Runs, files_of, same

pytestmark = pytest.mark.slow  # processes
KILLS = 20
# What the process would have done next, in the order of a run.
WINDOWS = [
    r"open \.\.lock\.pid",
    r"rename recipe\.json",
    r"open prompts/\.started\.json",  # its folder is there, and empty
    r"rename prompts/started\.json",
    r"rename \.sft\.partial\.seconds\.json|rename sft\.partial\.seconds\.json",
    r"open \.sft\.partial-\w+/\.\.semdpo\.json",  # a folder without its mark
    r"remove \.sft\.partial-\w+/\.semdpo\.json",
    r"rename sft\.partial$",
    r"open sft\.partial/\.manifest",
    r"rename sft$",
    r"remove sft\.partial\.seconds\.json",  # it has its final name
    r"rename candidates/part-00002",  # written and not renamed
    r"open label/made/\.part-00001",  # a shard without its note
    r"rename label/made/part-00003",
    r"open pairs/\.manifest",  # all shards and no manifest
    r"rename drift/manifest",
    r"remove drift/made/part-00002",  # a manifest and the notes
    r"rename train/dpo\.partial\.seconds\.json",
    r"rename reference/",
    r"open train/dpo\.partial\.checkpoints/\.training\.json",
    r"open train/dpo\.partial\.checkpoints/checkpoint-4/.*sha256\.json",
    r"remove train/dpo\.partial\.checkpoints/",  # the model is written
    r"rename train/dpo$",
    r"rmdir losses/sem_dpo/made",
    r"rename evaluate/human/images/made/part-00001",
    r"rename evaluate/dpo/clip/manifest",
    r"rename sft/guard\.json",
    r"rename report/\.files\.json",
    r"rename report/tables/results\.csv",
    r"rename report/index\.html",
]


def test_a_run_is_killed_at_twenty_random_moments(
    runs: Runs, places: list[str], whole: dict[str, bytes], tmp_path: Path
) -> None:
    """Half of the moments are counted in changes of files, half are times; a run that ends is followed by another."""
    chance, killed, folders = random.Random(17), 0, 1
    while killed < KILLS:
        run = tmp_path / f"run-{folders}"
        if killed % 2:
            job = runs.start(run, nth=chance.randint(1, len(places) // 6), act="kill")
        else:
            job = runs.start(run)
            time.sleep(chance.uniform(0.1, 1.5))
            with suppress(ProcessLookupError):
                os.kill(job.pid, signal.SIGKILL)
        code, said = job.ended()
        assert code in (0, -signal.SIGKILL), said
        killed += code != 0
        if code == 0:
            same(files_of(run), whole)
            folders += 1
    runs.finish(tmp_path / f"run-{folders}")
    same(files_of(tmp_path / f"run-{folders}"), whole)


def test_a_run_is_killed_wherever_files_belong_together(runs: Runs, whole: dict[str, bytes], tmp_path: Path) -> None:
    for window in WINDOWS:
        code, said = runs.start(tmp_path / "run", match=window, act="kill").ended()
        assert code == -signal.SIGKILL, f"{window}: {said}"
    runs.finish(tmp_path / "run")
    same(files_of(tmp_path / "run"), whole)


def test_a_removal_is_killed(runs: Runs, whole: dict[str, bytes], tmp_path: Path) -> None:
    """--fresh, which removes every stage; then what is left is completed, and not taken for whole."""
    chance, run = random.Random(1), tmp_path / "run"
    shutil.copytree(runs.inputs / "whole", run)
    for window in [r"remove train/dpo/", r"rmdir ", r"remove sft/manifest\.json", r"remove .*part-"]:
        job = runs.start(run, "--fresh", match=window, nth=chance.randint(1, 3), act="kill")
        code, said = job.ended()
        assert code == -signal.SIGKILL, f"{window}: {said}"
    runs.finish(run)
    same(files_of(run), whole)


def test_the_places_are_those_of_every_stage(places: list[str]) -> None:
    stages = {"prompts", "sft", "candidates", "label", "pairs", "drift", "train", "losses", "evaluate", "report"}
    assert stages <= {re.split(r"[ /.]", place)[1] for place in places}
    assert len(places) > 500
