"""Runs on object storage: the same files as on this machine, whatever was killed, damaged or refused.

As a script, it is the run that is killed.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import fsspec
import pyarrow.parquet
import pytest
from typer.testing import CliRunner

from semdpo import pipeline
from semdpo.cli.app import app
from semdpo.engine import in_use, mirror, storage, store
from semdpo.errors import ConfigError, SemdpoError, StoreError
from tests.object_storage import S3, s3_server, use
from tests.stand_ins import Renderer, files_of, models, recipe_of, run_without_report, stand_in_trainings

pytestmark = pytest.mark.usefixtures("stand_in_trainings")
ROOT = Path(__file__).parents[2]
MEMORY = "memory://shelf/my-run"


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    with s3_server() as server:
        yield server


@pytest.fixture
def bucket(s3: S3, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """A new bucket, of which this process knows the server."""
    use(s3, monkeypatch)
    monkeypatch.setattr(s3, "fails", lambda _: 0)
    monkeypatch.setattr(s3, "damage", lambda _, data: data)
    name = re.sub("[^a-z0-9]+", "-", request.node.name.lower()).strip("-")[-60:].strip("-")
    s3.client().create_bucket(Bucket=name)
    s3.asked.clear()
    return str(name)


@pytest.fixture(autouse=True)
def _memory() -> Iterator[None]:
    yield
    files = fsspec.filesystem("memory")
    if files.exists("/"):
        files.store.clear()
        files.pseudo_dirs[:] = [""]


@pytest.fixture(autouse=True)
def _machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _move(tmp_path / "machine", monkeypatch)
    monkeypatch.setattr(storage, "PAUSES", (0.01, 0.02, 0.05))


def _move(to: Path, patch: pytest.MonkeyPatch) -> None:
    """Continues on a machine that has nothing yet."""
    patch.setenv("SEMDPO_CACHE", str(to))


def _stored() -> dict[str, bytes]:
    """What the memory holds of the run."""
    files = fsspec.filesystem("memory")
    return {name.removeprefix("/shelf/my-run/"): files.cat_file(name) for name in files.find("/shelf/my-run")}


def _store(name: str, data: bytes) -> None:
    fsspec.filesystem("memory").pipe_file(f"/shelf/my-run/{name}", data)


def _until(last: str, files: dict[str, bytes]) -> dict[str, bytes]:
    """The files of a run that ended after a stage."""
    stages = ["recipe.json", "prompts", "sft", "candidates", "label", "pairs", "drift", "train", "losses", "evaluate"]
    made = stages[: stages.index(last) + 1]
    return {
        name: data for name, data in files.items() if name.split("/")[0] in made and not name.endswith("guard.json")
    }


def _run(folder: Path, address: str, last: str = "pairs", delay: float = 0.0) -> None:
    run_without_report(recipe_of(folder), address, models(delay), last=last)


# ------------------------------------------------------------------------------------------------- the same files


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
    assert report == {f"report/{path}": (place / "report" / path).read_bytes() for path in _names(place / "report")}
    assert not any(b"nobody-may-see-this" in data for data in stored.values())
    _refuse_early_manifests(s3)

    _move(tmp_path / "elsewhere", monkeypatch)
    elsewhere = pipeline.run(recipe, f"s3://{bucket}/my/run", only="evaluate", models=_idle())
    assert elsewhere != place
    assert {name: data for name, data in files_of(elsewhere).items() if name != ".holder"} == here
    assert _names(elsewhere / "report") == _names(place / "report")


def _names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


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


def _idle() -> pipeline.Models:
    def never(*_: object) -> None:
        raise AssertionError("a model was loaded")

    return replace(models(), renderer=never, scorer=never, rewriter=never)


def test_a_finished_run_is_fetched_and_not_made_again(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _run(finished, MEMORY)
    stored = _stored()
    _move(tmp_path / "elsewhere", monkeypatch)
    run_without_report(recipe_of(finished), MEMORY, _idle(), last="pairs")
    assert _stored() == stored
    assert in_use.NAME not in stored
    here = files_of(mirror.working_folder(MEMORY))
    assert _until("pairs", here) == _until("pairs", files_of(finished / "run"))
    (place,) = (tmp_path / "elsewhere/runs").glob("my-run-*/")
    assert json.loads((place / "label/timing.json").read_text()) == json.loads(stored["label/timing.json"])


def test_what_is_here_is_neither_fetched_nor_put_again(finished: Path, s3: S3, bucket: str) -> None:
    address = f"s3://{bucket}/run"
    _run(finished, address, last="candidates")
    s3.asked.clear()
    pipeline.run(recipe_of(finished), address, only="candidates", models=_idle())
    moved = [path for method, path in s3.asked if method == "PUT" or path.endswith(".parquet")]
    assert {path.rpartition("/")[2] for path in moved} == {"in-use.json", "recipe.json"}


def test_a_sweep_and_a_recipe_of_its_own(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = recipe_of(finished, f"run={MEMORY}", "sweep.alphas=[0,4]", "sweep.prompts.limit=2")
    page = pipeline.sweep(recipe, models=models())
    assert page.is_file()
    assert _stored()["report/sweep.html"] == page.read_bytes()
    assert pipeline.recipe_of(Path(MEMORY)) == recipe


# ------------------------------------------------------------------------------------------------- killed


@pytest.mark.slow
def test_killed_on_one_machine_and_resumed_on_another(
    finished: Path, s3: S3, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = f"s3://{bucket}/run"
    script = [sys.executable, "-m", "tests.engine.test_mirror", str(finished), address, "0.3"]
    victim = subprocess.Popen(script, cwd=ROOT, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while ("PUT", f"/{bucket}/run/label/made/part-00001.json") not in s3.asked:
            assert time.monotonic() < deadline
            assert victim.poll() is None, "the run ended before it could be killed"
            time.sleep(0.01)
        _move(tmp_path / "elsewhere", monkeypatch)
        with pytest.raises(StoreError, match=f"{address} is in use by process {victim.pid} on "):
            _run(finished, address)
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
    _run(finished, address)
    put = {path.removeprefix(f"/{bucket}/") for method, path in s3.asked if method == "PUT"}
    label = {f"run/label/part-0000{index}.parquet" for index in range(5)}
    assert put & label == label - shards, "shards that were stored are not made again"
    ended = {name.removeprefix("run/"): data for name, data in s3.objects(bucket).items()}
    whole = _until("pairs", files_of(finished / "run"))
    assert {name: data for name, data in ended.items() if not name.endswith("timing.json")} == whole


def test_the_killed_machine_goes_on_at_once(finished: Path) -> None:
    _run(finished, MEMORY, last="candidates")
    place = mirror.working_folder(MEMORY)
    note = {
        "holder": (place / ".holder").read_text(),
        "host": "here",
        "process": 1,
        "time": "2099-01-01T00:00:00+00:00",
    }
    _store(in_use.NAME, json.dumps(note).encode())
    _run(finished, MEMORY)
    assert in_use.NAME not in _stored()


def test_what_could_not_be_put_is_put_later(finished: Path, s3: S3, bucket: str) -> None:
    address = f"s3://{bucket}/run"
    s3.fails = lambda asked: 503 if asked[0] == "PUT" and asked[1].endswith("label/part-00002.parquet") else 0
    with pytest.raises(StoreError) as refused:
        _run(finished, address)
    assert str(refused.value).startswith(f"{address}: the storage cannot be used (")
    assert "then run the same command again without --fresh, which resumes" in str(refused.value)
    s3.fails = lambda _: 0
    _run(finished, address)
    ended = {name.removeprefix("run/"): data for name, data in s3.objects(bucket).items()}
    whole = _until("pairs", files_of(finished / "run"))
    assert {name: data for name, data in ended.items() if not name.endswith("timing.json")} == whole


def test_a_server_that_fails_for_a_while_is_asked_again(finished: Path, s3: S3, bucket: str) -> None:
    left = {"candidates/part-00001.parquet": 4, "candidates/manifest.json": 4}

    def fails(asked: tuple[str, str]) -> int:
        name = asked[1].removeprefix(f"/{bucket}/run/")
        left[name] = left.get(name, 0) - 1
        return (500, 503)[left[name] % 2] if left[name] >= 0 else 0

    s3.fails = fails
    _run(finished, f"s3://{bucket}/run", last="candidates")
    assert max(left["candidates/part-00001.parquet"], left["candidates/manifest.json"]) < 0
    stored = {name.removeprefix("run/"): data for name, data in s3.objects(bucket).items()}
    here = _until("candidates", files_of(finished / "run"))
    assert {name: data for name, data in stored.items() if "timing" not in name} == here


# ------------------------------------------------------------------------------------------------- damaged


def _flipped(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


DAMAGES = {"truncated": lambda data: data[:-7], "flipped": _flipped, "empty": lambda data: b""}


@pytest.mark.parametrize("damage", [*DAMAGES, "removed"])
@pytest.mark.parametrize("name", ["label/part-00001.parquet", "sft/weights.txt"])
def test_a_damaged_object_of_a_finished_stage_is_refused_by_name(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, damage: str
) -> None:
    _run(finished, MEMORY)
    whole = _stored()
    if damage == "removed":
        fsspec.filesystem("memory").rm_file(f"/shelf/my-run/{name}")
    else:
        _store(name, DAMAGES[damage](whole[name]))
    _move(tmp_path / "elsewhere", monkeypatch)
    stage, _, file = name.partition("/")
    how = f"lacks {file};" if damage == "removed" else f"holds a damaged or edited {file} "
    for _ in range(2):
        with pytest.raises(StoreError) as refused:
            pipeline.run(recipe_of(finished), MEMORY, only="pairs", models=models())
        assert str(refused.value).startswith(f"{MEMORY}/{stage} {how}")
        assert "add --fresh" in str(refused.value)
    pipeline.run(
        recipe_of(finished), MEMORY, only="candidates" if stage == "label" else "sft", fresh=True, models=models()
    )
    _run(finished, MEMORY)
    assert {n: d for n, d in _stored().items() if "timing" not in n} == {
        n: d for n, d in whole.items() if "timing" not in n
    }


@pytest.mark.parametrize("damage", ["truncated", "empty", "removed"])  # a flipped one is found by whoever fetches it
def test_a_damaged_object_is_put_again_where_the_whole_file_is(finished: Path, damage: str) -> None:
    _run(finished, MEMORY)
    whole = _stored()
    if damage == "removed":
        fsspec.filesystem("memory").rm_file("/shelf/my-run/label/part-00001.parquet")
    else:
        _store("label/part-00001.parquet", DAMAGES[damage](whole["label/part-00001.parquet"]))
    pipeline.run(recipe_of(finished), MEMORY, only="label", models=_idle())
    assert _stored() == whole


@pytest.mark.parametrize("damage", [*DAMAGES, "removed"])
def test_a_damaged_shard_of_an_unfinished_stage_is_made_again(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    _run(finished, MEMORY, last="label")
    whole, name = _stored(), "label/part-00003.parquet"
    fsspec.filesystem("memory").rm_file("/shelf/my-run/label/manifest.json")
    for index in range(5):
        noted = {"sha256": store.digest(whole[f"label/part-0000{index}.parquet"]), "seconds": 100.0}
        _store(f"label/made/part-0000{index}.json", store.canonical(noted))
    if damage == "removed":
        fsspec.filesystem("memory").rm_file(f"/shelf/my-run/{name}")
    else:
        _store(name, DAMAGES[damage](whole[name]))
    _move(tmp_path / "elsewhere", monkeypatch)
    drawn = Renderer(0)
    pipeline.run(recipe_of(finished), MEMORY, only="label", models=replace(models(), renderer=lambda config: drawn))
    images = pyarrow.parquet.read_metadata(finished / "run" / name).num_rows
    assert drawn.calls == -(-images // 4), "one shard is rendered"
    assert {n: d for n, d in _stored().items() if "timing" not in n} == {
        n: d for n, d in whole.items() if "timing" not in n
    }
    assert f"{MEMORY}/{name} is missing or damaged; it is made again" in capsys.readouterr().err
    assert 400 < json.loads(_stored()["label/timing.json"])["seconds"] < 500


def test_what_is_damaged_on_the_way_is_fetched_again(
    finished: Path, s3: S3, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = f"s3://{bucket}/run"
    _run(finished, address, last="candidates")
    _move(tmp_path / "elsewhere", monkeypatch)
    damaged: list[str] = []

    def once(asked: tuple[str, str], data: bytes) -> bytes:
        if asked[0] == "GET" and asked[1].endswith(".parquet") and asked[1] not in damaged:
            damaged.append(asked[1])
            return _flipped(data)
        return data

    s3.damage = once
    pipeline.run(recipe_of(finished), address, only="candidates", models=_idle())
    assert len(damaged) > 5


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"config": {}}'])
def test_a_damaged_manifest_is_refused_and_not_used(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    _run(finished, MEMORY, last="candidates")
    whole = _stored()
    _store("candidates/manifest.json", content)
    _move(tmp_path / "elsewhere", monkeypatch)
    with pytest.raises(
        StoreError, match=rf"^{MEMORY}/candidates cannot be read \({MEMORY}/candidates/manifest.json is dam"
    ):
        pipeline.run(recipe_of(finished), MEMORY, only="candidates", models=models())
    pipeline.run(recipe_of(finished), MEMORY, only="candidates", models=models(), fresh=True)
    assert {n: d for n, d in _stored().items() if "timing" not in n} == {
        n: d for n, d in whole.items() if "timing" not in n
    }


def test_names_that_lead_elsewhere_are_not_followed(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _run(finished, MEMORY, last="prompts")
    manifest = json.loads(_stored()["prompts/manifest.json"])
    manifest["files"] |= {"../../../evil.txt": store.digest(b"evil"), "/tmp/evil.txt": store.digest(b"evil")}
    del manifest[store.SEAL]
    seal = store.digest(store.canonical(manifest))  # whoever writes such names can do this too
    _store("prompts/manifest.json", store.canonical(manifest | {store.SEAL: seal}))
    _move(tmp_path / "elsewhere", monkeypatch)
    with pytest.raises(StoreError, match=f"^{MEMORY}/prompts lacks"):
        pipeline.run(recipe_of(finished), MEMORY, only="prompts", models=models())
    assert not list(tmp_path.rglob("evil.txt"))
    for name in ("a/../b", "/a", "a//b", "a/", "a\\b", "..", ".", ""):
        assert not storage.is_inside(name)
    assert storage.is_inside("label/part-00000.parquet")


# ------------------------------------------------------------------------------------------------- two recipes


def test_changed_settings_are_refused_under_the_address(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _run(finished, MEMORY, last="candidates")
    stored = _stored()
    other = recipe_of(finished, "candidates.n=3")
    for _ in range(2):
        with pytest.raises(
            StoreError, match=f"^{MEMORY}/candidates was made with .*n = 4, which is now 3; add --fresh"
        ):
            pipeline.run(other, MEMORY, only="candidates", models=models())
        _move(tmp_path / "elsewhere", monkeypatch)
    assert _stored() == stored


def test_what_another_machine_made_takes_the_place_of_what_is_here(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _run(finished, MEMORY, last="candidates")
    _move(tmp_path / "elsewhere", monkeypatch)
    other = recipe_of(finished, "candidates.n=3")
    pipeline.run(other, MEMORY, only="candidates", models=models(), fresh=True)
    stored = _stored()
    _move(tmp_path / "machine", monkeypatch)
    pipeline.run(other, MEMORY, only="candidates", models=_idle())
    assert _stored() == stored


# ------------------------------------------------------------------------------------------------- removing


def test_fresh_removes_the_manifest_first_and_nothing_of_others(
    finished: Path, s3: S3, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, client = f"s3://{bucket}/run", s3.client()
    _run(finished, address, last="label")
    others = [
        "notes.txt",
        "run-2/label/part-00000.parquet",
        "run/notes.txt",
        "run/label/notes.txt",
        "run/labels/x.parquet",
    ]
    for name in others:
        client.put_object(Bucket=bucket, Key=name, Body=b"mine")
    _move(tmp_path / "elsewhere", monkeypatch)
    before = s3.objects(bucket)
    s3.asked.clear()
    pipeline.run(recipe_of(finished), address, only="label", models=models(), fresh=True)
    removed = [path.removeprefix(f"/{bucket}/run/") for method, path in s3.asked if method == "DELETE"]
    assert removed[0] == "label/manifest.json"
    assert set(removed[1:7]) == {*(f"label/part-0000{k}.parquet" for k in range(5)), "label/timing.json"}
    assert removed[7] == "label/started.json"
    assert removed[8:] == [*(f"label/made/part-0000{k}.json" for k in range(5)), in_use.NAME]
    after = s3.objects(bucket)
    assert {n: d for n, d in after.items() if "timing" not in n} == {
        n: d for n, d in before.items() if "timing" not in n
    }


def test_objects_of_others_are_not_overwritten(finished: Path) -> None:
    for name in ("candidates/part-00000.parquet", "candidates/manifest.json", "mine/manifest.json"):
        _store(name, b'{"mine": 1}')
    with pytest.raises(
        StoreError, match=f"^{MEMORY}/candidates/part-00000.parquet was not made by semdpo and would be lost"
    ):
        _run(finished, MEMORY)
    assert _stored()["candidates/part-00000.parquet"] == b'{"mine": 1}'
    assert _stored()["mine/manifest.json"] == b'{"mine": 1}'
    _store("recipe.json", b'{"mine": 1}')
    with pytest.raises(StoreError, match=f"^{MEMORY}/recipe.json was not made by semdpo and would be lost"):
        _run(finished, MEMORY)


# ------------------------------------------------------------------------------------------------- refused


def test_a_bucket_that_does_not_exist(finished: Path, s3: S3, bucket: str) -> None:
    with pytest.raises(
        StoreError, match=r"^s3://nobodys/run: there is no 'nobodys'; make it with the storage's own tools"
    ):
        _run(finished, "s3://nobodys/run")
    with pytest.raises(
        StoreError, match=r"^memory://nothing holds no run; make one with `semdpo run RECIPE --out memory"
    ):
        pipeline.recipe_of(Path("memory://nothing"))


def test_credentials_that_are_wrong_or_missing(
    finished: Path, s3: S3, bucket: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAWRONGWRONG")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "nobody-may-see-this")
    s3.check_keys(True)
    try:
        with pytest.raises(
            StoreError, match=rf"^s3://{bucket}/run: access was denied \(.+\); use credentials "
        ) as wrong:
            _run(finished, f"s3://{bucket}/run")
    finally:
        s3.check_keys(False)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    with pytest.raises(StoreError, match=rf"^s3://{bucket}/run: no credentials were found \(.+\); set them") as missing:
        _run(finished, f"s3://{bucket}/run")
    for refused in (wrong, missing):
        assert not any(text in str(refused.value) for text in ("AKIAWRONGWRONG", "nobody-may-see-this"))


def test_no_secret_is_in_a_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORE_TOKEN", "nobody-may-see-this")
    files = storage.Storage("memory://x")

    def fails(*_: object, **__: object) -> None:
        raise OSError("https://host/?sig=nobody-may-see-this is gone")

    monkeypatch.setattr(files._files, "cat_file", fails)
    with pytest.raises(StoreError, match=r"\(https://host/\?sig=… is gone\)"):
        files.read("a")


def test_a_server_that_is_not_there_is_asked_briefly(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with s3_server() as gone:
        use(gone, monkeypatch)
    monkeypatch.setattr(storage, "PAUSES", (60.0,))
    with pytest.raises(
        StoreError, match=r"^s3://bucket/run: the storage cannot be used \(Could not connect .+\); check the"
    ):
        _run(finished, "s3://bucket/run")


def test_a_library_that_is_not_installed(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("s3fs", "gcsfs"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=r"^s3://b/run needs s3fs; install it with: pip install 'semdpo\[s3\]'$"):
        _run(finished, "s3://b/run")
    with pytest.raises(ConfigError, match=r"^gs://b/run needs a package that is not installed: .*gcsfs"):
        _run(finished, "gs://b/run")


def test_a_storage_is_not_shared(finished: Path) -> None:
    with pytest.raises(ConfigError, match=rf"^--shard needs a folder on a disk .+; leave it out for {MEMORY}$"):
        pipeline.run(recipe_of(finished), MEMORY, models=models(), shard=(1, 2))
    assert not _stored()


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("file:///tmp/run", "file:///?tmp/run is no address of an object storage; give a folder of this machine"),
        ("https://host/run", "is no address of an object storage"),
        ("nothing://b/run", "nothing:// is no known storage; take s3://, gs:// or az://"),
        ("s3://b/run?versionId=1", r"is no address for a run; write it like s3://bucket/my-run"),
        ("s3://b/../run", "is no address for a run"),
        ("simplecache::s3://b/run", "is no address for a run"),
        ("s3://b/my run", "is no address for a run"),
        ("ftp://me:secret@host/run", "^the address ftp://… holds a password, which others could read; set credentials"),
    ],
)
def test_what_is_no_address(finished: Path, address: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as refused:
        _run(finished, address)
    assert "secret" not in str(refused.value)


def test_a_storage_that_cannot_be_written(finished: Path) -> None:
    with pytest.raises(StoreError, match=r"^data://x: the storage cannot be used"):
        _run(finished, "data://x")


# ------------------------------------------------------------------------------------------------- commands


def test_the_commands_that_take_a_run(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tiny = ["--set", "prompts.limit=4", "--set", "prompts.test_limit=2", "--only", "prompts"]
    for command in (["run", "tiny"], ["demo"]):
        done = CliRunner().invoke(app, [*command, *tiny, "--out", MEMORY], catch_exceptions=False)
        assert done.exit_code == 0
    assert "prompts/manifest.json" in _stored()
    assert not (tmp_path / "memory:").exists()
    for command in (["report", MEMORY], ["evaluate", MEMORY]):
        done = CliRunner().invoke(app, command)
        assert isinstance(done.exception, StoreError), command
        assert "is not finished; first run without --only" in str(done.exception), command


@pytest.mark.slow
def test_a_report_is_stored_and_written_again_elsewhere(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_without_report(recipe_of(finished), MEMORY, models())
    for name in _names(finished / "run/report"):
        _store(f"report/{name}", (finished / "run/report" / name).read_bytes())
    _store("report/old.png", b"old")
    _store("report/notes.txt", b"mine")
    listed = json.loads(_stored()["report/.files.json"])
    _store("report/.files.json", json.dumps([*listed, "old.png"]).encode())
    _store("report/index.html", b"old")
    _move(tmp_path / "elsewhere", monkeypatch)
    monkeypatch.setattr("semdpo.pipeline.own_models", models)
    done = CliRunner().invoke(app, ["report", MEMORY], catch_exceptions=False)
    assert done.exit_code == 0
    stored = {name.removeprefix("report/"): data for name, data in _stored().items() if name.startswith("report/")}
    assert stored.keys() == _names(finished / "run/report") | {"notes.txt"}
    assert stored["index.html"].startswith(b"<!")
    assert stored["notes.txt"] == b"mine"


@pytest.mark.parametrize(
    "command",
    [
        ["weigh", "s3://b/pairs.jsonl", "-o", "x.parquet"],
        ["train", "s3://b/run/drift", "--model", "tiny:gpt2", "-o", "x"],
        ["train", "pairs.jsonl", "--model", "s3://b/run/sft", "-o", "x"],
        ["optimize", "a cat", "--model", "s3://b/run/train/dpo"],
        ["export", "s3://b/run/train/dpo", "--to", "hf", "-o", "x"],
        ["run", "s3://b/recipe.yaml"],
        ["run", "tiny", "--set", "prompts.file=s3://b/prompts.txt", "--only", "prompts"],
        ["weigh", "pairs.jsonl", "-o", "s3://b/weighed.parquet"],
        ["train", "pairs.jsonl", "--model", "tiny:gpt2", "-o", "s3://b/out"],
    ],
    ids=" ".join,
)
def test_what_takes_no_address_says_to_copy(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    row = {"prompt": "a cat", "chosen": "a cat, oil", "rejected": "a dog", "distance": 0.1}
    (tmp_path / "pairs.jsonl").write_text(f"{json.dumps(row)}\n")
    done = CliRunner().invoke(app, command)
    assert isinstance(done.exception, SemdpoError)
    assert re.search(r"s3://b/\S+ is not on this machine", str(done.exception))
    assert "copy it" in str(done.exception)
    assert {path.name for path in tmp_path.iterdir()} <= {"pairs.jsonl", "machine", "runs"}


def test_an_audit_of_a_stage_that_is_stored(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _run(finished, MEMORY, last="drift")
    _move(tmp_path / "elsewhere", monkeypatch)
    done = CliRunner().invoke(app, ["audit", f"{MEMORY}/drift", "--json", str(tmp_path / "audit.json")])
    assert done.exit_code == 0, done.output
    assert json.loads((tmp_path / "audit.json").read_text())["pairs"] == 20
    _store("drift/part-00000.parquet", _flipped(_stored()["drift/part-00000.parquet"]))
    _move(tmp_path / "third", monkeypatch)
    done = CliRunner().invoke(app, ["audit", f"{MEMORY}/drift"])
    assert str(done.exception).startswith(f"{MEMORY}/drift holds a damaged or edited part-00000.parquet ")
    assert "s3://drift is no stage of a run; give one" in str(
        CliRunner().invoke(app, ["audit", "s3://drift"]).exception
    )
    for name in ("train/dpo", "nothing"):
        done = CliRunner().invoke(app, ["audit", f"{MEMORY}/{name}"])
        assert f"{MEMORY}/{name} is no finished stage of a run" in str(done.exception)


if __name__ == "__main__":
    with pytest.MonkeyPatch.context() as patching:
        stand_in_trainings(patching)
        _run(Path(sys.argv[1]), sys.argv[2], delay=float(sys.argv[3]))
