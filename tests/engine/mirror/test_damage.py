"""What is damaged on object storage, or was made from other settings, is named or made again, and never used."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import fsspec
import pyarrow.parquet
import pytest

from semdpo import pipeline
from semdpo.engine import in_use, storage, store
from semdpo.errors import StoreError
from tests.engine.mirror.stored_run import (
    MEMORY,
    flipped,
    idle_models,
    in_memory,
    move_to,
    run_at,
    store_object,
)
from tests.object_storage import S3
from tests.stand_ins import Renderer, models, recipe_of

pytestmark = pytest.mark.usefixtures("stand_in_trainings")


DAMAGES = {"truncated": lambda data: data[:-7], "flipped": flipped, "empty": lambda data: b""}


@pytest.mark.parametrize("damage", [*DAMAGES, "removed"])
@pytest.mark.parametrize("name", ["label/part-00001.parquet", "sft/weights.txt"])
def test_a_damaged_object_of_a_finished_stage_is_refused_by_name(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, damage: str
) -> None:
    run_at(finished, MEMORY)
    whole = in_memory()
    if damage == "removed":
        fsspec.filesystem("memory").rm_file(f"/shelf/my-run/{name}")
    else:
        store_object(name, DAMAGES[damage](whole[name]))
    move_to(tmp_path / "elsewhere", monkeypatch)
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
    run_at(finished, MEMORY)
    assert {n: d for n, d in in_memory().items() if "timing" not in n} == {
        n: d for n, d in whole.items() if "timing" not in n
    }


@pytest.mark.parametrize("damage", ["truncated", "empty", "removed"])  # a flipped one is found by whoever fetches it
def test_a_damaged_object_is_put_again_where_the_whole_file_is(finished: Path, damage: str) -> None:
    run_at(finished, MEMORY)
    whole = in_memory()
    if damage == "removed":
        fsspec.filesystem("memory").rm_file("/shelf/my-run/label/part-00001.parquet")
    else:
        store_object("label/part-00001.parquet", DAMAGES[damage](whole["label/part-00001.parquet"]))
    pipeline.run(recipe_of(finished), MEMORY, only="label", models=idle_models())
    assert in_memory() == whole


@pytest.mark.parametrize("damage", [*DAMAGES, "removed"])
def test_a_damaged_shard_of_an_unfinished_stage_is_made_again(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run_at(finished, MEMORY, last="label")
    whole, name = in_memory(), "label/part-00003.parquet"
    fsspec.filesystem("memory").rm_file("/shelf/my-run/label/manifest.json")
    for index in range(5):
        noted = {"sha256": store.digest(whole[f"label/part-0000{index}.parquet"]), "seconds": 100.0}
        store_object(f"label/made/part-0000{index}.json", store.canonical(noted))
    if damage == "removed":
        fsspec.filesystem("memory").rm_file(f"/shelf/my-run/{name}")
    else:
        store_object(name, DAMAGES[damage](whole[name]))
    move_to(tmp_path / "elsewhere", monkeypatch)
    drawn = Renderer(0)
    pipeline.run(recipe_of(finished), MEMORY, only="label", models=replace(models(), renderer=lambda config: drawn))
    images = pyarrow.parquet.read_metadata(finished / "run" / name).num_rows
    assert drawn.calls == -(-images // 4), "one shard is rendered"
    assert {n: d for n, d in in_memory().items() if "timing" not in n} == {
        n: d for n, d in whole.items() if "timing" not in n
    }
    assert f"{MEMORY}/{name} is missing or damaged; it is made again" in capsys.readouterr().err
    assert 400 < json.loads(in_memory()["label/timing.json"])["seconds"] < 500


def test_what_is_damaged_on_the_way_is_fetched_again(
    finished: Path, s3: S3, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = f"s3://{bucket}/run"
    run_at(finished, address, last="candidates")
    move_to(tmp_path / "elsewhere", monkeypatch)
    damaged: list[str] = []

    def once(asked: tuple[str, str], data: bytes) -> bytes:
        if asked[0] == "GET" and asked[1].endswith(".parquet") and asked[1] not in damaged:
            damaged.append(asked[1])
            return flipped(data)
        return data

    s3.damage = once
    pipeline.run(recipe_of(finished), address, only="candidates", models=idle_models())
    assert len(damaged) > 5


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"config": {}}'])
def test_a_damaged_manifest_is_refused_and_not_used(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    run_at(finished, MEMORY, last="candidates")
    whole = in_memory()
    store_object("candidates/manifest.json", content)
    move_to(tmp_path / "elsewhere", monkeypatch)
    with pytest.raises(
        StoreError, match=rf"^{MEMORY}/candidates cannot be read \({MEMORY}/candidates/manifest.json is dam"
    ):
        pipeline.run(recipe_of(finished), MEMORY, only="candidates", models=models())
    pipeline.run(recipe_of(finished), MEMORY, only="candidates", models=models(), fresh=True)
    assert {n: d for n, d in in_memory().items() if "timing" not in n} == {
        n: d for n, d in whole.items() if "timing" not in n
    }


def test_names_that_lead_elsewhere_are_not_followed(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_at(finished, MEMORY, last="prompts")
    manifest = json.loads(in_memory()["prompts/manifest.json"])
    manifest["files"] |= {"../../../evil.txt": store.digest(b"evil"), "/tmp/evil.txt": store.digest(b"evil")}
    del manifest[store.SEAL]
    seal = store.digest(store.canonical(manifest))  # whoever writes such names can do this too
    store_object("prompts/manifest.json", store.canonical(manifest | {store.SEAL: seal}))
    move_to(tmp_path / "elsewhere", monkeypatch)
    with pytest.raises(StoreError, match=f"^{MEMORY}/prompts lacks"):
        pipeline.run(recipe_of(finished), MEMORY, only="prompts", models=models())
    assert not list(tmp_path.rglob("evil.txt"))
    for name in ("a/../b", "/a", "a//b", "a/", "a\\b", "..", ".", ""):
        assert not storage.is_inside(name)
    assert storage.is_inside("label/part-00000.parquet")


def test_changed_settings_are_refused_under_the_address(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_at(finished, MEMORY, last="candidates")
    stored = in_memory()
    other = recipe_of(finished, "candidates.n=3")
    for _ in range(2):
        with pytest.raises(
            StoreError, match=f"^{MEMORY}/candidates was made with .*n = 4, which is now 3; add --fresh"
        ):
            pipeline.run(other, MEMORY, only="candidates", models=models())
        move_to(tmp_path / "elsewhere", monkeypatch)
    assert in_memory() == stored


def test_what_another_machine_made_takes_the_place_of_what_is_here(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_at(finished, MEMORY, last="candidates")
    move_to(tmp_path / "elsewhere", monkeypatch)
    other = recipe_of(finished, "candidates.n=3")
    pipeline.run(other, MEMORY, only="candidates", models=models(), fresh=True)
    stored = in_memory()
    move_to(tmp_path / "machine", monkeypatch)
    pipeline.run(other, MEMORY, only="candidates", models=idle_models())
    assert in_memory() == stored


def test_fresh_removes_the_manifest_first_and_nothing_of_others(
    finished: Path, s3: S3, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, client = f"s3://{bucket}/run", s3.client()
    run_at(finished, address, last="label")
    others = [
        "notes.txt",
        "run-2/label/part-00000.parquet",
        "run/notes.txt",
        "run/label/notes.txt",
        "run/labels/x.parquet",
    ]
    for name in others:
        client.put_object(Bucket=bucket, Key=name, Body=b"mine")
    move_to(tmp_path / "elsewhere", monkeypatch)
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
        store_object(name, b'{"mine": 1}')
    with pytest.raises(
        StoreError, match=f"^{MEMORY}/candidates/part-00000.parquet was not made by semdpo and would be lost"
    ):
        run_at(finished, MEMORY)
    assert in_memory()["candidates/part-00000.parquet"] == b'{"mine": 1}'
    assert in_memory()["mine/manifest.json"] == b'{"mine": 1}'
    store_object("recipe.json", b'{"mine": 1}')
    with pytest.raises(StoreError, match=f"^{MEMORY}/recipe.json was not made by semdpo and would be lost"):
        run_at(finished, MEMORY)
