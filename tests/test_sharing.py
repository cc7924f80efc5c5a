"""Several processes share a run's folder, as on the machines of a cluster: the same files as one makes alone."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from semdpo import pipeline
from semdpo.cli.app import app
from semdpo.engine import store
from semdpo.engine.claims import SILENCE, Claims
from semdpo.errors import ConfigError, StoreError
from tests.stand_ins import files_of, models, recipe_of, stand_in_trainings

pytestmark = pytest.mark.slow  # processes
REPOSITORY = Path(__file__).parents[1]


Process = subprocess.Popen[str]
Start = Callable[[int], Process]  # the process of this number


@pytest.fixture
def start(finished: Path, tmp_path: Path) -> Iterator[Start]:
    """Starts one of three processes that make a run in ``run``; none of them outlives the test."""
    started = list[Process]()

    def begin(part: int) -> Process:
        script = [sys.executable, "-m", "tests.test_sharing", str(finished), str(tmp_path / "run"), str(part), "3"]
        environment = {**os.environ, SILENCE: "10"}  # a busy machine may let a process wait for seconds
        started.append(subprocess.Popen(script, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True, env=environment))
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        if process.stderr is not None and not process.stderr.closed:
            process.communicate()


def _ends_well(process: Process) -> None:
    _, said = process.communicate(timeout=240)
    assert process.returncode == 0, said


def _made(run: Path) -> dict[str, bytes]:
    """A run's files without the claims of killed processes, which the next run removes."""
    return {name: text for name, text in files_of(run).items() if not name.startswith(".claims/")}


def test_processes_make_the_files_of_one(finished: Path, start: Start, tmp_path: Path) -> None:
    run = tmp_path / "run"
    for process in [start(part) for part in (1, 2, 3)]:
        _ends_well(process)
    assert files_of(run) == files_of(finished / "run")
    assert pipeline.report_path(run).is_file()
    pipeline.run(recipe_of(finished), run, only="label", models=models())
    assert not (run / ".claims").exists()


def test_killed_processes_lose_nothing(finished: Path, start: Start, tmp_path: Path) -> None:
    run, chance, killed = tmp_path / "run", random.Random(0), 0
    working = {part: start(part) for part in (1, 2, 3)}
    while not store.is_complete(run / "evaluate/sem_dpo/images"):
        time.sleep(chance.uniform(0.5, 4))
        assert all(process.poll() in (None, 0) for process in working.values())
        part = chance.choice([1, 2, 3])
        if killed < 3 and working[part].poll() is None:
            working[part].kill()
            working[part].communicate()
            killed += 1
            working[part] = start(part)
    for process in working.values():
        _ends_well(process)
    assert killed >= 2
    assert _made(run) == files_of(finished / "run")


def test_one_alone_and_several_together_exclude_each_other(finished: Path, tmp_path: Path) -> None:
    recipe = recipe_of(finished)
    with store.locked(tmp_path), pytest.raises(StoreError, match=f"is in use by process {os.getpid()}"):
        pipeline.run(recipe, tmp_path, models=models(), shard=(1, 2))
    with store.shared(tmp_path), pytest.raises(StoreError, match="is in use by another process"):
        pipeline.run(recipe, tmp_path, models=models())
    with store.shared(tmp_path), store.shared(tmp_path):
        pass


def test_the_work_can_be_shared_and_spread(finished: Path, tmp_path: Path) -> None:
    """Each of the processes that share the folder may have processes of its own."""
    for stage in ("prompts", "sft", "candidates"):
        pipeline.run(recipe_of(finished), tmp_path, only=stage, models=models())
    other = Claims(tmp_path, 2, 2)
    with store.shared(tmp_path), other:
        assert other.take("label", 1)
        other.release("label", 1)
        pipeline.run(recipe_of(finished), tmp_path, only="label", models=models(), workers=2, shard=(1, 2))
    rows = {name: text for name, text in files_of(tmp_path).items() if name.startswith("label/part")}
    assert len(rows) == 5
    assert rows.items() <= files_of(finished / "run").items()


@pytest.mark.parametrize("shard", [(0, 2), (3, 2), (1, 0), (-1, -1)])
def test_no_such_process(shard: tuple[int, int], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="processes are counted from 1"):
        pipeline.run(recipe_of(tmp_path), tmp_path / "run", models=models(), shard=shard)


def test_a_cluster_is_not_shared(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="with engine: ray, one process gives the shards out; leave --shard out"):
        pipeline.run(recipe_of(tmp_path, "engine=ray"), tmp_path / "run", models=models(), shard=(1, 2))


def test_what_others_make_is_not_removed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--fresh would remove what other processes make"):
        pipeline.run(recipe_of(tmp_path), tmp_path / "run", models=models(), shard=(1, 2), fresh=True)


@pytest.mark.parametrize(
    "given", ["0/2", "3/2", "1", "1/", "/2", "-1/2", "1/2/3", "a/b", "", "1/0", "9" * 5000, "1 / 2"]
)
@pytest.mark.parametrize("command", [["run", "tiny"], ["evaluate", "nowhere"], ["sweep", "tiny"], ["demo"]])
def test_what_is_no_shard(command: list[str], given: str) -> None:
    done = CliRunner().invoke(app, [*command, "--shard", given])
    assert isinstance(done.exception, ConfigError)
    assert "it must be i/n with i from 1 to n" in str(done.exception)
    assert len(str(done.exception)) < 300


if __name__ == "__main__":
    stand_in_trainings(pytest.MonkeyPatch())
    inputs, folder, number, count = sys.argv[1:]
    pipeline.run(recipe_of(Path(inputs)), folder, models=models(0.1), shard=(int(number), int(count)))
