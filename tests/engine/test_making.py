"""What the making of stages refuses and explains: models that change meanwhile, and a lack of memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from semdpo import pipeline
from semdpo.engine import store
from semdpo.errors import ModelError, StoreError
from tests.stand_ins import Renderer, models, recipe_of, run_without_report

pytestmark = pytest.mark.usefixtures("stand_in_trainings")


def test_a_model_that_changes_while_a_stage_is_made_is_noticed(tmp_path: Path) -> None:
    run_without_report(recipe_of(tmp_path), tmp_path / "run", models(), last="candidates")
    weights = tmp_path / "weights"
    weights.write_text("first")

    def trained_meanwhile(_: object) -> Renderer:
        weights.write_text("second")
        return Renderer(0.0)

    own = replace(models(), fingerprint=lambda name: weights.read_text() if name == "tiny:sd" else Path(name).name)
    with pytest.raises(StoreError, match=r"label\.renderer\.model: 'tiny:sd' was changed while .*label was made; run"):
        pipeline.run(
            recipe_of(tmp_path), tmp_path / "run", only="label", models=replace(own, renderer=trained_meanwhile)
        )
    assert not store.is_complete(tmp_path / "run/label")
    assert not list((tmp_path / "run/label").glob("made/*.json")), "not even with the first model they are used again"
    pipeline.run(recipe_of(tmp_path), tmp_path / "run", only="label", fresh=True, models=own)
    assert store.manifest(tmp_path / "run/label")["inputs"]["label.renderer.model"] == "second"


def test_rewrites_that_changed_in_their_folder_are_noticed(tmp_path: Path) -> None:
    folder, run = tmp_path / "rewrites", tmp_path / "run"
    folder.mkdir()
    (folder / "a.jsonl").write_text('{"prompt": "a", "rewrite": "b"}\n')
    recipe = recipe_of(tmp_path, f"sft.file={folder}")
    pipeline.run(recipe, run, only="sft", models=models())
    pipeline.run(recipe, run, only="sft", models=models())
    (folder / "a.jsonl").write_text('{"prompt": "a", "rewrite": "c"}\n')
    with pytest.raises(StoreError, match=r"sft was made from a different version of sft\.file"):
        pipeline.run(recipe, run, only="sft", models=models())


@pytest.mark.parametrize("good", [0, 1])
def test_a_stage_that_is_refused_before_its_first_shard_may_get_other_settings(good: int, tmp_path: Path) -> None:
    run, small = tmp_path / "run", ("label.shard_size=2", "label.max_failed=0")

    class Failing(Renderer):
        def render(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[Image.Image]:
            if len(list((run / "label").glob("part-*"))) == good:
                raise ModelError("no such thing can be rendered")
            return super().render(prompts, seeds)

    run_without_report(recipe_of(tmp_path, *small), run, models(), last="candidates")
    with pytest.raises(ModelError, match="no such thing"):
        pipeline.run(
            recipe_of(tmp_path, *small), run, only="label", models=replace(models(), renderer=lambda _: Failing(0.0))
        )
    assert (run / "label").exists() == bool(good)
    other = recipe_of(tmp_path, *small, "label.renderer.steps=3")
    if good:  # a shard was made with the settings of before
        with pytest.raises(StoreError, match=r"was made with renderer\.steps"):
            pipeline.run(other, run, only="label", models=models())
    else:
        pipeline.run(other, run, only="label", models=models())
        assert store.is_complete(run / "label")


NO_MEMORY = (
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nOf the allocated memory …"),
    RuntimeError("CUDA error: out of memory"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: you tried …"),
    MemoryError(),
)


@pytest.mark.parametrize("failure", NO_MEMORY, ids=lambda error: f"{type(error).__name__} {str(error)[:9]}")
def test_a_lack_of_memory_is_one_sentence_with_its_cure(
    failure: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> Any:
        raise failure

    run_without_report(recipe_of(tmp_path), tmp_path / "run", models(), last="candidates")
    with pytest.raises(ModelError, match=r"there is not enough memory for label \(.*\); lower the batch_size of the"):
        pipeline.run(recipe_of(tmp_path), tmp_path / "run", only="label", models=replace(models(), renderer=full))
    monkeypatch.setattr("semdpo.training.fine_tune.fine_tune", full)
    with pytest.raises(ModelError, match=r"not enough memory for sft \(.*\); set a lower micro_batch_size"):
        pipeline.run(recipe_of(tmp_path), tmp_path / "other", only="sft", models=models())
