"""A sweep over alpha uses what a run has made, and tunes on prompts of its own."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from semdpo import pipeline
from semdpo.data.records import Prompt
from semdpo.engine import store
from semdpo.engine.stage import Run
from semdpo.errors import ConfigError
from semdpo.reporting.collect import _has_sweep
from tests.stand_ins import models, recipe_of, run_without_report

pytestmark = pytest.mark.usefixtures("stand_in_trainings")


def test_a_sweep_uses_what_is_there_and_tunes_on_prompts_of_its_own(finished: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    (tmp_path / "tune.txt").write_text("\n".join(["another 1", "a thing 3", *(f"tune {i}" for i in range(12))]))
    section = (
        f"sweep.prompts={{file: {tmp_path}/tune.txt, limit: 8}}", "sweep.alphas=[0, 2, 8]", "sweep.image_seeds=[7]",
    )  # fmt: skip
    recipe = recipe_of(finished, *section)
    run_without_report(recipe, run, models(), last="drift")
    before = {path: path.stat().st_mtime_ns for path in run.rglob("part-*.parquet")}
    page = pipeline.sweep(recipe, run, models=models())
    assert [path for path, at in before.items() if path.stat().st_mtime_ns != at] == []
    tuning = store.read_rows(run / "sweep/prompts", Prompt)
    assert len(tuning) == 8
    assert {each.split for each in tuning} == {"tune"}
    used = {each.prompt_id for each in store.read_rows(run / "prompts", Prompt)}
    assert used.isdisjoint(each.prompt_id for each in tuning)
    assert store.counts(run / "sweep/prompts")["used_elsewhere"] == 2
    table = pd.read_csv(page.parent / "tables/figure5_sweep.csv")
    assert {each.suffix for each in page.parent.rglob("*sweep.*")} == {".html", ".csv", ".tex", ".png", ".svg"}
    assert table["alpha"].tolist() == [0, 2, 8]
    assert table["chosen"].sum() == 1
    assert table["effective_share"].tolist() == sorted(table["effective_share"], reverse=True)
    assert "Chosen: α" in page.read_text()
    first = page.read_text().split("<tbody>")[1].split("</tr>")[0]
    assert "<td>SFT</td>" in first, "what the values of alpha are compared with stands above them"
    assert "the floor" in first
    assert not (run / "train").exists(), "the recipe's own methods are not part of a sweep"
    assert _has_sweep(Run(run, recipe, models()))
    assert not _has_sweep(Run(run, recipe_of(finished, *section, "sweep.image_seeds=[8]"), models())), "another sweep"
    other = recipe_of(finished, *section, "pairs.margin=0.01")
    pipeline.run(other, run, only="pairs", fresh=True, models=models())
    pipeline.run(other, run, only="drift", models=models())
    assert not _has_sweep(Run(run, other, models())), "its pairs are no more"
    with pytest.raises(ConfigError, match="has no section 'sweep'"):
        pipeline.sweep(recipe_of(finished, "sweep=null"), run, models=models())


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("sweep.image_seeds=[0, 7]", r"image_seeds has \[0\], which the report shows"),
        ("benchmarks.drawbench.image_seeds=[100, 5]", r"image_seeds has \[100\], which the report shows"),
        ("sweep.fidelity=jina", "names 'jina', which is not in evaluate.metrics"),
        ("sweep.alphas=[1, 1]", "only once"),
    ],
)
def test_a_sweep_keeps_tuning_and_reporting_apart(finished: Path, override: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        recipe_of(finished, override)
