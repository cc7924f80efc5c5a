"""Commands that take a run on object storage, and those that do not."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from semdpo.cli.app import app
from semdpo.errors import SemdpoError, StoreError
from tests.engine.mirror.stored_run import (
    MEMORY,
    flipped,
    in_memory,
    move_to,
    names_in,
    run_at,
    store_object,
)
from tests.stand_ins import models, recipe_of, run_without_report

pytestmark = pytest.mark.usefixtures("stand_in_trainings")


def test_the_commands_that_take_a_run(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tiny = ["--set", "prompts.limit=4", "--set", "prompts.test_limit=2", "--only", "prompts"]
    for command in (["run", "tiny"], ["demo"]):
        done = CliRunner().invoke(app, [*command, *tiny, "--out", MEMORY], catch_exceptions=False)
        assert done.exit_code == 0
    assert "prompts/manifest.json" in in_memory()
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
    for name in names_in(finished / "run/report"):
        store_object(f"report/{name}", (finished / "run/report" / name).read_bytes())
    store_object("report/old.png", b"old")
    store_object("report/notes.txt", b"mine")
    listed = json.loads(in_memory()["report/.files.json"])
    store_object("report/.files.json", json.dumps([*listed, "old.png"]).encode())
    store_object("report/index.html", b"old")
    move_to(tmp_path / "elsewhere", monkeypatch)
    monkeypatch.setattr("semdpo.pipeline.own_models", models)
    done = CliRunner().invoke(app, ["report", MEMORY], catch_exceptions=False)
    assert done.exit_code == 0
    stored = {name.removeprefix("report/"): data for name, data in in_memory().items() if name.startswith("report/")}
    assert stored.keys() == names_in(finished / "run/report") | {"notes.txt"}
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
    run_at(finished, MEMORY, last="drift")
    move_to(tmp_path / "elsewhere", monkeypatch)
    done = CliRunner().invoke(app, ["audit", f"{MEMORY}/drift", "--json", str(tmp_path / "audit.json")])
    assert done.exit_code == 0, done.output
    assert json.loads((tmp_path / "audit.json").read_text())["pairs"] == 20
    store_object("drift/part-00000.parquet", flipped(in_memory()["drift/part-00000.parquet"]))
    move_to(tmp_path / "third", monkeypatch)
    done = CliRunner().invoke(app, ["audit", f"{MEMORY}/drift"])
    assert str(done.exception).startswith(f"{MEMORY}/drift holds a damaged or edited part-00000.parquet ")
    assert "s3://drift is no stage of a run; give one" in str(
        CliRunner().invoke(app, ["audit", "s3://drift"]).exception
    )
    for name in ("train/dpo", "nothing"):
        done = CliRunner().invoke(app, ["audit", f"{MEMORY}/{name}"])
        assert f"{MEMORY}/{name} is no finished stage of a run" in str(done.exception)
