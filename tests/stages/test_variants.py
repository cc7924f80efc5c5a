"""A second decoding in an evaluation: whose rewrites it writes, and that nothing else changes with it."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from semdpo import pipeline
from semdpo.data.records import RenderedImage, Score
from semdpo.engine import store
from semdpo.engine.providers import Models
from semdpo.errors import StoreError
from semdpo.recipe.models import DecodingConfig
from semdpo.stages.evaluate import evaluation
from semdpo.stages.sweep import sweep_evaluation
from tests.stand_ins import Renderer, Rewriter, files_of, models, recipe_of

pytestmark = pytest.mark.usefixtures("stand_in_trainings")

SAMPLED = ("sft_sampled", "dpo_sampled", "sem_dpo_sampled")
SEED_9 = "evaluate.also.sampled.seed=9"


def _watched() -> tuple[Models, Renderer, list[tuple[str, DecodingConfig]]]:
    """Models that remember which rewriter was loaded with which decoding, and how often they render."""
    renderer, loaded = Renderer(0.0), []

    def rewriter(model: str, template: str | None, decoding: DecodingConfig) -> Rewriter:
        loaded.append((Path(model).name, decoding))
        return Rewriter(Path(model))

    return replace(models(), rewriter=rewriter, renderer=lambda _: renderer), renderer, loaded


def _evaluate(finished: Path, run: Path, *overrides: str) -> tuple[int, list[tuple[str, DecodingConfig]]]:
    parts, renderer, loaded = _watched()
    pipeline.run(recipe_of(finished, *overrides), run, only="evaluate", models=parts)
    return renderer.calls, loaded


def test_every_trained_method_writes_once_more_with_it(finished: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(finished / "run", tmp_path / "run"))
    recipe = recipe_of(finished, SEED_9)
    shutil.rmtree(run / "evaluate")
    _, loaded = _evaluate(finished, run, SEED_9)
    main, second = recipe.evaluate.rewrite, recipe.evaluate.also["sampled"]
    assert [name for name, decoding in loaded if decoding == second] == ["sft", "dpo", "sem_dpo"]
    assert [name for name, decoding in loaded if decoding == main] == ["sft", "sft", "dpo", "sem_dpo"], "human counts"
    rows = {m: store.read_rows(run / f"evaluate/{m}/images", RenderedImage) for m in evaluation(recipe).models}
    assert list(rows)[-3:] == list(SAMPLED)
    for method in SAMPLED:
        own = rows[method]
        assert {row.method for row in own} == {method}
        assert [(row.prompt_id, row.image_seed) for row in own] == [(r.prompt_id, r.image_seed) for r in rows["human"]]
        assert [row.rewrite for row in own] != [row.rewrite for row in rows[method.removesuffix("_sampled")]]
        assert len(store.read_rows(run / f"evaluate/{method}/clip", Score)) == len(own)


def test_it_costs_only_its_own_images_and_is_no_part_of_the_others(finished: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(finished / "run", tmp_path / "run"))
    for method in SAMPLED:
        shutil.rmtree(run / f"evaluate/{method}")
    before = files_of(run)
    assert _evaluate(finished, run, "evaluate.also={}") == (0, []), "without it, nothing is missing"
    assert files_of(run).keys() == before.keys()
    calls, loaded = _evaluate(finished, run)
    assert calls == 3 * 2, "two shards of each method"
    assert {decoding.temperature for _, decoding in loaded} == {1.0}
    after = files_of(run)
    changed = {name for name, content in before.items() if after[name] != content}
    assert changed <= {"recipe.json"}
    assert after == files_of(finished / "run"), "whenever it was added"
    assert _evaluate(finished, run, "evaluate.also={}") == (0, []), "removed again"


def test_another_decoding_of_the_same_name_is_refused_for_its_own_images_only(finished: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(finished / "run", tmp_path / "run"))
    with pytest.raises(
        StoreError, match=r"evaluate/sft_sampled/images was made with rewrite\.seed = 0, which is now 9"
    ):
        _evaluate(finished, run, SEED_9)
    parts, renderer, _ = _watched()
    made = {path: path.stat().st_mtime_ns for path in run.rglob("manifest.json")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "_write_report", lambda *_: None)
        pipeline.run(recipe_of(finished, SEED_9), run, fresh=True, models=parts)
    again = {path.relative_to(run).parts[1] for path, at in made.items() if path.stat().st_mtime_ns != at}
    assert again == set(SAMPLED)
    assert renderer.calls == 3 * 2


def test_other_rewriters_and_sweeps_have_their_one_decoding(finished: Path) -> None:
    other = "evaluate.rewriters={bold: {model: 'tiny:gpt2', temperature: 0.5}}"
    recipe = recipe_of(finished, other)
    assert list(evaluation(recipe).models) == ["human", "sft", "dpo", "sem_dpo", "bold", *SAMPLED]
    swept = sweep_evaluation(recipe)
    assert not swept.decodings
    assert set(swept.models) == {"sft", *(f"alpha-{alpha:g}" for alpha in recipe.sweep.alphas)}
    (stage,) = [stage for stage in swept.stages(recipe) if stage.name == "sweep/evaluate/alpha-4/images"]
    assert stage.config["rewrite"]["temperature"] == 0
