"""Runs on object storage have the same files as on this machine, whatever was killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from semdpo import pipeline
from semdpo.engine import in_use, mirror
from semdpo.errors import StoreError
from tests.engine.mirror.stored_run import (
    MEMORY,
    ROOT,
    files_until,
    idle_models,
    in_memory,
    move_to,
    names_in,
    run_at,
    store_object,
)
from tests.object_storage import S3
from tests.stand_ins import files_of, models, recipe_of, run_without_report

pytestmark = pytest.mark.usefixtures("stand_in_trainings")


@pytest.mark.slow
def test_s3_holds_the_same_files_as_a_run_here(
    s3: S3, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "nobody-may-see-this")
    recipe = recipe_of(
        tmp_path,
        "evaluate.metrics={clip: clip, hps: hps}",
        "report.fidelity=[clip]",
        "report.preference=[hps]",
        "sweep=null",
    )
    run_without_report(recipe, tmp_path / "run", models())
    place = pipeline.run(recipe, f"s3://{bucket}/my/run", models=models())
    here = files_of(tmp_path / "run")
    stored = {name.removeprefix("my/run/"): data for name, data in s3.objects(bucket).items()}
    report = {name: data for name, data in stored.items() if name.startswith("report/")}
    assert {name: data for name, data in stored.items() if name not in report and "timing" not in name} == here
    assert report == {f"report/{path}": (place / "report" / path).read_bytes() for path in names_in(place / "report")}
    assert not any(b"nobody-may-see-this" in data for data in stored.values())
    _refuse_early_manifests(s3)

    move_to(tmp_path / "elsewhere", monkeypatch)
    elsewhere = pipeline.run(recipe, f"s3://{bucket}/my/run", only="evaluate", models=idle_models())
    assert elsewhere != place
    assert {name: data for name, data in files_of(elsewhere).items() if name != ".holder"} == here
    assert names_in(elsewhere / "report") == names_in(place / "report")


def _refuse_early_manifests(s3: S3) -> None:
    """Of each stage, the mark was put first and the manifest last."""
    put = [path for method, path in s3.asked if method == "PUT"]
    last = {
        path.rpartition("/")[0]: index
        for index, path in enumerate(put)
        if not path.endswith(("guard.json", "timing.json"))
    }
    first = {path.rpartition("/")[0]: index for index, path in reversed(list(enumerate(put)))}
    stages = [path.removesuffix("/manifest.json") for path in put if path.endswith("/manifest.json")]
    assert len(stages) == len(set(stages)) > 20
    assert {put[first[stage]].rpartition("/")[2] for stage in stages} == {"started.json"}
    assert {put[last[stage]].rpartition("/")[2] for stage in stages} == {"manifest.json"}


def test_a_finished_run_is_fetched_and_not_made_again(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_at(finished, MEMORY)
    stored = in_memory()
    move_to(tmp_path / "elsewhere", monkeypatch)
    run_without_report(recipe_of(finished), MEMORY, idle_models(), last="pairs")
    assert in_memory() == stored
    assert in_use.NAME not in stored
    here = files_of(mirror.working_folder(MEMORY))
    assert files_until("pairs", here) == files_until("pairs", files_of(finished / "run"))
    (place,) = (tmp_path / "elsewhere/runs").glob("my-run-*/")
    assert json.loads((place / "label/timing.json").read_text()) == json.loads(stored["label/timing.json"])


def test_what_is_here_is_neither_fetched_nor_put_again(finished: Path, s3: S3, bucket: str) -> None:
    address = f"s3://{bucket}/run"
    run_at(finished, address, last="candidates")
    s3.asked.clear()
    pipeline.run(recipe_of(finished), address, only="candidates", models=idle_models())
    moved = [path for method, path in s3.asked if method == "PUT" or path.endswith(".parquet")]
    assert {path.rpartition("/")[2] for path in moved} == {"in-use.json", "recipe.json"}


def test_a_sweep_and_a_recipe_of_its_own(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = recipe_of(finished, f"run={MEMORY}", "sweep.alphas=[0,4]", "sweep.prompts.limit=2")
    page = pipeline.sweep(recipe, models=models())
    assert page.is_file()
    assert in_memory()["report/sweep.html"] == page.read_bytes()
    assert pipeline.recipe_of(Path(MEMORY)) == recipe


@pytest.mark.slow
def test_killed_on_one_machine_and_resumed_on_another(
    finished: Path, s3: S3, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = f"s3://{bucket}/run"
    script = [sys.executable, "-m", "tests.engine.mirror.stored_run", str(finished), address, "0.3"]
    victim = subprocess.Popen(script, cwd=ROOT, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while ("PUT", f"/{bucket}/run/label/made/part-00001.json") not in s3.asked:
            assert time.monotonic() < deadline
            assert victim.poll() is None, "the run ended before it could be killed"
            time.sleep(0.01)
        move_to(tmp_path / "elsewhere", monkeypatch)
        with pytest.raises(StoreError, match=f"{address} is in use by process {victim.pid} on "):
            run_at(finished, address)
    finally:
        os.kill(victim.pid, signal.SIGKILL)
        victim.wait()
    stored = s3.objects(bucket)
    noted = [name for name in stored if name.startswith("run/label/made/")]
    shards = {name.replace("made/", "").replace(".json", ".parquet") for name in noted}
    assert shards <= stored.keys()
    assert 2 <= len(shards) < 5
    assert "run/label/manifest.json" not in stored
    s3.asked.clear()
    monkeypatch.setattr(in_use, "LAPSE", 0.0)
    run_at(finished, address)
    put = {path.removeprefix(f"/{bucket}/") for method, path in s3.asked if method == "PUT"}
    label = {f"run/label/part-0000{index}.parquet" for index in range(5)}
    assert put & label == label - shards, "shards that were stored are not made again"
    ended = {name.removeprefix("run/"): data for name, data in s3.objects(bucket).items()}
    whole = files_until("pairs", files_of(finished / "run"))
    assert {name: data for name, data in ended.items() if not name.endswith("timing.json")} == whole


def test_the_killed_machine_goes_on_at_once(finished: Path) -> None:
    run_at(finished, MEMORY, last="candidates")
    place = mirror.working_folder(MEMORY)
    note = {
        "holder": (place / ".holder").read_text(),
        "host": "here",
        "process": 1,
        "time": "2099-01-01T00:00:00+00:00",
    }
    store_object(in_use.NAME, json.dumps(note).encode())
    run_at(finished, MEMORY)
    assert in_use.NAME not in in_memory()


def test_what_could_not_be_put_is_put_later(finished: Path, s3: S3, bucket: str) -> None:
    address = f"s3://{bucket}/run"
    s3.fails = lambda asked: 503 if asked[0] == "PUT" and asked[1].endswith("label/part-00002.parquet") else 0
    with pytest.raises(StoreError) as refused:
        run_at(finished, address)
    assert str(refused.value).startswith(f"{address}: the storage cannot be used (")
    assert "then run the same command again without --fresh, which resumes" in str(refused.value)
    s3.fails = lambda _: 0
    run_at(finished, address)
    ended = {name.removeprefix("run/"): data for name, data in s3.objects(bucket).items()}
    whole = files_until("pairs", files_of(finished / "run"))
    assert {name: data for name, data in ended.items() if not name.endswith("timing.json")} == whole


def test_a_server_that_fails_for_a_while_is_asked_again(finished: Path, s3: S3, bucket: str) -> None:
    left = {"candidates/part-00001.parquet": 4, "candidates/manifest.json": 4}

    def fails(asked: tuple[str, str]) -> int:
        name = asked[1].removeprefix(f"/{bucket}/run/")
        left[name] = left.get(name, 0) - 1
        return (500, 503)[left[name] % 2] if left[name] >= 0 else 0

    s3.fails = fails
    run_at(finished, f"s3://{bucket}/run", last="candidates")
    assert max(left["candidates/part-00001.parquet"], left["candidates/manifest.json"]) < 0
    stored = {name.removeprefix("run/"): data for name, data in s3.objects(bucket).items()}
    here = files_until("candidates", files_of(finished / "run"))
    assert {name: data for name, data in stored.items() if "timing" not in name} == here
