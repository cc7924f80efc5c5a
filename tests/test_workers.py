"""Several processes make a run: the same files as one, whatever happens to them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import psutil
import pytest
from typer.testing import CliRunner

from semdpo import pipeline
from semdpo.cli.app import app
from semdpo.engine import store
from semdpo.engine.workers import Workers
from semdpo.errors import ConfigError, DataError, ModelError
from tests import processes, stand_ins, tasks

pytestmark = pytest.mark.slow  # processes


@pytest.fixture(scope="module")
def candidates(stand_in_trainings: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run whose next stage is ``label``."""
    folder = tmp_path_factory.mktemp("candidates")
    stand_ins.run_without_report(stand_ins.recipe_of(folder), folder / "run", stand_ins.models(), last="candidates")
    return folder


def _labelled(folder: Path, workers: int | None, delay: float = 0.0) -> dict[str, bytes]:
    recipe, run = stand_ins.recipe_of(folder), folder / "run"
    pipeline.run(recipe, run, only="label", fresh=True, models=stand_ins.models(delay), workers=workers)
    return stand_ins.files_of(run)


def _without_threads(files: dict[str, bytes]) -> dict[str, object]:
    """A process of the workers has one thread; this one may have more, and no stand-in computes with them."""
    manifest = json.loads(files["label/manifest.json"])
    del manifest["threads"], manifest[store.SEAL]
    return files | {"label/manifest.json": manifest}


def _processes() -> list[psutil.Process]:
    return processes.having("spawn_main", psutil.Process().children())


def test_any_number_of_processes_makes_the_same_files(candidates: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    two, five = (_labelled(candidates, count) for count in (2, 5))
    assert len([name for name in two if name.startswith("label/part-")]) == 5
    assert two == five
    assert json.loads(two["label/manifest.json"])["threads"] == 1
    assert "OMP_NUM_THREADS" not in os.environ
    assert _without_threads(two) == _without_threads(_labelled(candidates, None))


def test_a_killed_process_is_replaced_and_nothing_is_lost(candidates: Path) -> None:
    whole, killed, over = _without_threads(_labelled(candidates, None)), list[int](), threading.Event()

    def kill() -> None:
        part = candidates / "run/label/part-00000.parquet"
        while not over.wait(0.5):
            if part.exists() and len(killed) < 3 and (found := _processes()):
                killed.append(found[0].pid)
                found[0].kill()

    killer = threading.Thread(target=kill)
    (candidates / "run/label/part-00000.parquet").unlink()
    killer.start()
    try:
        found = _without_threads(_labelled(candidates, 2, delay=0.3))
    finally:
        over.set()
        killer.join()
    assert len(killed) == 3
    assert found == whole


def test_a_shard_at_which_every_process_dies_ends_the_run() -> None:
    with (
        Workers(2, partial(tasks.opened, tasks.dies)) as workers,
        pytest.raises(ModelError, match=r"3 processes have died at shard 2 of label \(signal 9\)"),
    ):
        list(workers.made("label", range(4)))


def test_an_error_of_a_process_is_raised_here() -> None:
    fails = partial(tasks.fails, DataError("row 3 is bad"))
    with Workers(2, partial(tasks.opened, fails)) as workers, pytest.raises(DataError, match=r"^row 3 is bad$"):
        list(workers.made("label", range(4)))
    fails = partial(tasks.fails, KeyError("x"))
    with (
        Workers(1, partial(tasks.opened, fails)) as workers,
        pytest.raises(RuntimeError, match=r"a defect in a worker process:\n(.*\n)*KeyError: 'x'"),
    ):
        list(workers.made("label", [0]))


def test_a_shard_that_nobody_took_is_not_one_of_the_next_stage() -> None:
    with Workers(2, partial(tasks.opened, tasks.name)) as workers:
        for _ in workers.made("label", range(4)):
            break
        assert dict(workers.made("evaluate", range(2))) == {0: "evaluate 0", 1: "evaluate 1"}


def test_no_process_stays_behind() -> None:
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)  # SIGINT may be ignored where tests run
    signal.alarm(2)
    try:
        with Workers(2, partial(tasks.opened, tasks.slow)) as workers, pytest.raises(KeyboardInterrupt):
            list(workers.made("label", range(4)))
    finally:
        signal.signal(signal.SIGALRM, before)
    assert not _processes()


FIRST = """
from functools import partial
import psutil
from semdpo.engine import store
from semdpo.engine.workers import Workers
from tests import tasks
with Workers(2, partial(tasks.opened, tasks.nap)) as workers:
    for _ in workers.made("label", range(1000)):
        children = psutil.Process().children()
        print(*[each.pid for each in children if "spawn_main" in " ".join(each.cmdline())], flush=True)
"""


def test_the_others_end_when_the_first_process_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", FIRST], stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        lines = [first.stdout.readline() for _ in range(4)]
        others = [psutil.Process(int(pid)) for pid in lines[-1].split()]
        first.kill()
    assert len(others) == 2
    _, alive = psutil.wait_procs(others, timeout=30)
    assert not alive


def test_each_process_has_a_gpu_of_its_own() -> None:
    with Workers(3, partial(tasks.opened, tasks.gpu), gpus=["4", "7"]) as workers:
        found = dict(workers.made("label", range(3)))
    assert sorted(found.values()) == ["4", "4", "7"]


@pytest.mark.parametrize("count", [0, -1])
def test_no_number_of_processes(tmp_path: Path, count: int) -> None:
    with pytest.raises(ConfigError, match="it must be a number ≥ 1"):
        pipeline.run(stand_ins.recipe_of(tmp_path), tmp_path / "run", models=stand_ins.models(), workers=count)


@pytest.mark.parametrize("given", ["0", "-1", "two", "1.5", "", "9" * 5000, "0000000100000", "1025"])
@pytest.mark.parametrize("command", [["run", "tiny"], ["evaluate", "nowhere"], ["sweep", "tiny"], ["demo"]])
def test_what_is_no_number_of_processes(command: list[str], given: str) -> None:
    done = CliRunner().invoke(app, [*command, "--workers", given])
    assert isinstance(done.exception, ConfigError)
    assert str(done.exception).startswith("--workers ")
    assert len(str(done.exception)) < 300


@pytest.mark.parametrize("command", ["run", "sweep"])
def test_one_process_for_each_gpu_where_there_is_none(command: str) -> None:
    done = CliRunner().invoke(app, [command, "tiny", "--workers", "auto"])
    assert str(done.exception) == "--workers auto is one process for each GPU, and there is none; give a number"


def test_the_report_has_no_processes() -> None:
    done = CliRunner().invoke(app, ["run", "tiny", "--only", "report", "--workers", "2"])
    assert "--workers has no effect on the report" in str(done.exception)
