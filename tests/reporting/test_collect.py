"""What a report shows of a run, collected from its folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from semdpo import pipeline
from semdpo.data.records import Candidate, Prompt, RenderedImage
from semdpo.engine import parquet, store
from semdpo.engine.stage import Run
from semdpo.errors import StoreError
from semdpo.reporting.collect import report_data
from semdpo.stages.flow import flow
from tests.stand_ins import models, recipe_of, run_without_report

pytestmark = pytest.mark.usefixtures("stand_in_trainings")


def test_the_report_can_be_written_again_from_the_folder_alone(finished: Path) -> None:
    run = finished / "run"
    page = pipeline.report_path(run).read_bytes()
    pipeline.report_path(run).unlink()
    pipeline.run(pipeline.recipe_of(run), run, only="report", models=models())
    assert pipeline.report_path(run).read_bytes() == page
    with pytest.raises(StoreError, match="holds no run; make one"):
        pipeline.recipe_of(finished)


def test_what_the_report_tells_of_a_run(tmp_path: Path) -> None:
    additive = ("train.methods={additive: {name: additive}, sem_dpo: {name: sem_dpo}}", "report.baseline=additive")
    recipe = recipe_of(tmp_path, *additive, "label.fidelity=tiny:blip-itm")
    run = Run(tmp_path / "run", recipe, models())
    run_without_report(recipe, run.folder, models())
    for stage, version in (("drift", "9.9"), ("label", "1.1")):  # as if other versions had made them
        manifest = run.folder / stage / "manifest.json"
        content = store.manifest(run.folder / stage)
        content["versions"]["torch"] = version
        manifest.write_bytes(store.canonical(content | {store.SEAL: store.digest(store.canonical(content))}))
    data = report_data(flow(recipe), run)
    candidates = store.read_rows(run.folder / "candidates", Candidate)
    assert data.rendered == len(candidates) + (4 + 3) * 6 * 2, "a candidate has one image for two scorers"
    assert dict(data.tokens)["in the candidates"] > 0
    assert data.seen["blip_itm"] == "it helped to choose the pairs of the additive reward"
    assert "blip_itm" not in data.held_out
    methods = ("human", "sft", "additive", "sem_dpo", "sft_sampled", "additive_sampled", "sem_dpo_sampled")
    assert data.truncated_rewrites == dict.fromkeys(methods, 0)
    assert data.variants == recipe.variants
    assert "9.9 (drift)" in data.versions["torch"]
    assert "1.1 (label)" in data.versions["torch"]


def test_a_scorer_is_marked_only_if_it_took_part_in_training(finished: Path) -> None:
    def seen(*overrides: str) -> dict[str, str]:
        recipe = recipe_of(finished, *overrides)
        return report_data(flow(recipe), Run(finished / "run", recipe, models())).seen

    labelled = {"image_reward": "it labelled the training pairs"}
    assert seen() == labelled | {"clip": "its text tower measured the drift that set the weights"}
    assert seen("drift.source=margin") == labelled, "no drift is in the weights"
    alone = ("train.methods={dpo: {name: dpo}}", "report.subject=dpo", "report.baseline=sft")
    assert seen(*alone) == labelled, "nothing was weighed"
    assert seen(*alone, "label.fidelity=tiny:blip-itm") == labelled, "its scores were not used"
    filtered = seen(*alone, "label.fidelity=tiny:blip-itm", "pairs.faithful=true")
    assert filtered == labelled | {"blip_itm": "it decided which pairs were left out"}
    agreed = seen("label.fidelity=tiny:blip-itm", "drift.source=scorer_agreement")
    assert agreed == labelled | {"blip_itm": "its disagreement with the other scorer set the weights"}


def test_held_out_prompts_that_fine_tuning_has_are_counted(finished: Path, tmp_path: Path) -> None:
    run, file = Run(finished / "run", recipe_of(finished), models()), tmp_path / "rewrites.jsonl"
    held_out = [row.prompt for row in run.rows("prompts", Prompt) if row.split == "test"]

    def notes(*prompts: str) -> list[str]:
        file.write_text("".join(json.dumps({"prompt": prompt, "rewrite": "b"}) + "\n" for prompt in prompts))
        recipe = recipe_of(finished, f"sft.file={file}")
        found = report_data(flow(recipe), Run(finished / "run", recipe, models())).notes
        return [note for note in found if "sft.file" in note]

    assert notes("something else") == []
    (note,) = notes("something else", f"{held_out[0].upper()} !", held_out[0])
    assert f": 1 of {len(held_out)} held-out prompts." in note
    file.unlink()
    recipe = recipe_of(finished, f"sft.file={file}")
    assert report_data(flow(recipe), Run(finished / "run", recipe, models())).notes


def test_facts_are_read_where_the_recipe_says_so(finished: Path) -> None:
    remark = "Prompts with words that the tiny world does not have (0, 1, 2, 3, 4 …): 6. "
    for setting, read in (("tiny", "tiny"), ("null", None)):
        recipe = recipe_of(finished, f"report.facts={setting}")
        data = report_data(flow(recipe), Run(finished / "run", recipe, models()))
        assert data.facts == read
        assert any(note.startswith(remark) for note in data.notes) == (read is not None)


def test_a_report_without_a_possible_study_says_why(finished: Path) -> None:
    assert report_data(flow(recipe := recipe_of(finished)), Run(finished / "run", recipe, models())).study is None
    recipe = recipe_of(finished, "report.study=tiny")
    study = report_data(flow(recipe), Run(finished / "run", recipe, models())).study
    assert (
        study == "the images have 8 × 8 pixels, and simulated raters know only the tiny world's of 64 × 64; ask people"
    )


def test_the_report_reads_only_the_images_that_it_shows(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, recipe = [], recipe_of(finished)
    file, cells = parquet.read_file, parquet.read_cells

    def watched_file(path: Path, kind: type[Any], *given: Any, **named: Any) -> list[Any]:
        rows = file(path, kind, *given, **named)
        read.extend(row.image for row in rows if kind is RenderedImage and row.image)
        return rows

    def watched_cells(path: Path, name: str, rows: Sequence[int]) -> list[Any]:
        found = cells(path, name, rows)
        read.extend(found if name == "image" else ())
        return found

    monkeypatch.setattr(store, "read_file", watched_file)
    monkeypatch.setattr(parquet, "read_file", watched_file)
    monkeypatch.setattr(parquet, "read_cells", watched_cells)
    data = report_data(flow(recipe), Run(finished / "run", recipe, models()))
    assert len(read) == sum(row.image is not None for row in data.evaluation) == 5 * 4, "none of the second decoding"
    read.clear()
    named = recipe_of(finished, "report.images=[human, sem_dpo_sampled]")
    shown = report_data(flow(named), Run(finished / "run", named, models())).evaluation
    assert sum(row.image is not None for row in shown if row.method == "sem_dpo_sampled") == 5
    read.clear()
    none = recipe_of(finished, "evaluate.keep_images=0")
    assert all(row.image is None for row in report_data(flow(none), Run(finished / "run", none, models())).evaluation)
    assert not read
