"""Every recipe of the paper from end to end: its names stand for small random folders of the same classes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from semdpo import pipeline
from semdpo.data.records import Pair
from semdpo.engine import store
from semdpo.engine.providers import own_models
from semdpo.engine.stage import Run
from semdpo.errors import ModelError
from semdpo.recipe.load import RECIPES, load_recipe
from semdpo.reporting.evaluated import evaluation_rows
from semdpo.stages.evaluate import evaluation
from tests.published import REWRITERS, SMALL, build_models, write_prompts


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The user's own folder of models, by their published names."""
    return build_models(tmp_path_factory.mktemp("models"))


@pytest.fixture
def here(tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder with the public prompts in their own schemas."""
    monkeypatch.setenv("SEMDPO_MODELS", str(models))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    write_prompts(tmp_path / "data")
    return tmp_path


def test_the_test_knows_every_recipe() -> None:
    assert {f"paper/{path.stem}" for path in (RECIPES / "paper").glob("*.yaml")} == REWRITERS.keys()


@pytest.mark.parametrize("name", REWRITERS)
def test_a_recipe_of_the_paper_runs_from_end_to_end(name: str, here: Path) -> None:
    recipe = load_recipe(name, [*SMALL, "scoring.allow_remote_code=[jina-embeddings-v4]"])
    assert recipe.sft.model == REWRITERS[name][0]
    run = pipeline.run(recipe, here / "run")
    pairs = store.read_rows(run / "drift", Pair)
    assert pairs
    assert all(each.distance is not None and each.chosen_fidelity is not None for each in pairs)
    methods = ["human", "sft", "dpo", "kto", "orpo", "beta_dpo", "additive", "sem_dpo", "promptist", "beautiful_prompt"]
    evaluated = evaluation_rows(evaluation(recipe), Run(run, recipe, own_models()))
    for method in methods:
        rows = [row for row in evaluated if row.method == method]
        assert [row.source for row in rows] == ["coco"] * 2 + ["diffusiondb"] * 2 + ["lexica"] * 2
        assert rows[0].metrics.keys() == {"clip", "hps", "pickscore", "blip_itm", "jina"}
        assert rows[0].tokens > 0
    assert (run / "report/index.html").is_file()


def test_the_recipes_differ_in_their_rewriter_only() -> None:
    """Researchers compare models on equal terms."""
    seen = []
    for name in REWRITERS:
        settings = load_recipe(name).model_dump(mode="json")
        for stage, key in (
            ("sft", "model"),
            ("sft", "learning_rate"),
            ("sft", "micro_batch_size"),
            ("report", "title"),
        ):
            del settings[stage][key]
        del settings["name"]
        seen.append(settings)
    assert all(each == seen[0] for each in seen)


def test_the_recipes_hold_the_papers_settings() -> None:
    recipe = load_recipe("paper/gpt2")
    assert (recipe.prompts.limit, recipe.train.beta, recipe.train.batch_size) == (50_000, 0.05, 8)
    assert (recipe.train.learning_rate, recipe.train.epochs) == (5e-6, 1)
    assert (recipe.label.scorer, recipe.label.renderer.model) == ("image-reward", "stable-diffusion-v1-4")
    assert recipe.label.renderer.steps == recipe.evaluate.renderer.steps == 20
    assert recipe.train.methods["sem_dpo"].model_dump()["alpha"] == 4.0
    assert [each.limit for each in recipe.prompts.test_sets.values()] == [200] * 3
    assert len(recipe.evaluate.metrics) == 5


def test_a_model_that_is_not_there_is_told_before_any_work(here: Path, tmp_path: Path, models: Path) -> None:
    own = tmp_path / "models"
    shutil.copytree(models, own)
    shutil.rmtree(own / "hpsv2.1")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEMDPO_MODELS", str(own))
        with pytest.raises(ModelError, match=r"'hpsv2\.1' \(xswu/HPSv2\) has not been downloaded"):
            pipeline.run(
                load_recipe("paper/gpt2", [*SMALL, "scoring.allow_remote_code=[jina-embeddings-v4]"]), here / "r"
            )
    assert not (here / "r/prompts").exists()


def test_remote_code_is_refused_before_any_work(here: Path) -> None:
    with pytest.raises(ModelError, match=r"evaluate\.metrics\.jina.*allow_remote_code=\['jina-embeddings-v4'\]"):
        pipeline.run(load_recipe("paper/gpt2", SMALL), here / "run")
    assert not (here / "run/prompts").exists()
