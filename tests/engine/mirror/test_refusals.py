"""What object storage refuses, in a sentence."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from semdpo import pipeline
from semdpo.engine import storage
from semdpo.errors import ConfigError, StoreError
from tests.engine.mirror.stored_run import (
    MEMORY,
    in_memory,
    run_at,
)
from tests.object_storage import S3, s3_server, use
from tests.stand_ins import models, recipe_of

pytestmark = pytest.mark.usefixtures("stand_in_trainings")


def test_a_bucket_that_does_not_exist(finished: Path, s3: S3, bucket: str) -> None:
    with pytest.raises(
        StoreError, match=r"^s3://nobodys/run: there is no 'nobodys'; make it with the storage's own tools"
    ):
        run_at(finished, "s3://nobodys/run")
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
            run_at(finished, f"s3://{bucket}/run")
    finally:
        s3.check_keys(False)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    with pytest.raises(StoreError, match=rf"^s3://{bucket}/run: no credentials were found \(.+\); set them") as missing:
        run_at(finished, f"s3://{bucket}/run")
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
        run_at(finished, "s3://bucket/run")


def test_a_library_that_is_not_installed(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("s3fs", "gcsfs"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=r"^s3://b/run needs s3fs; install it with: pip install 'semdpo\[s3\]'$"):
        run_at(finished, "s3://b/run")
    with pytest.raises(ConfigError, match=r"^gs://b/run needs a package that is not installed: .*gcsfs"):
        run_at(finished, "gs://b/run")


def test_a_storage_is_not_shared(finished: Path) -> None:
    with pytest.raises(ConfigError, match=rf"^--shard needs a folder on a disk .+; leave it out for {MEMORY}$"):
        pipeline.run(recipe_of(finished), MEMORY, models=models(), shard=(1, 2))
    assert not in_memory()


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
        run_at(finished, address)
    assert "secret" not in str(refused.value)


def test_a_storage_that_cannot_be_written(finished: Path) -> None:
    with pytest.raises(StoreError, match=r"^data://x: the storage cannot be used"):
        run_at(finished, "data://x")
