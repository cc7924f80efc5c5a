from __future__ import annotations

from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from semdpo.errors import StoreError
from semdpo.models.rewriter import load_causal
from semdpo.models.rewriter_settings import RewriterSettings
from semdpo.training.folder import renamed_at_the_end, save
from tests import tiny_models


def test_the_folder_appears_whole(tmp_path: Path) -> None:
    output = tmp_path / "runs" / "model"
    with renamed_at_the_end(output) as folder:
        (folder / "semdpo.json").write_text("{}")
        assert not output.exists()
    assert [each.name for each in output.iterdir()] == ["semdpo.json"]
    assert [each.name for each in output.parent.iterdir()] == ["model"]


def _write_and_fail(output: Path) -> None:
    with renamed_at_the_end(output) as folder:
        (folder / "semdpo.json").write_text("{}")
        raise RuntimeError("stop")


def test_after_a_failure_nothing_is_left(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="stop"):
        _write_and_fail(tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_an_earlier_rewriter_is_replaced_and_nothing_else_is(tmp_path: Path) -> None:
    output = tmp_path / "model"
    output.mkdir()
    (output / "semdpo.json").write_text("old")
    (output / "old.txt").touch()
    with renamed_at_the_end(output) as folder:
        (folder / "semdpo.json").write_text("new")
    assert [each.name for each in output.iterdir()] == ["semdpo.json"]
    assert (output / "semdpo.json").read_text() == "new"

    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").touch()
    with (
        pytest.raises(StoreError, match="was not made by semdpo"),
        renamed_at_the_end(tmp_path / "thesis"),
    ):
        pass
    assert (tmp_path / "thesis" / "chapter.txt").exists()


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot be written"), renamed_at_the_end(tmp_path / "file" / "model"):
        pass


def test_the_model_card_is_one_that_the_hub_reads(tmp_path: Path) -> None:
    folder = tmp_path / "saved"
    folder.mkdir()
    model, tokenizer = load_causal(tiny_models.gpt2(tmp_path / "gpt2"))
    save(folder, model, tokenizer, RewriterSettings("{prompt} ->", 50, "tiny:clip"), "Sem-DPO", {"alpha": 4})
    card = ModelCard.load(folder / "README.md")
    assert card.data.to_dict() == {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["semdpo", "text-to-image", "prompt-optimization"],
    }
    text = (folder / "README.md").read_text()
    assert "# Prompt rewriter (Sem-DPO)\n" in text
    assert "It reads `{prompt} ->` and continues" in text
    # Further rows may be appended: the table ends the file.
    assert text.endswith("| alpha | 4 |\n| longest rewrite, in tokens | 50 |\n| encoder of the drift | tiny:clip |\n")
