"""What the doctor sees: real folders, a real machine, and a hub that says this or that."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from semdpo import doctor, pipeline
from semdpo.cli import app
from semdpo.errors import StoreError
from semdpo.recipe import load_recipe
from tests import tiny_models

PAPER = "paper/llama3.2-1b"


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def _levels(found: list[doctor.Finding]) -> dict[str, str]:
    return {each.what: each.level for each in found}


def test_the_embedded_world_lacks_nothing(tmp_path: Path) -> None:
    recipe = load_recipe("tiny")
    found = doctor.needs(recipe, tmp_path / "run")
    assert set(_levels(found).values()) == {"ok"}
    assert doctor.pictures(recipe) == 400 * 4 + 120 * 4 * 2
    measured = doctor.measure(recipe, seconds=0.1)
    assert measured.level == "ok"
    assert "2,560 pictures take about" in measured.found
    assert not (tmp_path / "run").exists(), "looking leaves nothing behind"


def test_whatever_is_missing_is_named_with_its_cure() -> None:
    found = {each.what: each for each in doctor.needs(load_recipe(PAPER), Path("run"))}
    for name in (
        "llama3.2-1b",
        "image-reward",
        "google-bert/bert-base-uncased",
        "jina-embeddings-v4",
        "data/sft.jsonl",
    ):
        assert found[name].level == "error", name
        assert found[name].cure
    assert "hf download THUDM/ImageReward ImageReward.pt med_config.json" in found["image-reward"].cure
    assert "bert-base-uncased --include '*.json'" in found["google-bert/bert-base-uncased"].cure
    assert "allow_remote_code=['jina-embeddings-v4']" in found["remote code"].found


@pytest.mark.parametrize(
    ("answer", "level", "told"),
    [
        (None, "warning", "the run will fetch it"),
        ("GatedRepoError", "error", "and gated"),
        ("RepositoryNotFoundError", "error", "not on the hub, or private"),
    ],
)
def test_what_the_hub_says_is_told(answer: str | None, level: str, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import errors

    def auth_check(*_: Any) -> None:
        if answer is not None:
            raise getattr(errors, answer)(answer, response=SimpleNamespace(headers={}, request=None))

    monkeypatch.setattr("huggingface_hub.auth_check", auth_check)
    found = {each.what: each for each in doctor.needs(load_recipe(PAPER), Path("run"))}["llama3.2-1b"]
    assert (found.level, told in found.found) == (level, True)


def test_parameters_are_counted_in_the_files(tmp_path: Path) -> None:
    folder = tiny_models.gpt2(tmp_path / "gpt2")
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert doctor.parameters(str(folder)) == sum(each.numel() for each in model.parameters())
    assert doctor.parameters("qwen1.5-1.8b") == 1_837_000_000


def test_a_run_that_cannot_fit_is_refused_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = load_recipe("tiny")
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=1e6, total=2e6))
    with pytest.raises(StoreError, match=r"memory: about 0\.032 GB for evaluation, 0\.001 GB"):
        pipeline.run(recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with pytest.raises(StoreError, match="or use a machine with more memory"):
        doctor.refuse_the_impossible(recipe, tmp_path / "run")
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=10))
    with pytest.raises(StoreError, match=r"disk: about .* give a folder on a larger disk"):
        doctor.refuse_the_impossible(recipe, tmp_path / "run")


def test_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = CliRunner().invoke(app, ["doctor"])
    assert plain.exit_code == 0
    assert "meta-llama/Llama-3.2-1B (2.5 GB, gated)" in plain.output
    good = CliRunner().invoke(app, ["doctor", "tiny", "--no-measure"])
    assert good.exit_code == 0
    assert good.output.endswith("a run can begin\n")
    bad = CliRunner().invoke(app, ["doctor", PAPER])
    assert bad.exit_code == 1
    assert "things to be done before a run can begin" in bad.output
    assert "not measured" in bad.output
