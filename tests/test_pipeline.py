"""Whole runs with stand-ins for the models: resumed, repeated, refused. As a script, it is the one that is killed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from semdpo import pipeline
from semdpo.data.records import Candidate, Curve, EvaluationRow, Pair, RenderedImage, Score
from semdpo.engine import model_folders, parquet, shard_files, store, timing
from semdpo.engine.stage import Run
from semdpo.errors import ConfigError, DataError, ModelError, StoreError
from semdpo.models.rewriter_settings import RewriterSettings, read_settings, write_settings
from semdpo.progress import Progress
from semdpo.protocols import Embeddings
from semdpo.recipe.schema import Recipe
from semdpo.reporting.evaluated import evaluation_rows
from semdpo.stages.evaluate import evaluation
from tests.stand_ins import (
    Encoder,
    Renderer,
    Scorer,
    files_of,
    fine_tune,
    models,
    recipe_of,
    run_without_report,
    stand_in_trainings,
)

pytestmark = pytest.mark.usefixtures("stand_in_trainings")


def _evaluated(recipe: Recipe, run: Path) -> dict[str, list[EvaluationRow]]:
    """Method to its rows."""
    found: dict[str, list[EvaluationRow]] = {}
    for row in evaluation_rows(evaluation(recipe), Run(run, recipe, models())):
        found.setdefault(row.method, []).append(row)
    return found


# ------------------------------------------------------------------------------------------------- tests


def test_a_run_makes_every_stage(finished: Path) -> None:
    run = finished / "run"
    candidates = store.read_rows(run / "candidates", Candidate)
    scores = store.read_rows(run / "label", Score)
    assert [c.candidate_id for c in candidates] == [s.candidate_id for s in scores]
    assert len(list((run / "label").glob("part-*.parquet"))) == 5
    counts = store.counts(run / "candidates")
    assert counts["kept"] + counts["duplicates"] + counts["empty"] == 20 * 4
    assert counts["duplicates"] > 0
    pairs = store.read_rows(run / "drift", Pair)
    counted = store.counts(run / "pairs")
    assert counted["kept"] == counted["rows"] == len(pairs)
    assert sum(counted[name] for name in ("kept", "tied", "below_margin", "single")) == 20
    assert all(pair.distance is not None for pair in pairs)
    rows = _evaluated(recipe_of(finished), run)
    assert list(rows) == ["human", "sft", "dpo", "sem_dpo", "sft_sampled", "dpo_sampled", "sem_dpo_sampled"]
    assert {len(each) for each in rows.values()} == {6 * 2}
    assert [r.image_seed for r in rows["dpo"]] == [r.image_seed for r in rows["sem_dpo"]]
    assert sum(r.image is not None for r in rows["dpo"]) == 5, "kept images are counted over shards"
    assert all(r.rewrite == r.prompt for r in rows["human"])
    # Single rewrites of the stand-in may be equal by chance; all of them are not.
    assert [r.rewrite for r in rows["dpo"]] != [r.rewrite for r in rows["sem_dpo"]]
    curves = parquet.read_file(run / "train" / "sem_dpo" / "curves.parquet", Curve)
    assert {c.method for c in curves} == {"sem_dpo"}
    page = pipeline.report_path(run).read_text()
    assert "Sem-DPO on the embedded tiny world" in page


def test_two_runs_are_identical(finished: Path, tmp_path: Path) -> None:
    run_without_report(recipe_of(finished), tmp_path / "again", models())
    again, first = files_of(tmp_path / "again"), files_of(finished / "run")
    assert again.keys() == first.keys()
    assert len(again) > 30
    assert [name for name in again if again[name] != first[name]] == []


@pytest.mark.slow
def test_a_finished_run_loads_no_model_and_changes_nothing(finished: Path) -> None:
    before = files_of(finished / "run")

    def never(*_: object) -> None:
        raise AssertionError("a model was loaded")

    idle = replace(models(), renderer=never, scorer=never, encoder=never, rewriter=never)
    with pytest.MonkeyPatch.context() as patch:
        for training in ("fine_tune.fine_tune", "preference.train", "losses.losses_of"):
            patch.setattr(f"semdpo.training.{training}", never)
        pipeline.run(recipe_of(finished), finished / "run", models=idle)
    assert files_of(finished / "run") == before


@pytest.mark.slow
def test_killed_in_label_and_resumed_it_ends_with_the_same_bytes(finished: Path, tmp_path: Path) -> None:
    run = tmp_path / "killed"
    script = [sys.executable, "-m", "tests.test_pipeline", str(finished), str(run), "0.1"]
    victim = subprocess.Popen(script, cwd=Path(__file__).parents[1], stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while not shard_files.is_noted(run / "label", 1):
            assert time.monotonic() < deadline
            assert victim.poll() is None, "the run ended before it could be killed"
            time.sleep(0.01)
        with pytest.raises(StoreError, match=f"in use by process {victim.pid}"):
            pipeline.run(recipe_of(finished), run, models=models())
    finally:
        os.kill(victim.pid, signal.SIGKILL)
        victim.wait()
    assert not store.is_complete(run / "label")
    done = [
        shard_files.shard_path(run / "label", index) for index in range(5) if shard_files.is_noted(run / "label", index)
    ]
    assert 2 <= len(done) < 5
    times = [path.stat().st_mtime_ns for path in done]
    (run / "label" / ".part-00004.parquet.0123456789abcdef.tmp").write_bytes(b"half")
    pipeline.run(recipe_of(finished), run, models=models())
    assert [path.stat().st_mtime_ns for path in done] == times, "finished shards are not made again"
    assert files_of(run) == files_of(finished / "run")


def test_a_fidelity_judge_scores_the_same_images_for_the_additive_objective(tmp_path: Path) -> None:
    additive, compared = (
        "train.methods={additive: {name: additive}}",
        ("report.subject=additive", "report.baseline=sft"),
    )
    with pytest.raises(ConfigError, match=r"train\.methods\.additive is additive; set label\.fidelity"):
        recipe_of(tmp_path, additive, *compared)
    recipe = recipe_of(tmp_path, additive, *compared, "label.fidelity=faithful")
    run_without_report(recipe, tmp_path / "run", models(), last="train")
    by_scorer: dict[str, dict[str, float]] = {}
    for score in store.read_rows(tmp_path / "run/label", Score):
        by_scorer.setdefault(score.scorer, {})[score.candidate_id] = score.score
    assert by_scorer.keys() == {recipe.label.scorer, "faithful"}
    assert by_scorer["faithful"].keys() == by_scorer[recipe.label.scorer].keys()
    pairs = store.read_rows(tmp_path / "run/drift", Pair)
    assert pairs
    # The stand-in scorers agree, so fidelities are the scores again.
    assert all(each.chosen_fidelity == each.chosen_score for each in pairs)
    assert all(each.rejected_fidelity == each.rejected_score for each in pairs)


def test_a_prompts_rows_do_not_depend_on_the_shards(finished: Path, tmp_path: Path) -> None:
    def rows(folder: Path) -> list[set[object]]:
        kinds = {"candidates": Candidate, "label": Score, "drift": Pair, "evaluate/sft/images": RenderedImage}
        return [set(store.read_rows(folder / name, kind)) for name, kind in kinds.items()]

    sizes = ("candidates.shard_size=3", "label.shard_size=5", "evaluate.shard_size=5")
    run_without_report(recipe_of(finished, *sizes), tmp_path / "run", models())
    assert rows(tmp_path / "run") == rows(finished / "run")
    run_without_report(recipe_of(finished, *sizes, "prompts.limit=6"), tmp_path / "few", models(), last="label")
    whole = set(store.read_rows(finished / "run" / "candidates", Candidate))
    few = store.read_rows(tmp_path / "few" / "candidates", Candidate)
    assert len({row.prompt_id for row in few}) == 6
    assert set(few) < whole


def test_a_stage_that_fails_is_resumed_and_loads_only_what_it_needs(finished: Path, tmp_path: Path) -> None:
    class Failing(Renderer):
        def render(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[Image.Image]:
            if self.calls == 3:
                raise DataError("the third time, it fails")
            return super().render(prompts, seeds)

    failing = Failing(0.0)
    with pytest.raises(DataError, match="third time"):
        pipeline.run(recipe_of(finished), tmp_path / "run", models=replace(models(), renderer=lambda _: failing))
    run_without_report(recipe_of(finished), tmp_path / "run", models())
    assert files_of(tmp_path / "run") == files_of(finished / "run")


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("label.renderer.guidance=3", r"label was made with renderer\.guidance = 3\.5, which is now 3\.0; add --fresh"),
        ("label.scorer=other", r"label was made with scorer = \"tiny:image-reward\", which is now \"other\""),
        ("train.methods.sem_dpo.alpha=2", r"sem_dpo was made with objective\.alpha = 4\.0, which is now 2\.0"),
        (
            "evaluate.image_seeds=[3]",
            r"evaluate/human/images was made with image_seeds = \[0, 1\], which is now \[3\]",
        ),
    ],
)
def test_a_changed_recipe_is_refused_before_any_work(finished: Path, override: str, said: str) -> None:
    before = files_of(finished / "run")
    with pytest.raises(StoreError, match=said):
        pipeline.run(recipe_of(finished, override), finished / "run", models=models())
    assert files_of(finished / "run") == before


def test_a_changed_input_file_or_model_is_refused(tmp_path: Path) -> None:
    run_without_report(recipe_of(tmp_path), tmp_path / "run", models(), last="label")
    changed = replace(models(), fingerprint=lambda name: name.replace("sd", "sd, trained again"))
    with pytest.raises(StoreError, match=r"label was made from a different version of label\.renderer\.model"):
        pipeline.run(recipe_of(tmp_path), tmp_path / "run", models=changed)
    (tmp_path / "ask.txt").write_text("other\nprompts\n")
    with pytest.raises(StoreError, match=r"prompts was made from a different version of prompts\.file"):
        pipeline.run(recipe_of(tmp_path), tmp_path / "run", models=models())


@pytest.mark.slow
def test_a_finished_stage_that_was_changed_by_hand_is_noticed(finished: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(finished / "run", tmp_path / "run"))
    recipe = recipe_of(finished)
    weights = run / "sft" / "weights.txt"
    weights.write_text(weights.read_text()[::-1])
    for only in (None, "report"):
        with pytest.raises(StoreError, match=r"sft holds a damaged or edited weights\.txt .* add --fresh"):
            pipeline.run(recipe, run, only=only, models=models())
    with pytest.raises(StoreError, match=r"train/sem_dpo was made with .*alpha = 4.0, which is now 2.0"):
        pipeline.run(recipe_of(finished, "train.methods.sem_dpo.alpha=2"), finished / "run", only="report")
    with pytest.raises(StoreError, match=r"sft holds a damaged or edited weights\.txt"):
        pipeline.run(recipe, run, only="candidates", fresh=True, models=models())
    pipeline.run(recipe, run, fresh=True, models=models())
    assert weights.read_text() == (finished / "run" / "sft" / "weights.txt").read_text()


def test_pairs_and_rewriters_name_the_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def writing(*given: Any) -> list[Curve]:
        write_settings(given[2], RewriterSettings("{prompt} ->", 50))
        return fine_tune(*given)

    monkeypatch.setattr("semdpo.training.fine_tune.fine_tune", writing)
    parts = replace(models(), fingerprint=lambda name: f"content of {name}")
    run_without_report(recipe_of(tmp_path), tmp_path / "run", parts, last="drift")
    rows = store.read_rows(tmp_path / "run" / "drift", Pair)
    assert {(row.encoder, row.encoder_fingerprint) for row in rows} == {("tiny:clip", "content of tiny:clip")}
    assert read_settings(tmp_path / "run" / "sft") == RewriterSettings("{prompt} ->", 50, "tiny:clip")


@pytest.mark.slow
def test_fresh_makes_anew_what_changed_and_what_follows_from_it(finished: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run_without_report(recipe_of(finished), run, models())
    made = {path: path.stat().st_mtime_ns for path in run.rglob("manifest.json")}
    changed = recipe_of(finished, "train.methods.sem_dpo.alpha=2")
    pipeline.run(changed, run, fresh=True, models=models())
    again = {path.parent.relative_to(run).as_posix() for path, at in made.items() if path.stat().st_mtime_ns != at}
    results = ("images", "consistency", *changed.evaluate.metrics)
    own = {f"evaluate/{method}/{name}" for method in ("sem_dpo", "sem_dpo_sampled") for name in results}
    assert again == {"train/sem_dpo", "losses/sem_dpo", *own}
    pipeline.run(changed, run, only="drift", fresh=True, models=models())
    assert store.is_complete(run / "drift")
    assert store.is_complete(run / "evaluate/sft/images")
    assert not store.is_complete(run / "train/dpo")
    assert not store.is_complete(run / "evaluate/dpo/images")


@pytest.mark.slow
def test_a_new_metric_or_method_adds_only_its_own_work(finished: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    metrics = {"clip": "tiny:clip", "hps": "tiny:hps"}
    shown = ("report.fidelity=[clip]", "report.preference=[hps]", "sweep=null")
    pipeline.run(recipe_of(finished, f"evaluate.metrics={metrics}", *shown), run, models=models())
    before = {path: path.stat().st_mtime_ns for path in run.rglob("part-*.parquet")}
    renderer, loaded = Renderer(0.0), []

    def scorer(name: str, scoring: object) -> Scorer:
        loaded.append(name)
        return Scorer()

    watched = replace(models(), renderer=lambda _: renderer, scorer=scorer)
    more = f"evaluate.metrics={metrics | {'jina': 'tiny:clip-b'}}"
    third = "train.methods={dpo: {name: dpo}, sem_dpo: {name: sem_dpo, alpha: 4.0}, kto: {name: kto}}"
    own = ("report.fidelity=[clip, jina]", "report.preference=[hps]", "sweep=null")
    pipeline.run(recipe_of(finished, more, *own), run, models=watched)
    assert (renderer.calls, set(loaded)) == (0, {"tiny:clip-b"})
    loaded.clear()
    recipe = recipe_of(finished, more, third, *own)
    pipeline.run(recipe, run, models=watched)
    assert renderer.calls == 4, "two shards of the new method, for each decoding"
    assert loaded == [*["tiny:clip"] * 4, *["tiny:hps"] * 2, *["tiny:clip-b"] * 2], "one scorer after the other"
    assert [path for path, at in before.items() if path.stat().st_mtime_ns != at] == []
    rows = _evaluated(recipe, run)
    assert list(rows["kto"][0].metrics) == ["clip", "hps", "jina"]
    assert [(r.prompt_id, r.image_seed) for r in rows["kto"]] == [(r.prompt_id, r.image_seed) for r in rows["human"]]


def test_only_one_stage(finished: Path, tmp_path: Path) -> None:
    run, recipe = tmp_path / "run", recipe_of(finished)
    with pytest.raises(StoreError, match=r"stage candidates needs prompts, which is not finished"):
        pipeline.run(recipe, run, only="candidates", models=models())
    pipeline.run(recipe, run, only="prompts", models=models())
    pipeline.run(recipe, run, only="sft", models=models())
    pipeline.run(recipe, run, only="candidates", models=models())
    assert not (run / "label").exists()
    with pytest.raises(ConfigError, match=r"there is no stage 'candidate'; did you mean 'candidates'\?"):
        pipeline.run(recipe, run, only="candidate", models=models())
    with pytest.raises(StoreError, match="the report needs label"):
        pipeline.run(recipe, run, only="report", models=models())


def test_prompts_that_the_encoder_does_not_know_are_refused_first(tmp_path: Path) -> None:
    class Foreign(Encoder):
        def encode(self, texts: Sequence[str]) -> Embeddings:
            return replace(super().encode(texts), unknown=np.full(len(texts), 0.7, np.float32))

    with pytest.raises(DataError, match="70% of the words here are unknown; give a CLIP"):
        pipeline.run(recipe_of(tmp_path), tmp_path / "run", models=replace(models(), encoder=lambda name: Foreign()))
    assert not (tmp_path / "run" / "sft").exists()


def test_an_unknown_model_or_file_is_refused_before_any_work(tmp_path: Path) -> None:
    def fingerprint(name: str) -> str:
        if name == "tiny:blip-itm":
            raise ModelError("there is no model 'tiny:blip-itm'")
        return name

    with pytest.raises(ModelError, match="blip-itm"):
        pipeline.run(recipe_of(tmp_path), tmp_path / "run", models=replace(models(), fingerprint=fingerprint))
    with pytest.raises(DataError, match=r"there is no file absent\.jsonl"):
        pipeline.run(recipe_of(tmp_path, "sft.file=absent.jsonl"), tmp_path / "run", models=models())
    assert not (tmp_path / "run" / "prompts").exists()


@pytest.mark.parametrize(
    "failure",
    [
        lambda: OSError(28, "No space left on device"),
        lambda: RuntimeError('IoError(Os { code: 28, kind: StorageFull, message: "No space left on device" })'),
    ],
)
def test_a_disk_that_fills_while_training_is_told_and_leaves_no_model(
    tmp_path: Path, failure: Callable[[], Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(pairs: object, config: object, output: Path, progress: Progress) -> list[Curve]:
        (output / "weights.txt").write_text("half")
        raise failure()

    with monkeypatch.context() as patch:
        patch.setattr("semdpo.training.fine_tune.fine_tune", full)
        with pytest.raises(StoreError, match="there is no space left to write"):
            pipeline.run(recipe_of(tmp_path), tmp_path / "run", models=models())
    assert not (tmp_path / "run" / "sft").exists()
    pipeline.run(recipe_of(tmp_path), tmp_path / "run", only="sft", models=models())
    assert store.is_complete(tmp_path / "run" / "sft")


def test_time_before_a_kill_is_counted(tmp_path: Path) -> None:
    folder = tmp_path / "sft"
    clock = timing.Clock(folder)
    time.sleep(0.05)
    clock.tick(every=0)
    again = timing.Clock(folder)  # the process was killed; another one goes on
    assert again.seconds >= 0.05
    again.tick(every=0)
    model_folders.remove_time_note(folder)
    assert timing.Clock(folder).seconds < 0.05
    assert list(tmp_path.iterdir()) == []


def test_stages_report_their_counts_and_seconds(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert timing.seconds(finished / "run" / "label") > 0
    pipeline.run(recipe_of(finished), finished / "run", models=models())
    said = capsys.readouterr().err
    assert "[1/24] prompts: 20 prompts to train on and 6 held out; already finished" in said
    assert "[24/24] report: " in said


if __name__ == "__main__":
    stand_in_trainings(pytest.MonkeyPatch())
    pipeline.run(recipe_of(Path(sys.argv[1])), Path(sys.argv[2]), models=models(float(sys.argv[3])))
