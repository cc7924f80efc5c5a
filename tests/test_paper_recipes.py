"""Every recipe of the paper from end to end: its names stand for small random folders of the same classes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from semdpo import pipeline, store
from semdpo.errors import ModelError
from semdpo.flow import evaluation
from semdpo.parts import real_parts
from semdpo.recipe import RECIPES, load_recipe
from semdpo.records import Pair
from semdpo.stage import Run
from tests import tiny_models

REWRITERS: dict[str, tuple[str, Callable[[Path], Path]]] = {
    "paper/gpt2": ("gpt2", tiny_models.gpt2),
    "paper/qwen1.5-1.8b": ("qwen1.5-1.8b", lambda folder: tiny_models.causal(folder, "qwen2")),
    "paper/llama3.2-1b": ("llama3.2-1b", lambda folder: tiny_models.causal(folder, "llama")),
    "paper/qwen3-0.6b": ("qwen3-0.6b", lambda folder: tiny_models.causal(folder, "qwen3")),
    "paper/qwen3-1.7b": ("qwen3-1.7b", lambda folder: tiny_models.causal(folder, "qwen3")),
}
OTHERS: dict[str, Callable[[Path], Path]] = {
    "image-reward": tiny_models.image_reward,
    "hpsv2.1": lambda folder: tiny_models.clip(folder, "hpsv2.1", seed=1),
    "pickscore": lambda folder: tiny_models.clip(folder, seed=2),
    "clip-vit-large-patch14": tiny_models.clip,
    "blip-itm-base-coco": tiny_models.blip_itm,
    "jina-embeddings-v4": tiny_models.jina,
    "qwen2.5-vl-3b": tiny_models.llava,
    "stable-diffusion-v1-4": tiny_models.stable_diffusion,
    "promptist": lambda folder: tiny_models.gpt2(folder, seed=5),
    "beautiful-prompt": lambda folder: tiny_models.causal(folder, "bloom"),
}
# What a small run changes: sizes, never names.
SMALL = [
    "prompts.limit=10",
    "prompts.test_sets.coco.limit=2",
    "prompts.test_sets.diffusiondb.limit=2",
    "prompts.test_sets.lexica.limit=2",
    "sft.steps=3",
    "sft.batch_size=4",
    "sft.micro_batch_size=2",
    "candidates.n=2",
    "candidates.max_new_tokens=6",
    "evaluate.rewrite.max_new_tokens=6",
    "evaluate.rewriters.promptist.max_new_tokens=6",
    "evaluate.rewriters.beautiful_prompt.max_new_tokens=6",
    "label.renderer.steps=1",
    "evaluate.renderer.steps=1",
]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The user's own folder of models, by their published names."""
    folder = tmp_path_factory.mktemp("models")
    for name, build in OTHERS.items():
        build(folder / name)
    for name, build in REWRITERS.values():
        build(folder / name)
        (folder / name / "semdpo.json").unlink(missing_ok=True)
    return folder


@pytest.fixture
def here(tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder with the public prompts in their own schemas."""
    monkeypatch.setenv("SEMDPO_MODELS", str(models))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    data = tmp_path / "data"
    for name in ("diffusiondb", "lexica", "coco"):
        (data / name).mkdir(parents=True)
    prompts = [
        f"a {c} fox in the {p}, oil" for c in ("red", "blue", "old") for p in ("sea", "wood", "town", "hall", "sky")
    ]
    pd.DataFrame({"prompt": [*prompts, None], "seed": 1}).to_parquet(data / "diffusiondb/metadata.parquet")
    pd.DataFrame({"Prompt": [f"portrait of {i}" for i in range(5)]}).to_parquet(data / "lexica/train.parquet")
    captions = [{"image_id": i, "id": i, "caption": f"A man with {i} dogs.\n"} for i in range(5)]
    (data / "coco/captions_val2017.json").write_text(json.dumps({"annotations": captions}))
    rewrites = [{"prompt": f"a {c}", "rewrite": f"a {c}, art"} for c in ("cat", "dog", "hut", "sea")]
    (data / "sft.jsonl").write_text("\n".join(json.dumps(each) for each in rewrites))
    return tmp_path


def test_the_test_knows_every_recipe() -> None:
    assert {f"paper/{path.stem}" for path in (RECIPES / "paper").glob("*.yaml")} == REWRITERS.keys()


@pytest.mark.parametrize("name", REWRITERS)
def test_a_recipe_of_the_paper_runs_from_end_to_end(name: str, here: Path) -> None:
    recipe = load_recipe(name, [*SMALL, "scoring.allow_remote_code=[jina-embeddings-v4]"])
    assert recipe.sft.model == REWRITERS[name][0]
    run = pipeline.run(recipe, here / "run")
    pairs = store.read_rows(run / "weigh", Pair)
    assert pairs
    assert all(each.distance is not None and each.chosen_fidelity is not None for each in pairs)
    methods = ["human", "sft", "dpo", "kto", "orpo", "beta_dpo", "additive", "sem_dpo", "promptist", "beautiful_prompt"]
    evaluated = evaluation(recipe).rows(Run(run, recipe, real_parts()))
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
