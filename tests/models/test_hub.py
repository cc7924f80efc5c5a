"""What counts as downloaded, in a cache as the hub's library and other programs leave it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from semdpo.errors import ModelError
from semdpo.models import hub
from semdpo.models.catalogue import SKIPPED, TRANSFORMERS, WORDS

INDEX = json.dumps({"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors", "c": "model.fp16.bin"}})
WORDS_ALONE = {"config.json": "{}", "tokenizer.json": "{}"}
SHARDS = WORDS_ALONE | {"model.safetensors.index.json": INDEX, "model-1.safetensors": ""}


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))


def _fetched(cache: Path, files: Mapping[str, str]) -> Path:
    """A repository of which another program has fetched some files, which notes nothing about the others."""
    revision, repository = "0" * 40, cache / "models--some--model"
    folder = repository / "snapshots" / revision
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text(revision)
    return folder


@pytest.mark.parametrize(
    ("there", "files", "lacking"),
    [
        (WORDS_ALONE, TRANSFORMERS, r"\*\.safetensors"),
        (WORDS_ALONE, (*WORDS, "*.bin"), r"\*\.bin"),
        (WORDS_ALONE, ("Own.pt", "settings.json"), r"Own\.pt"),
        (SHARDS, TRANSFORMERS, r"model-2\.safetensors"),
        ({f"unet/{name}": content for name, content in SHARDS.items()}, TRANSFORMERS, r"unet/model-2\.safetensors"),
    ],
)
def test_a_model_without_all_of_its_weights_is_not_downloaded(
    there: Mapping[str, str], files: Sequence[str], lacking: str, tmp_path: Path
) -> None:
    _fetched(tmp_path, there)
    assert not hub.cached("some/model", files, SKIPPED)
    with pytest.raises(ModelError, match=rf"'some/model' is here without all of its weights \({lacking}\); get them"):
        hub.fetch("some/model", "some/model", files, SKIPPED)


@pytest.mark.parametrize(
    ("there", "files"),
    [
        (WORDS_ALONE, WORDS),
        (WORDS_ALONE | {"pytorch_model.bin": ""}, TRANSFORMERS),  # which transformers loads where it is alone
        (SHARDS | {"model-2.safetensors": ""}, TRANSFORMERS),
        (SHARDS | {"model-2.safetensors": "", "original/a.safetensors.index.json": INDEX}, (*WORDS, "m*.safetensors")),
        ({"Own.pt": ""}, ("Own.pt", "settings.json")),
    ],
)
def test_a_model_with_all_of_its_weights_is(there: Mapping[str, str], files: Sequence[str], tmp_path: Path) -> None:
    folder = _fetched(tmp_path, there)
    assert hub.cached("some/model", files, SKIPPED)
    assert hub.downloaded("some/model", files, SKIPPED) == hub.fetch("some/model", "some/model", files, SKIPPED)
    assert hub.fetch("some/model", "some/model", files, SKIPPED) == folder
