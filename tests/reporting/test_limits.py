"""After an evaluation, the rewriters' folders say how far their rewrites drift."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from semdpo import pipeline
from semdpo.data.records import RenderedImage
from semdpo.engine import fingerprint, model_folders, store
from semdpo.engine.stage import Run
from semdpo.models import drift_limit
from tests.stand_ins import models, recipe_of, run_without_report

pytestmark = pytest.mark.usefixtures("stand_in_trainings")


def test_every_trained_rewriter_gets_the_limit_of_its_own_rewrites(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path)
    run_without_report(recipe, tmp_path / "run", models())
    pipeline.run(recipe, tmp_path / "run", only="evaluate", models=models())
    run = Run(tmp_path / "run", recipe, models())
    limits: dict[str, float] = {}
    for method, stage in {"sft": "sft", **{name: f"train/{name}" for name in recipe.train.methods}}.items():
        folder = run.folder / stage
        values = json.loads((folder / "guard.json").read_text())
        rows = run.rows(f"evaluate/{method}/images", RenderedImage)
        drifts = sorted({row.prompt_id: row.distance for row in rows}.values())
        limits[method] = float(np.quantile(drifts, drift_limit.QUANTILE, method="higher"))
        assert values["max_drift"] == pytest.approx(min(limits[method], limits["sft"]))
        assert (values["prompts"], values["encoder"]) == (len(drifts), recipe.drift.encoder)
        model_folders.refuse_damaged(folder)  # it is no part of the model
        assert "guard.json" not in fingerprint.files(folder)
        assert "guard.json" not in store.manifest(folder)["files"]
    assert len(set(limits.values())) == len(limits), "the methods drift differently"
    before = {path: path.stat().st_mtime_ns for path in run.folder.rglob("guard.json")}
    next(iter(before)).unlink()
    pipeline.run(recipe, tmp_path / "run", only="evaluate", models=models())
    after = {path: path.stat().st_mtime_ns for path in run.folder.rglob("guard.json")}
    assert after.keys() == before.keys(), "a removed one is written again"
    assert sum(after[path] != before[path] for path in before) == 1, "the others stay"
