"""What the doctor sees: real folders, a real machine, and a hub that says this or that."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from semdpo import pipeline
from semdpo.cli.app import app
from semdpo.errors import ModelError, StoreError
from semdpo.preflight import doctor, downloads
from semdpo.recipe.load import load_recipe
from semdpo.stages.flow import flow
from tests import tiny_models

PAPER = "paper/llama3.2-1b"


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def _levels(found: list[doctor.Finding]) -> dict[str, str]:
    return {each.what: each.level for each in found}


@pytest.mark.slow
def test_the_embedded_world_lacks_nothing(tmp_path: Path) -> None:
    recipe = load_recipe("tiny")
    found = doctor.needs(recipe, tmp_path / "run")
    assert set(_levels(found).values()) == {"ok"}
    assert doctor.images(recipe) == 400 * 4 + 120 * (5 + 4) * 2, "four methods are evaluated with two decodings"
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


def test_the_language_model_that_writes_atoms_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = load_recipe("tiny", ["atoms={maker: lm, lm: {model: embeddinggemma-300m}}"])
    found = {each.what: each for each in doctor.needs(recipe, tmp_path / "run")}["embeddinggemma-300m"]
    assert found.level == "error"
    assert found.found.startswith("atoms.lm.model: not downloaded, about 1.2 GB, licence Gemma, ")
    assert downloads.missing_models(recipe) == {"embeddinggemma-300m": 1.2}
    _finish(tmp_path / "run", *(stage.name for stage in flow(recipe) if stage.name != "atoms"))
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=1e6, total=2e6))
    with pytest.raises(StoreError, match=r"memory: about 1\.2 GB for writing atoms, .*smaller atoms\.lm\.model"):
        doctor.refuse_the_impossible(recipe, tmp_path / "run")


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


def test_a_file_of_weights_that_was_downloaded_in_part_is_named(tmp_path: Path) -> None:
    weights = tiny_models.gpt2(tmp_path / "gpt2") / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(ModelError, match=r"model\.safetensors' is not a complete safetensors file .* download"):
        doctor.parameters(str(weights.parent))


def test_a_run_that_cannot_fit_is_refused_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = load_recipe("tiny")
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=1e6, total=2e6))
    with pytest.raises(StoreError, match=r"memory: about 0\.032 GB for evaluation, 0\.001 GB"):
        pipeline.run(recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with pytest.raises(StoreError, match="or use a machine with more memory"):
        doctor.refuse_the_impossible(recipe, tmp_path / "run")
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=10))
    with pytest.raises(StoreError, match=r"disk: about .* choose a folder on a larger disk"):
        doctor.refuse_the_impossible(recipe, tmp_path / "run")


class _Disk:
    """A disk whose free bytes a test sets."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, free: float) -> None:
        self.free = free
        monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=self.free))


def _finish(run: Path, *stages: str) -> None:
    for name in stages:
        (run / name).mkdir(parents=True)
        (run / name / "manifest.json").write_text("{}")


def test_only_what_is_still_missing_of_a_run_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = load_recipe("tiny", ["evaluate.renderer.height=512", "evaluate.renderer.width=512"])
    run = tmp_path / "run"
    stages = [stage.name for stage in flow(recipe)]
    disk = _Disk(monkeypatch, 1e6)

    def refused() -> bool:
        found = {each.what: each.level for each in doctor.resources(recipe, run)}
        return found["disk"] == "error"

    assert refused()
    models = [name for name in stages if name == "sft" or name.startswith("train/")]
    _finish(run, *(name for name in stages if name not in models and not name.endswith("/images")))
    assert refused(), "what takes the room is still to be made"
    _finish(run, *models)
    assert refused()
    disk.free = 6e8  # most of the images
    assert refused()
    for method in ("human", "sft", "dpo_liked", "dpo_liked_sampled"):
        _finish(run, f"evaluate/{method}/images")
    assert not refused()
    disk.free = 1e6
    assert refused()
    unfinished = {"dpo", "sem_dpo", *recipe.variants} - {"dpo_liked_sampled"}
    for method in sorted(unfinished):  # all but the last of their shards
        (run / f"evaluate/{method}/images").mkdir(parents=True)
        with (run / f"evaluate/{method}/images/part-00000.parquet").open("wb") as file:
            file.truncate(200_000_000)  # sparse
    assert not refused()
    doctor.refuse_the_impossible(recipe, run)


def test_memory_is_wanted_for_what_is_left_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, run = load_recipe("tiny"), tmp_path / "run"
    _finish(run, *(stage.name for stage in flow(recipe)))
    _Disk(monkeypatch, 10)
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=10, total=2e6))
    doctor.refuse_the_impossible(recipe, run)
    with pytest.raises(StoreError, match="memory"):
        doctor.refuse_the_impossible(recipe, tmp_path / "another")
    only = [stage for stage in flow(recipe) if stage.name == "pairs"]
    doctor.refuse_the_impossible(recipe, tmp_path / "another", only)


def test_a_checkpoint_that_is_there_needs_no_more_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, run = load_recipe("tiny"), tmp_path / "run"
    _finish(run, *(stage.name for stage in flow(recipe) if stage.name != "train/dpo"))
    disk = _Disk(monkeypatch, 1e9)
    weights = doctor.parameters("tiny:gpt2")
    disk.free = (2 * 4 + 24) * weights
    assert {each.what: each.level for each in doctor.resources(recipe, run)}["disk"] == "ok"
    disk.free -= 1
    assert {each.what: each.level for each in doctor.resources(recipe, run)}["disk"] == "error"
    kept = run / "train/dpo.partial.checkpoints/checkpoint-1"
    kept.mkdir(parents=True)
    (kept / "optimizer.pt").write_bytes(b"0" * 1_000_000)
    assert {each.what: each.level for each in doctor.resources(recipe, run)}["disk"] == "ok"


@pytest.mark.slow
def test_all_that_will_be_downloaded_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    allowed = ["scoring.allow_remote_code=[jina-embeddings-v4]"]
    recipe = load_recipe("paper/gpt2", allowed)
    sizes = {
        "gpt2": 0.6, "stable-diffusion-v1-4": 5.5, "image-reward": 1.8, "qwen2.5-vl-3b": 7.5, "hpsv2.1": 2.0,
        "clip-vit-large-patch14": 1.7, "pickscore": 4.0, "blip-itm-base-coco": 0.9, "jina-embeddings-v4": 8.0,
        "promptist": 0.6, "beautiful-prompt": 2.2,
    }  # fmt: skip
    assert downloads.missing_models(recipe) == sizes
    found = {each.what: each for each in doctor.needs(recipe, tmp_path / "run")}
    assert "about 34.8 GB for 11 models (jina-embeddings-v4 8, " in found["download"].found
    assert "34.8 GB of it to download" in found["disk"].found
    _Disk(monkeypatch, 30e9)
    found = {each.what: each for each in doctor.needs(recipe, tmp_path / "run")}
    assert (found["download"].level, "HF_HOME" in found["download"].cure) == ("error", True)
    with pytest.raises(StoreError, match=r"disk: about 45 GB .* 34\.8 GB of it to download"):
        doctor.refuse_the_impossible(recipe, tmp_path / "run")
    # The same model under two names comes once, and one of unknown size is named.
    two = load_recipe("tiny", ["drift.encoder=openai/clip-vit-large-patch14", "sft.model=somebody/model",
                               "evaluate.metrics.clip=clip-vit-large-patch14"])  # fmt: skip
    assert sorted(map(str, downloads.missing_models(two).values())) == ["1.7", "None"]
    (told,) = downloads.download(two)
    assert "somebody/model, whose size is not known" in told.found
    assert downloads.download(load_recipe("tiny")) == []


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("tiny:prompts.jsonl", "of the embedded world"),
        ("mine.txt", "your file, 0.0 MB"),
        ("split", "your folder"),
        ("empty", "missing"),
        (
            "hub:poloclub/diffusiondb",
            "the split train of huggingface.co/datasets/poloclub/diffusiondb, licence CC0 1.0",
        ),
        ("hub:somebody/prompts:test", "the split test of huggingface.co/datasets/somebody/prompts, licence not known"),
    ],
)
def test_where_prompts_come_from(name: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("a cat\n")
    for folder in ("split", "empty"):
        (tmp_path / folder).mkdir()
    (tmp_path / "split/train.jsonl").write_text('{"prompt": "a cat"}\n')
    assert said in downloads.source("prompts.file", name).found


def test_a_public_file_that_is_not_there_is_found_by_its_place() -> None:
    found = downloads.source("prompts.file", "data/coco/captions_val2017.json")
    assert found.level == "error"
    assert "cocodataset.org" in found.cure


def test_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = CliRunner().invoke(app, ["doctor"])
    assert plain.exit_code == 0
    assert "meta-llama/Llama-3.2-1B (2.5 GB, gated)" in plain.output
    assert "MizzenAI/HPSv3 (16.6 GB, MIT)" in plain.output
    good = CliRunner().invoke(app, ["doctor", "tiny", "--no-measure"])
    assert good.exit_code == 0
    assert good.output.endswith("a run can begin\n")
    bad = CliRunner().invoke(app, ["doctor", PAPER])
    assert bad.exit_code == 1
    assert "things to do before a run can begin" in bad.output
    assert "is not downloaded; download it, then run `semdpo doctor` again" in bad.output
    assert "without what is not measured" in bad.output


def test_the_model_that_a_head_stands_on_is_needed_too(tmp_path: Path) -> None:
    tiny = load_recipe("tiny")
    looks = [
        "evaluate.metrics.looks=laion-aesthetic",
        f"report.preference=[{','.join([*tiny.report.preference, 'looks'])}]",
    ]
    recipe = load_recipe("tiny", looks)
    assert downloads.missing_models(recipe) == {"laion-aesthetic": 0.004, "clip-vit-large-patch14": 1.7}
    found = {each.what: each for each in doctor.needs(recipe, tmp_path / "run")}
    assert "the model that it stands on" in found["clip-vit-large-patch14"].found
    assert "hf download trl-lib/ddpo-aesthetic-predictor aesthetic-model.pth`" in found["laion-aesthetic"].cure
    assert doctor.parameters("laion-aesthetic") == 429_000_000
    blind = load_recipe("tiny", ["label.fidelity=laion-aesthetic"])
    found = {each.what: each for each in doctor.needs(blind, tmp_path / "run")}
    assert "does not read the prompt" in found["fidelity"].found
