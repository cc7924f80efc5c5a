"""A run with a render budget: what is rendered, what the pairs weigh, and what is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from semdpo import pipeline
from semdpo.analysis.bounds import filter_deviation
from semdpo.analysis.drift import Drift
from semdpo.analysis.render_budget import draw
from semdpo.data.records import Candidate, Pair, RenderDraw, Score
from semdpo.engine import store
from semdpo.engine.providers import Models
from semdpo.engine.stage import Run
from semdpo.errors import ConfigError, DataError, StoreError
from semdpo.protocols import Embeddings
from semdpo.recipe.load import Source, load_recipe, validate
from semdpo.recipe.render_budget import RenderBudgetConfig
from semdpo.recipe.schema import Recipe
from semdpo.reporting.collect import report_data
from semdpo.reporting.propositions import filter_bound
from semdpo.stages.flow import flow
from semdpo.stages.render_budget import drawn
from tests.stand_ins import Encoder, Renderer, files_of, models, recipe_of

pytestmark = pytest.mark.usefixtures("stand_in_trainings")

ALONE = ("train.methods={sem_dpo: {name: sem_dpo, alpha: 1.0}}", "report.baseline=sft", "sweep=null")
BUDGET = "render_budget={alpha: 0.7, seed: 3}"
DATA = ("prompts", "sft", "candidates", "render_budget", "label", "pairs", "drift")


def _recipe(folder: Path, *more: str, budget: str = BUDGET) -> Recipe:
    return recipe_of(folder, *ALONE, *([budget] if budget else []), *more)


def _data(recipe: Recipe, run: Path, own: Models | None = None, workers: int | None = None) -> Path:
    """Runs the stages up to the pairs with distances."""
    for name in DATA:
        if name != "render_budget" or recipe.render_budget is not None:
            pipeline.run(recipe, run, only=name, models=own or models(), workers=workers)
    return run


@pytest.fixture(scope="module")
def whole(stand_in_trainings: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the data of a run without a budget, in ``run``; not to be changed."""
    folder = tmp_path_factory.mktemp("whole")
    _data(_recipe(folder, budget=""), folder / "run")
    return folder


@pytest.fixture(scope="module")
def partial(whole: Path) -> Path:
    """The data of the same run with a budget; not to be changed."""
    return _data(_recipe(whole), whole / "partial")


# ------------------------------------------------------------------------------------------------- the data


def test_whole_groups_are_rendered_or_left_out(whole: Path, partial: Path) -> None:
    draws = store.read_rows(partial / "render_budget", RenderDraw)
    kept = {row.prompt_id for row in draws if row.kept}
    assert 3 < len(kept) < 17, "a budget that keeps nearly all or nothing would test nothing"
    candidates = store.read_rows(partial / "candidates", Candidate)
    assert [row.prompt_id for row in draws] == list(dict.fromkeys(row.prompt_id for row in candidates))
    assert all(row.kept == (draw(row.prompt_id, 3) < row.probability) for row in draws)
    scores = store.read_rows(partial / "label", Score)
    assert [s.candidate_id for s in scores] == [c.candidate_id for c in candidates if c.prompt_id in kept]
    assert set(scores) < set(store.read_rows(whole / "run/label", Score)), "what is rendered has the same scores"
    counts = store.counts(partial / "render_budget")
    assert counts == {
        "rows": 20,
        "kept": len(kept),
        "prompts_left_out": 20 - len(kept),
        "images": len(scores),
        "images_left_out": len(candidates) - len(scores),
        "truncated": 0,
    }


def test_pairs_are_those_of_the_whole_run_with_the_weight_one_over_p(whole: Path, partial: Path) -> None:
    complete = {pair.pair_id: pair for pair in store.read_rows(whole / "run/drift", Pair)}
    pairs = store.read_rows(partial / "drift", Pair)
    assert len(pairs) < len(complete)
    assert all(pair.weight is None for pair in complete.values())
    assert {replace(pair, weight=None) for pair in pairs} <= set(complete.values())
    probability = {row.distance: row.probability for row in store.read_rows(partial / "render_budget", RenderDraw)}
    for pair in pairs:
        assert pair.weight is not None
        assert min(abs(pair.weight - 1 / p) for p in probability.values()) == 0
        assert np.exp(-1.0 * float(pair.distance or 0)) * pair.weight <= 1 + 1e-6
    left_out = complete.keys() - {pair.pair_id for pair in pairs}
    assert left_out, "the pairs that are left out are those whose draw was too high"


def test_with_alpha_0_everything_is_rendered_and_weighs_as_much_as_without_a_budget(whole: Path) -> None:
    run = _data(_recipe(whole, budget="render_budget={alpha: 0}"), whole / "all")
    assert set(store.read_rows(run / "label", Score)) == set(store.read_rows(whole / "run/label", Score))
    expected = [replace(pair, weight=1.0) for pair in store.read_rows(whole / "run/drift", Pair)]
    assert store.read_rows(run / "drift", Pair) == expected


def test_the_draw_does_not_depend_on_shards(whole: Path, partial: Path) -> None:
    sizes = ("candidates.shard_size=3", "label.shard_size=7", "drift.batch_size=5")
    run = _data(_recipe(whole, *sizes), whole / "other-shards")
    for name, kind in (("render_budget", RenderDraw), ("label", Score), ("drift", Pair)):
        assert set(store.read_rows(run / name, kind)) == set(store.read_rows(partial / name, kind))
    other = _data(_recipe(whole, budget="render_budget={alpha: 0.7, seed: 4}"), whole / "other-seed")
    assert _draws(other) != _draws(partial)


def _draws(run: Path) -> dict[str, bool]:
    return {row.prompt_id: row.kept for row in store.read_rows(run / "render_budget", RenderDraw)}


def test_a_prompts_draw_does_not_depend_on_the_other_prompts(whole: Path, partial: Path) -> None:
    few = _draws(_data(_recipe(whole, "prompts.limit=6"), whole / "few"))
    assert len(few) == 6
    assert few.items() <= _draws(partial).items()


@pytest.mark.slow
def test_several_processes_make_the_same_files(
    whole: Path, partial: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    def rows(run: Path) -> list[list[Any]]:
        kinds = {"render_budget": RenderDraw, "label": Score, "drift": Pair}
        return [store.read_rows(run / name, kind) for name, kind in kinds.items()]

    assert rows(_data(_recipe(whole), tmp_path / "run", workers=2)) == rows(partial)


def test_an_interrupted_run_ends_with_the_same_bytes(whole: Path, partial: Path, tmp_path: Path) -> None:
    class Failing(Renderer):
        def render(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[Image.Image]:
            if self.calls == 3:
                raise DataError("the third time, it fails")
            return super().render(prompts, seeds)

    class FailingEncoder(Encoder):
        calls = 0

        def encode(self, texts: Sequence[str]) -> Embeddings:
            FailingEncoder.calls += 1
            if FailingEncoder.calls == 3:
                raise DataError("the third time, it fails")
            return super().encode(texts)

    failing = Failing(0.0)
    broken = replace(models(), renderer=lambda _: failing, encoder=lambda _: FailingEncoder())
    for at in ("render_budget", "label"):
        with pytest.raises(DataError, match="third time"):
            _data(_recipe(whole), tmp_path / "run", broken)
        assert 1 <= len(list((tmp_path / "run" / at).glob("part-*.parquet"))) < 5
    assert files_of(_data(_recipe(whole), tmp_path / "run")) == files_of(partial)


# ------------------------------------------------------------------------------------------------- another budget


def test_no_part_of_a_run_is_taken_for_the_whole(whole: Path, partial: Path, tmp_path: Path) -> None:
    """Without the budget among its settings, label would pass for finished after the budget was removed."""
    with pytest.raises(StoreError, match=r'label was made with render_budget\.alpha = 0\.7, which is now "…"'):
        pipeline.run(_recipe(whole, budget=""), partial, only="label", models=models())
    with pytest.raises(StoreError, match=r'label was made with render_budget\.alpha = "…", which is now 0\.7'):
        pipeline.run(_recipe(whole), whole / "run", only="label", models=models())
    with pytest.raises(StoreError, match=r"render_budget was made with alpha = 0\.7, which is now 0\.5"):
        pipeline.run(_recipe(whole, budget="render_budget={alpha: 0.5, seed: 3}"), partial, models=models())


def test_a_recipe_without_a_budget_knows_nothing_of_it(whole: Path) -> None:
    recipe = _recipe(whole, budget="")
    assert "render_budget" not in recipe.model_dump()
    assert "render_budget" not in recipe.model_dump_json()
    for stage in flow(recipe):
        assert "render_budget" not in json.dumps([stage.name, dict(stage.config), stage.inputs, dict(stage.outside)])
    assert not any(b"render_budget" in content for content in files_of(whole / "run").values())
    assert validate_again(_recipe(whole)).render_budget == RenderBudgetConfig(alpha=0.7, seed=3)


def validate_again(recipe: Recipe) -> Recipe:
    """The recipe as a run's folder keeps it."""
    return validate(Source("recipe.json", json.loads(recipe.model_dump_json()), {}), Recipe)


def test_a_budget_that_keeps_nothing_is_refused(whole: Path, tmp_path: Path) -> None:
    far = _recipe(
        whole, "train.methods={sem_dpo: {name: sem_dpo, alpha: 400}}", budget="render_budget={alpha: 400, seed: 3}"
    )
    with pytest.raises(DataError, match=r"render_budget keeps no prompt, .*; lower render_budget\.alpha"):
        _data(far, tmp_path / "run")


def test_words_that_the_encoder_does_not_know_are_refused_before_anything_is_rendered(
    whole: Path, tmp_path: Path
) -> None:
    class Foreign(Encoder):
        def encode(self, texts: Sequence[str]) -> Embeddings:
            return replace(super().encode(texts), unknown=np.full(len(texts), 0.7, np.float32))

    foreign = replace(models(), encoder=lambda _: Foreign())
    for name in ("prompts", "sft", "candidates"):
        pipeline.run(_recipe(whole), tmp_path / "run", only=name, models=models())
    with pytest.raises(DataError, match="70% of the words here are unknown"):
        pipeline.run(_recipe(whole), tmp_path / "run", only="render_budget", models=foreign)


def test_a_group_is_measured_by_its_nearest_candidate() -> None:
    rows = [Candidate(f"{p}{k}", p, p, f"{p} {k}", k, 0, False) for p in "ab" for k in range(3)]
    distance = np.array([0.5, 0.1, 0.3, 2.0, 1.5, 1.8])
    drift = Drift(distance, distance, np.zeros(6, bool), None)
    near, far = drawn(rows, drift, RenderBudgetConfig(alpha=2.0))
    assert (near.prompt_id, near.candidates, near.distance) == ("a", 3, 0.1)
    assert near.probability == pytest.approx(np.exp(-0.2))
    assert far.probability == pytest.approx(np.exp(-3.0))


# ------------------------------------------------------------------------------------------------- training, report


def test_a_whole_run_says_what_it_saved_and_shows_the_weights_that_it_trained_with(
    whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = whole / "reported"
    pipeline.run(_recipe(whole), run, models=models())
    counts = store.counts(run / "render_budget")
    said = capsys.readouterr().err
    assert re.search(rf"render_budget: {counts['images']} of \d+ images to render, for {counts['kept']} of 20 p", said)
    report = pipeline.report_path(run)
    page = report.read_text()
    assert f"the candidates of {counts['kept']} of 20 prompts were rendered" in page
    assert "all weights here are W/p" in page
    table = pd.read_csv(report.parent / "tables/weights.csv")
    pairs = store.read_rows(run / "drift", Pair)
    expected = [np.exp(-float(pair.distance or 0)) * pair.own_weight for pair in pairs]
    np.testing.assert_allclose(table["weight"], expected)
    assert not np.allclose(table["weight"], np.exp(-table["distance"]))
    data = report_data(flow(_recipe(whole)), Run(run, _recipe(whole), models()))
    assert data.rendered == counts["images"] + sum(store.counts(path.parent)["rows"] for path in _image_stages(run))
    bound = filter_bound(data)
    assert bound is not None
    losses, own = [row.loss for row in data.losses], [pair.own_weight for pair in pairs]
    measured = [filter_deviation(losses, [p.distance for p in pairs], 1.0, tau, own) for tau in bound.frame["tau"]]
    np.testing.assert_allclose(bound.frame["measured"], measured)


def _image_stages(run: Path) -> list[Path]:
    return sorted((run / "evaluate").glob("*/images/manifest.json"))


def test_a_wrong_probability_is_refused_before_training(whole: Path, tmp_path: Path) -> None:
    """As when the encoder of an edited run measured other distances after the draw."""

    class Nearer(Encoder):
        def encode(self, texts: Sequence[str]) -> Embeddings:
            found = super().encode(texts)
            found.vectors[:] = found.vectors * 0.01 + 1
            return found

    recipe = _recipe(whole)
    run = tmp_path / "run"
    for name in DATA[:-1]:
        pipeline.run(recipe, run, only=name, models=models())
    pipeline.run(recipe, run, only="drift", models=replace(models(), encoder=lambda _: Nearer()))
    with pytest.raises(DataError, match="under a render budget no weight exceeds 1"):
        pipeline.run(recipe, run, only="train", models=models())


def test_the_report_without_a_budget_has_no_word_of_it(finished: Path) -> None:
    page = pipeline.report_path(finished / "run").read_text()
    assert "W/p" not in page
    assert "render_budget" not in page
    assert "ender budget" not in page


# ------------------------------------------------------------------------------------------------- the recipe


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["render_budget={}"], "'render_budget.alpha' is missing; add it"),
        (["render_budget.alpha=-1"], "'render_budget.alpha' is -1; it must be greater than or equal to 0"),
        (["render_budget.alpha=.inf"], "it must be a finite number"),
        (["render_budget.alpha=auto"], "'render_budget.alpha' is 'auto'; it must be a valid number"),
        (["render_budget={alpha: 1, share: 0.5}"], "unknown key 'render_budget.share'"),
        (["render_budget=8"], "'render_budget' is 8; it must be a mapping"),
        (
            ["train.methods={dpo: {name: dpo}, sem_dpo: {name: sem_dpo, alpha: 9}}"],
            "train.methods.dpo is dpo, which does not weigh pairs by their meaning, so that render_budget would bias "
            "it or give it weights above 1; train sem_dpo alone, or remove render_budget",
        ),
        (["train.methods={k: {name: kto}}"], "train.methods.k is kto, which does not weigh pairs"),
        (
            ["train.methods.sem_dpo.alpha=7.5"],
            "train.methods.sem_dpo.alpha is 7.5, less than render_budget.alpha, so that weights could exceed 1; set "
            "render_budget.alpha to 7.5 or less",
        ),
        (["train.methods.sem_dpo.alpha=auto"], "sem_dpo.alpha is auto, which follows from the pairs that render_bud"),
        (["train.methods.sem_dpo.normalize=mean"], "normalize is mean, which divides by the weights of the pairs"),
        (["train.methods.sem_dpo.nll_coef=0.1"], "nll_coef adds a term that is not weighed by meaning"),
    ],
)
def test_what_does_not_fit_a_budget_is_refused_when_the_recipe_is_read(overrides: list[str], said: str) -> None:
    base = ["train.methods={sem_dpo: {name: sem_dpo, alpha: 8}}", "report.baseline=sft", "render_budget.alpha=8"]
    assert load_recipe("tiny", base).render_budget == RenderBudgetConfig(alpha=8)
    with pytest.raises(ConfigError) as caught:
        load_recipe("tiny", [*base, *overrides])
    assert said in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_sweep_has_no_alpha_below_the_budgets(whole: Path, tmp_path: Path) -> None:
    section = ("sweep={prompts: {file: 'tiny:tuning.jsonl', limit: 8}, alphas: [0.5, 2], image_seeds: [7], "
               "fidelity: clip, preference: image_reward}")  # fmt: skip
    recipe = recipe_of(whole, *ALONE[:2], BUDGET, section)
    with pytest.raises(ConfigError, match=r"sweep\.alphas has 0\.5, less than render_budget\.alpha.* to 0\.5 or less"):
        pipeline.sweep(recipe, tmp_path / "run", models=models())
