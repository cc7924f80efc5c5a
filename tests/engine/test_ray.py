"""A real Ray cluster of two nodes makes a run: the same files as one process, whatever happens to a node."""

from __future__ import annotations

import importlib
import io
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from semdpo import extras, pipeline
from semdpo.engine import ray_workers, shard_files
from semdpo.engine.ray_workers import RayWorkers
from semdpo.errors import ConfigError, DataError, ModelError
from tests import processes, stand_ins, tasks

pytestmark = [
    pytest.mark.slow,  # a cluster
    pytest.mark.filterwarnings(r"ignore::DeprecationWarning:ray\..*"),  # Ray's own settings, when it copies them
]
MEMORY = 80_000_000  # bytes of a node's object store; Ray takes no less than 75 MB


class TwoNodes:
    """A head with one CPU, on which the test itself runs, and a second node with a CPU and, so it says, a GPU."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        dies = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 500, "health_check_failure_threshold": 2}
        head = {"include_dashboard": False, "_system_config": dies}
        self.cluster: Any = Cluster(True, head_node_args=head | {"num_cpus": 1, "object_store_memory": MEMORY})
        self.add()

    def add(self) -> None:
        self.second = self.cluster.add_node(num_cpus=1, num_gpus=1, object_store_memory=MEMORY)

    def kill(self) -> None:
        self.cluster.remove_node(self.second, allow_graceful=False)


@pytest.fixture(scope="module")
def two_nodes() -> Iterator[TwoNodes]:
    with pytest.MonkeyPatch.context() as patch:
        root = str(Path(__file__).parents[2])  # the nodes import tests.tasks
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), root])))
        folder = tempfile.mkdtemp(prefix="ray")  # its sockets' names must be short
        patch.setenv("RAY_TMPDIR", folder)
        nodes = TwoNodes()
        patch.setenv("RAY_ADDRESS", nodes.cluster.address)
        yield nodes
        nodes.cluster.shutdown()
        # Its threads outlive the cluster, and write what later tests would take for theirs.
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def candidates(stand_in_trainings: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run whose next stage is ``label``."""
    folder = tmp_path_factory.mktemp("candidates")
    stand_ins.run_without_report(stand_ins.recipe_of(folder), folder / "run", stand_ins.models(), last="candidates")
    return folder


def _labelled(folder: Path, engine: str, workers: int, delay: float = 0.0) -> dict[str, bytes]:
    recipe, run = stand_ins.recipe_of(folder, f"engine={engine}", "ray.gpus=0"), folder / "run"
    pipeline.run(recipe, run, only="label", fresh=True, models=stand_ins.models(delay), workers=workers)
    files = stand_ins.files_of(run)
    assert json.loads(files.pop("recipe.json"))["engine"] == engine
    return files


def _workers(task: Callable[[str, int], object], count: int | None = 2, gpus: float = 0.0) -> RayWorkers:
    return RayWorkers(count, partial(tasks.opened, task), {"label": gpus, "evaluate": 0.0})


def test_a_killed_node_is_replaced_and_the_files_are_those_of_two_processes(
    candidates: Path, two_nodes: TwoNodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    here = _labelled(candidates, "local", 2)
    assert json.loads(here["label/manifest.json"])["threads"] == 1
    written: list[int] = []

    def write(folder: Path, index: int, data: bytes, seconds: float) -> None:
        written.append(index)
        if len(written) == 2:  # both workers are in the middle of a shard
            two_nodes.kill()
            two_nodes.add()
        store_write(folder, index, data, seconds)

    store_write = shard_files.write_shard
    monkeypatch.setattr(shard_files, "write_shard", write)
    assert _labelled(candidates, "ray", 2, delay=1.0) == here
    assert sorted(written) == [0, 1, 2, 3, 4]


def test_an_error_of_a_worker_is_raised_here(two_nodes: TwoNodes) -> None:
    with (
        _workers(partial(tasks.fails, DataError("row 3 is bad"))) as workers,
        pytest.raises(DataError, match=r"^row 3 is bad$"),
    ):
        list(workers.made("label", range(4)))


def test_only_rays_own_console_is_made_quiet(two_nodes: TwoNodes) -> None:
    others, log = logging.StreamHandler(io.StringIO()), logging.getLogger("ray.data")
    log.addHandler(others)  # as pytest does, so that its tests see what a log that tells no parent says
    try:
        with _workers(tasks.name):
            levels = {handler: handler.level for handler in log.handlers}
    finally:
        log.removeHandler(others)
    assert levels.pop(others) == logging.NOTSET
    assert [level for handler, level in levels.items() if handler.name == "console"] == [logging.CRITICAL]


def test_the_counter_of_starts_may_die_too(two_nodes: TwoNodes) -> None:
    with _workers(tasks.nap) as workers:
        found = []
        for index, _ in workers.made("label", range(8)):
            if not found:
                here = psutil.Process().children(recursive=True)  # another cluster may have a counter too
                (counter,) = processes.having("ray::Starts", here)
                counter.kill()
            found.append(index)
    assert sorted(found) == list(range(8))


class ElsewhereMissing:
    """An opener of a package that no node has."""

    def __call__(self) -> Callable[[str, int], object]:
        return tasks.name

    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return importlib.import_module, ("no_such_package",)


def test_a_node_without_the_package(two_nodes: TwoNodes) -> None:
    with (
        RayWorkers(2, ElsewhereMissing(), {"label": 0.0}) as workers,
        pytest.raises(ModelError, match=r"^Ray cannot make label: ModuleNotFoundError: .*; look at `ray status`, and"),
    ):
        list(workers.made("label", range(2)))


def test_a_shard_at_which_every_worker_dies_ends_the_run(two_nodes: TwoNodes) -> None:
    with (
        _workers(tasks.dies) as workers,
        pytest.raises(ModelError, match="3 workers have died at shard 2 of label, or their machines; perhaps memory"),
    ):
        list(workers.made("label", range(4)))


def test_shards_come_in_windows_and_what_nobody_took_is_not_of_the_next_stage(
    two_nodes: TwoNodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_workers, "WINDOW", 3)
    with _workers(tasks.name, 3) as workers:  # there is room for two
        for _ in workers.made("label", range(4)):
            break
        assert dict(workers.made("evaluate", [7, 3, 5, 4])) == {index: f"evaluate {index}" for index in (3, 4, 5, 7)}


def test_workers_share_a_gpu(two_nodes: TwoNodes) -> None:
    with _workers(tasks.gpu, None, gpus=0.5) as workers:
        assert dict(workers.made("label", range(2))) == {0: "0", 1: "0"}
        assert dict(workers.made("evaluate", range(1))) == {0: ""}


def test_gpus_that_no_node_has(two_nodes: TwoNodes) -> None:
    with pytest.raises(
        ConfigError, match=r"^no node of the Ray cluster has 2 GPUs for a worker; lower ray.gpus, or add"
    ):
        _workers(tasks.name, gpus=2.0).__enter__()


def test_a_cluster_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    with pytest.raises(ConfigError, match=r"^there is no Ray cluster at 127.0.0.1:9 \(.*\); start one with"):
        _workers(tasks.name).__enter__()
    monkeypatch.setenv("RAY_ADDRESS", "ray://127.0.0.1:9")
    with pytest.raises(ConfigError, match=r"^RAY_ADDRESS is ray://127.0.0.1:9, for Ray's client; run semdpo on a node"):
        _workers(tasks.name).__enter__()


def test_ray_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "absent", lambda extra: ["ray"])
    with pytest.raises(ConfigError, match=r"^engine: ray needs ray; install it with: pip install 'semdpo\[ray\]'$"):
        _workers(tasks.name).__enter__()
