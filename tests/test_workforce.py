"""A machine of a cluster is refused unless it has the folder, the libraries and the models of the first process."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from semdpo.cli.run import _count
from semdpo.engine import store
from semdpo.engine.ray_workers import RayWorkers
from semdpo.engine.workers import Workers
from semdpo.errors import ConfigError, ModelError, StoreError
from semdpo.stages.flow import flow
from semdpo.workforce import Opener, workforce
from tests import stand_ins


@pytest.fixture(scope="module")
def started(stand_in_trainings: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run whose next stage, ``label``, is started."""
    folder = tmp_path_factory.mktemp("started")
    recipe = stand_ins.recipe_of(folder)
    stand_ins.run_without_report(recipe, folder / "run", stand_ins.models(), last="label")
    (folder / "run/label/manifest.json").unlink()
    return folder


def _opener(folder: Path, run: str = "run") -> Opener:
    return Opener(folder / run, stand_ins.recipe_of(folder), stand_ins.models(), flow, home=Path.cwd())


def test_the_same_machine_makes_the_same_bytes(started: Path) -> None:
    data, threads = _opener(started)()("label", 1)
    assert data == (started / "run/label/part-00001.parquet").read_bytes()
    assert threads == store.thread_count()


def _empty(folder: Path) -> None:
    folder.mkdir()


def _of_another_run(folder: Path) -> None:
    shutil.copytree(folder.with_name("run"), folder)
    manifest = folder / "candidates/manifest.json"
    manifest.write_text(manifest.read_text().replace('"rows"', '"rows_"'))


def _half_copied(folder: Path) -> None:
    shutil.copytree(folder.with_name("run"), folder)
    (folder / "candidates/manifest.json").unlink()


@pytest.mark.parametrize("fill", [_empty, _of_another_run, _half_copied])
def test_another_folder_under_the_same_name(started: Path, fill: Callable[[Path], None]) -> None:
    other = started / fill.__name__
    fill(other)
    with pytest.raises(
        StoreError, match=r"on the machine .+ is not the run's folder; put the run into a folder that all"
    ):
        _opener(started, other.name)()("label", 1)


def test_other_libraries(started: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = store.versions()
    for found, said in (
        ({**here, "torch": "1.0"}, "torch is 1.0 on the machine .+ and 2.+ where the run was started"),
        ({**here, "more": "3"}, "more is 3 on the machine .+ and absent where the run was started"),
    ):
        monkeypatch.setattr(store, "versions", lambda found=found: found)
        with pytest.raises(ConfigError, match=said):
            _opener(started)()("label", 1)


def test_other_files_of_a_model(started: Path) -> None:
    models = dataclasses.replace(stand_ins.models(), fingerprint=lambda name: "of other weights")
    with pytest.raises(ModelError, match=r"^label\.\S+: \S+ has other files on the machine .+; copy them, or put them"):
        dataclasses.replace(_opener(started), models=models)()("label", 1)


def test_workers_of_one_machine_are_not_asked(started: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "versions", lambda: {})
    data, _ = dataclasses.replace(_opener(started), home=None)()("label", 1)
    assert data == (started / "run/label/part-00001.parquet").read_bytes()


def test_paths_start_where_the_run_was_started(started: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = Path.cwd()
    monkeypatch.chdir(tmp_path)
    dataclasses.replace(_opener(started), home=before)()
    assert Path.cwd() == before


def test_the_recipe_chooses_the_engine(started: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(started)
    recipe = stand_ins.recipe_of(started, "engine=ray", "ray={gpus: 0.5, score_gpus: 0.25}")
    opener = dataclasses.replace(_opener(started), folder=Path("run"), recipe=recipe, home=None)
    far = workforce(None, opener, flow(recipe))
    assert isinstance(far, RayWorkers)
    assert far._gpus["candidates"] == far._gpus["label"] == far._gpus["evaluate/human/images"] == 0.5
    assert {gpus for name, gpus in far._gpus.items() if "evaluate" in name and "images" not in name} == {0.25}
    assert "pairs" not in far._gpus
    assert far._opener.folder == far._opener.home / "run" == started / "run"
    trainings = [stage for stage in flow(recipe) if stage.name.startswith("train")]
    with workforce(4, opener, trainings) as none:
        assert none is None, "a cluster would have nothing to do"
    here = dataclasses.replace(opener, recipe=stand_ins.recipe_of(started))
    assert isinstance(workforce(2, here, flow(recipe)), Workers)
    with workforce(None, here, flow(recipe)) as none:
        assert none is None


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("engine=slurm", "'engine' is 'slurm'; it must be 'local' or 'ray'"),
        ("ray.gpus=1.5", "'ray.gpus': 1.5 GPUs are more than one and no whole number; round it"),
        ("ray.gpus=-1", "'ray.gpus' is -1; it must be greater than or equal to 0"),
        ("ray.gpus=true", "'ray.gpus' is true; it must be a number"),
    ],
)
def test_settings_that_are_refused(tmp_path: Path, setting: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        stand_ins.recipe_of(tmp_path, setting)


def test_auto_on_a_cluster_is_what_there_is_room_for(started: Path) -> None:
    here, far = (stand_ins.recipe_of(started, f"engine={engine}") for engine in ("local", "ray"))
    assert (_count("3", here), _count("3", far), _count(None, here)) == (3, 3, None)
    assert _count("auto", far) is None


def test_the_engine_changes_no_stage(started: Path) -> None:
    here, far = (flow(stand_ins.recipe_of(started, *settings)) for settings in ([], ["engine=ray", "ray.gpus=2"]))
    assert [(stage.name, stage.config, stage.outside) for stage in here] == [
        (stage.name, stage.config, stage.outside) for stage in far
    ]
