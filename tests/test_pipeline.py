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
import pandas as pd
import pytest
from PIL import Image

from semdpo import parquet, pipeline, store, timing
from semdpo.config import Recipe, SFTConfig, TrainConfig
from semdpo.errors import ConfigError, DataError, ModelError, StoreError
from semdpo.flow import evaluation, flow
from semdpo.gather import _has_sweep, report_data
from semdpo.models.kept import Kept, read, write
from semdpo.models_config import DecodingConfig, RendererConfig
from semdpo.objective import ObjectiveConfig
from semdpo.parts import Parts
from semdpo.progress import Progress
from semdpo.protocols import Embeddings, ScoreBatch
from semdpo.recipe import load_recipe
from semdpo.records import Candidate, Curve, EvaluationRow, Pair, PairLoss, Picture, Prompt, Score, content_seed
from semdpo.stage import Run

# ------------------------------------------------------------------------------------------------- stand-ins


class Rewriter:
    def __init__(self, folder: Path) -> None:
        self.weights = (folder / "weights.txt").read_text()

    def rewrite(self, prompts: Sequence[str], n: int, seed: int) -> list[list[str]]:
        def one(prompt: str, index: int) -> str:
            return f"{prompt}, style {content_seed(prompt, str(index), str(seed), self.weights) % 7}"

        return [[one(prompt, index) for index in range(n)] for prompt in prompts]

    def tokens(self, texts: Sequence[str]) -> list[int]:
        return [len(text.split()) for text in texts]


class Renderer:
    def __init__(self, delay: float) -> None:
        self.delay, self.calls = delay, 0

    def render(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[Image.Image]:
        self.calls += 1
        time.sleep(self.delay)
        seeds = [content_seed(prompt, str(seed)) for prompt, seed in zip(prompts, seeds, strict=True)]
        return [Image.fromarray(np.random.default_rng(s).integers(0, 255, (8, 8, 3), np.uint8)) for s in seeds]


class Scorer:
    """Its values lie in [-1, 1], for one of the judges it stands in for gives cosines."""

    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> ScoreBatch:
        values = [np.asarray(i).mean() / 255 + len(text) / 1000 for i, text in zip(images, prompts, strict=True)]
        return ScoreBatch(np.array(values, np.float32), np.zeros(len(prompts), bool))


class Encoder:
    def encode(self, texts: Sequence[str]) -> Embeddings:
        rows = [np.random.default_rng(content_seed(text)).normal(size=8) for text in texts]
        vectors = np.array([row / np.linalg.norm(row) for row in rows], np.float32)
        return Embeddings(vectors, np.zeros(len(texts), bool))


def _fine_tune(pairs: Sequence[tuple[str, str]], config: SFTConfig, output: Path, progress: Progress) -> list[Curve]:
    (output / "weights.txt").write_text(f"sft {len(pairs)} {config.seed}")
    return [Curve("sft", step, "loss", 1 / (step + 1)) for step in range(3)]


def _train(
    pairs: Sequence[Pair],
    model: str,
    objective: ObjectiveConfig,
    config: TrainConfig,
    output: Path,
    cache: Path,
    progress: Progress,
) -> list[Curve]:
    started = (Path(model) / "weights.txt").read_text()
    (output / "weights.txt").write_text(f"{started} {objective.model_dump()} {len(pairs)}")
    return [Curve(objective.name, step, "loss", 0.7 / (step + 1)) for step in range(3)]


def _losses(
    pairs: Sequence[Pair],
    policy: str,
    reference: str,
    beta: float,
    config: TrainConfig,
    cache: Path,
    progress: Progress,
) -> list[PairLoss]:
    return [PairLoss(each.pair_id, float(each.distance or 0), beta * i) for i, each in enumerate(pairs)]


def _parts(delay: float = 0.0) -> Parts:
    renderer = Renderer(delay)

    def make_renderer(config: RendererConfig) -> Renderer:
        return renderer

    def make_rewriter(model: str, template: str | None, decoding: DecodingConfig) -> Rewriter:
        return Rewriter(Path(model))

    return Parts(
        fine_tune=_fine_tune,
        train=_train,
        losses=_losses,
        rewriter=make_rewriter,
        renderer=make_renderer,
        scorer=lambda name, scoring: Scorer(),
        encoder=lambda name: Encoder(),
        fingerprint=lambda name: name,
    )


def _recipe(folder: Path, *overrides: str) -> Recipe:
    files = {"ask": [f"a thing {i}" for i in range(20)], "held": [f"another {i}" for i in range(6)]}
    for name, lines in files.items():
        if not (folder / f"{name}.txt").exists():
            (folder / f"{name}.txt").write_text("\n".join(lines))
    (folder / "rewrites.jsonl").write_text('{"prompt": "a", "rewrite": "b"}\n')
    settings = [
        f"prompts.file={folder}/ask.txt",
        f"prompts.test_file={folder}/held.txt",
        f"sft.file={folder}/rewrites.jsonl",
        "candidates.shard_size=4",
        "label.shard_size=4",
        "label.batch_size=4",
        "evaluate.shard_size=4",
        "evaluate.keep_images=5",
    ]
    return load_recipe("tiny", [*settings, *overrides])


def _files(run: Path) -> dict[str, bytes]:
    """All files that must not depend on how often a run was interrupted."""
    ignored = {"timing.json", ".lock"}
    return {
        path.relative_to(run).as_posix(): path.read_bytes()
        for path in sorted(run.rglob("*"))
        if path.is_file() and path.name not in ignored and "report" not in path.parts
    }


def _run_without_report(recipe: Recipe, run: Path, parts: Parts, last: str = "evaluate") -> None:
    """Drawing the report's plots takes longer than all the rest."""
    for stage in ("prompts", "sft", "candidates", "label", "pairs", "weigh", "train", "losses", "evaluate"):
        pipeline.run(recipe, run, only=stage, parts=parts)
        if stage == last:
            return


def _evaluated(recipe: Recipe, run: Path) -> dict[str, list[EvaluationRow]]:
    """Method to its rows."""
    found: dict[str, list[EvaluationRow]] = {}
    for row in evaluation(recipe).rows(Run(run, recipe, _parts())):
        found.setdefault(row.method, []).append(row)
    return found


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an undisturbed run in ``run``; not to be changed."""
    folder = tmp_path_factory.mktemp("finished")
    pipeline.run(_recipe(folder), folder / "run", parts=_parts())
    return folder


# ------------------------------------------------------------------------------------------------- tests


def test_a_run_makes_every_stage(finished: Path) -> None:
    run = finished / "run"
    candidates = store.read_rows(run / "candidates", Candidate)
    scores = store.read_rows(run / "label", Score)
    assert [c.candidate_id for c in candidates] == [s.candidate_id for s in scores]
    assert len(list((run / "label").glob("part-*.parquet"))) == 5
    counts = store.row_counts(run / "candidates")
    assert counts["kept"] + counts["duplicates"] + counts["empty"] == 20 * 4
    assert counts["duplicates"] > 0
    pairs = store.read_rows(run / "weigh", Pair)
    counted = store.row_counts(run / "pairs")
    assert counted["kept"] == counted["rows"] == len(pairs)
    assert sum(counted[name] for name in ("kept", "tied", "below_margin", "single")) == 20
    assert all(pair.distance is not None for pair in pairs)
    rows = _evaluated(_recipe(finished), run)
    assert list(rows) == ["human", "sft", "dpo", "sem_dpo"]
    assert {len(each) for each in rows.values()} == {6 * 2}
    assert [r.image_seed for r in rows["dpo"]] == [r.image_seed for r in rows["sem_dpo"]]
    assert sum(r.image is not None for r in rows["dpo"]) == 5, "kept pictures are counted over shards"
    assert all(r.rewrite == r.prompt for r in rows["human"])
    # Single rewrites of the stand-in may be equal by chance; all of them are not.
    assert [r.rewrite for r in rows["dpo"]] != [r.rewrite for r in rows["sem_dpo"]]
    curves = parquet.read_file(run / "train" / "sem_dpo" / "curves.parquet", Curve)
    assert {c.method for c in curves} == {"sem_dpo"}
    page = pipeline.report_path(run).read_text()
    assert "Sem-DPO on the embedded tiny world" in page


def test_two_runs_are_identical(finished: Path, tmp_path: Path) -> None:
    _run_without_report(_recipe(finished), tmp_path / "again", _parts())
    again, first = _files(tmp_path / "again"), _files(finished / "run")
    assert again.keys() == first.keys()
    assert len(again) > 30
    assert [name for name in again if again[name] != first[name]] == []


@pytest.mark.slow
def test_a_finished_run_loads_no_model_and_changes_nothing(finished: Path) -> None:
    before = _files(finished / "run")

    def never(*_: object) -> None:
        raise AssertionError("a model was loaded")

    idle = replace(_parts(), renderer=never, scorer=never, encoder=never, rewriter=never, train=never, fine_tune=never)
    pipeline.run(_recipe(finished), finished / "run", parts=idle)
    assert _files(finished / "run") == before


@pytest.mark.slow
def test_killed_in_label_and_resumed_it_ends_with_the_same_bytes(finished: Path, tmp_path: Path) -> None:
    run = tmp_path / "killed"
    victim = subprocess.Popen([sys.executable, __file__, str(finished), str(run), "0.1"], stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while not (run / "label" / "part-00001.parquet").is_file():
            assert time.monotonic() < deadline
            assert victim.poll() is None, "the run ended before it could be killed"
            time.sleep(0.01)
        with pytest.raises(StoreError, match=f"in use by process {victim.pid}"):
            pipeline.run(_recipe(finished), run, parts=_parts())
    finally:
        os.kill(victim.pid, signal.SIGKILL)
        victim.wait()
    assert not store.is_complete(run / "label")
    done = sorted((run / "label").glob("part-*.parquet"))
    assert 2 <= len(done) < 5
    times = [path.stat().st_mtime_ns for path in done]
    (run / "label" / ".part-00004.parquet.0123456789abcdef.tmp").write_bytes(b"half")
    pipeline.run(_recipe(finished), run, parts=_parts())
    assert [path.stat().st_mtime_ns for path in done] == times, "finished shards are not made again"
    assert _files(run) == _files(finished / "run")


def test_a_fidelity_judge_scores_the_same_pictures_for_the_additive_objective(tmp_path: Path) -> None:
    additive, compared = (
        "train.methods={additive: {name: additive}}",
        ("report.subject=additive", "report.baseline=sft"),
    )
    with pytest.raises(ConfigError, match=r"train\.methods\.additive is additive; set label\.fidelity"):
        _recipe(tmp_path, additive, *compared)
    recipe = _recipe(tmp_path, additive, *compared, "label.fidelity=faithful")
    _run_without_report(recipe, tmp_path / "run", _parts(), last="train")
    by_judge: dict[str, dict[str, float]] = {}
    for score in store.read_rows(tmp_path / "run/label", Score):
        by_judge.setdefault(score.scorer, {})[score.candidate_id] = score.score
    assert by_judge.keys() == {recipe.label.scorer, "faithful"}
    assert by_judge["faithful"].keys() == by_judge[recipe.label.scorer].keys()
    pairs = store.read_rows(tmp_path / "run/weigh", Pair)
    assert pairs
    # The stand-in judges agree, so fidelities are the scores again.
    assert all(each.chosen_fidelity == each.chosen_score for each in pairs)
    assert all(each.rejected_fidelity == each.rejected_score for each in pairs)


def test_a_prompts_rows_do_not_depend_on_the_shards(finished: Path, tmp_path: Path) -> None:
    def rows(folder: Path) -> list[set[object]]:
        kinds = {"candidates": Candidate, "label": Score, "weigh": Pair, "evaluate/sft/pictures": Picture}
        return [set(store.read_rows(folder / name, kind)) for name, kind in kinds.items()]

    sizes = ("candidates.shard_size=3", "label.shard_size=5", "evaluate.shard_size=5")
    _run_without_report(_recipe(finished, *sizes), tmp_path / "run", _parts())
    assert rows(tmp_path / "run") == rows(finished / "run")
    _run_without_report(_recipe(finished, *sizes, "prompts.limit=6"), tmp_path / "few", _parts(), last="label")
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
        pipeline.run(_recipe(finished), tmp_path / "run", parts=replace(_parts(), renderer=lambda _: failing))
    _run_without_report(_recipe(finished), tmp_path / "run", _parts())
    assert _files(tmp_path / "run") == _files(finished / "run")


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("label.renderer.guidance=3", r"label was made with renderer\.guidance = 3\.5, which is now 3\.0; add --fresh"),
        ("label.scorer=other", r"label was made with scorer = \"tiny:image-reward\", which is now \"other\""),
        ("train.methods.sem_dpo.alpha=2", r"sem_dpo was made with objective\.alpha = 4\.0, which is now 2\.0"),
        (
            "evaluate.image_seeds=[3]",
            r"evaluate/human/pictures was made with image_seeds = \[0, 1\], which is now \[3\]",
        ),
    ],
)
def test_a_changed_recipe_is_refused_before_any_work(finished: Path, override: str, said: str) -> None:
    before = _files(finished / "run")
    with pytest.raises(StoreError, match=said):
        pipeline.run(_recipe(finished, override), finished / "run", parts=_parts())
    assert _files(finished / "run") == before


def test_a_changed_input_file_or_model_is_refused(tmp_path: Path) -> None:
    _run_without_report(_recipe(tmp_path), tmp_path / "run", _parts(), last="label")
    changed = replace(_parts(), fingerprint=lambda name: name.replace("sd", "sd, trained again"))
    with pytest.raises(StoreError, match=r"label was made from another label\.renderer\.model"):
        pipeline.run(_recipe(tmp_path), tmp_path / "run", parts=changed)
    (tmp_path / "ask.txt").write_text("other\nprompts\n")
    with pytest.raises(StoreError, match=r"prompts was made from another prompts\.file"):
        pipeline.run(_recipe(tmp_path), tmp_path / "run", parts=_parts())


@pytest.mark.slow
def test_a_finished_stage_that_was_changed_by_hand_is_noticed(finished: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(finished / "run", tmp_path / "run"))
    recipe = _recipe(finished)
    weights = run / "sft" / "weights.txt"
    weights.write_text(weights.read_text()[::-1])
    for only in (None, "report"):
        with pytest.raises(StoreError, match=r"sft holds a damaged or edited weights\.txt .* add --fresh"):
            pipeline.run(recipe, run, only=only, parts=_parts())
    with pytest.raises(StoreError, match=r"train/sem_dpo was made with .*alpha = 4.0, which is now 2.0"):
        pipeline.run(_recipe(finished, "train.methods.sem_dpo.alpha=2"), finished / "run", only="report")
    with pytest.raises(StoreError, match=r"sft holds a damaged or edited weights\.txt"):
        pipeline.run(recipe, run, only="candidates", fresh=True, parts=_parts())
    pipeline.run(recipe, run, fresh=True, parts=_parts())
    assert weights.read_text() == (finished / "run" / "sft" / "weights.txt").read_text()


def test_pairs_and_rewriters_name_the_encoder(tmp_path: Path) -> None:
    def fine_tune(*given: Any) -> list[Curve]:
        write(given[2], Kept("{prompt} ->", 50))
        return _fine_tune(*given)

    parts = replace(_parts(), fine_tune=fine_tune, fingerprint=lambda name: f"content of {name}")
    _run_without_report(_recipe(tmp_path), tmp_path / "run", parts, last="weigh")
    rows = store.read_rows(tmp_path / "run" / "weigh", Pair)
    assert {(row.encoder, row.encoder_fingerprint) for row in rows} == {("tiny:clip", "content of tiny:clip")}
    assert read(tmp_path / "run" / "sft") == Kept("{prompt} ->", 50, "tiny:clip")


@pytest.mark.slow
def test_fresh_makes_anew_what_changed_and_what_follows_from_it(finished: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    _run_without_report(_recipe(finished), run, _parts())
    made = {path: path.stat().st_mtime_ns for path in run.rglob("manifest.json")}
    changed = _recipe(finished, "train.methods.sem_dpo.alpha=2")
    pipeline.run(changed, run, fresh=True, parts=_parts())
    again = {path.parent.relative_to(run).as_posix() for path, at in made.items() if path.stat().st_mtime_ns != at}
    own = {f"evaluate/sem_dpo/{name}" for name in ("pictures", "consistency", *changed.evaluate.metrics)}
    assert again == {"train/sem_dpo", "losses/sem_dpo", *own}
    pipeline.run(changed, run, only="weigh", fresh=True, parts=_parts())
    assert store.is_complete(run / "weigh")
    assert store.is_complete(run / "evaluate/sft/pictures")
    assert not store.is_complete(run / "train/dpo")
    assert not store.is_complete(run / "evaluate/dpo/pictures")


@pytest.mark.slow
def test_a_new_metric_or_method_adds_only_its_own_work(finished: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    metrics = {"clip": "tiny:clip", "hps": "tiny:hps"}
    shown = ("report.fidelity=[clip]", "report.preference=[hps]", "sweep=null")
    pipeline.run(_recipe(finished, f"evaluate.metrics={metrics}", *shown), run, parts=_parts())
    before = {path: path.stat().st_mtime_ns for path in run.rglob("part-*.parquet")}
    renderer, loaded = Renderer(0.0), []

    def scorer(name: str, scoring: object) -> Scorer:
        loaded.append(name)
        return Scorer()

    watched = replace(_parts(), renderer=lambda _: renderer, scorer=scorer)
    more = f"evaluate.metrics={metrics | {'jina': 'tiny:clip-b'}}"
    third = "train.methods={dpo: {name: dpo}, sem_dpo: {name: sem_dpo, alpha: 4.0}, kto: {name: kto}}"
    own = ("report.fidelity=[clip, jina]", "report.preference=[hps]", "sweep=null")
    pipeline.run(_recipe(finished, more, *own), run, parts=watched)
    assert (renderer.calls, set(loaded)) == (0, {"tiny:clip-b"})
    loaded.clear()
    recipe = _recipe(finished, more, third, *own)
    pipeline.run(recipe, run, parts=watched)
    assert renderer.calls == 2, "two shards of the new method"
    assert loaded == ["tiny:clip", "tiny:clip", "tiny:hps", "tiny:clip-b"], "one judge after the other"
    assert [path for path, at in before.items() if path.stat().st_mtime_ns != at] == []
    rows = _evaluated(recipe, run)
    assert list(rows["kto"][0].metrics) == ["clip", "hps", "jina"]
    assert [(r.prompt_id, r.image_seed) for r in rows["kto"]] == [(r.prompt_id, r.image_seed) for r in rows["human"]]


def test_a_sweep_uses_what_is_there_and_tunes_on_prompts_of_its_own(finished: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    (tmp_path / "tune.txt").write_text("\n".join(["another 1", "a thing 3", *(f"tune {i}" for i in range(12))]))
    section = (
        f"sweep.prompts={{file: {tmp_path}/tune.txt, limit: 8}}", "sweep.alphas=[0, 2, 8]", "sweep.image_seeds=[7]",
    )  # fmt: skip
    recipe = _recipe(finished, *section)
    _run_without_report(recipe, run, _parts(), last="weigh")
    before = {path: path.stat().st_mtime_ns for path in run.rglob("part-*.parquet")}
    page = pipeline.sweep(recipe, run, parts=_parts())
    assert [path for path, at in before.items() if path.stat().st_mtime_ns != at] == []
    tuning = store.read_rows(run / "sweep/prompts", Prompt)
    assert len(tuning) == 8
    assert {each.split for each in tuning} == {"tune"}
    used = {each.prompt_id for each in store.read_rows(run / "prompts", Prompt)}
    assert used.isdisjoint(each.prompt_id for each in tuning)
    assert store.row_counts(run / "sweep/prompts")["used_elsewhere"] == 2
    table = pd.read_csv(page.parent / "tables/figure5_sweep.csv")
    assert {each.suffix for each in page.parent.rglob("*sweep.*")} == {".html", ".csv", ".tex", ".png", ".svg"}
    assert table["alpha"].tolist() == [0, 2, 8]
    assert table["chosen"].sum() == 1
    assert table["effective_share"].tolist() == sorted(table["effective_share"], reverse=True)
    assert "Take α" in page.read_text()
    assert not (run / "train").exists(), "the recipe's own methods are not part of a sweep"
    assert _has_sweep(Run(run, recipe, _parts()))
    assert not _has_sweep(Run(run, _recipe(finished, *section, "sweep.image_seeds=[8]"), _parts())), "another sweep"
    other = _recipe(finished, *section, "pairs.margin=0.01")
    pipeline.run(other, run, only="pairs", fresh=True, parts=_parts())
    pipeline.run(other, run, only="weigh", parts=_parts())
    assert not _has_sweep(Run(run, other, _parts())), "its pairs are no more"
    with pytest.raises(ConfigError, match="has no section 'sweep'"):
        pipeline.sweep(_recipe(finished, "sweep=null"), run, parts=_parts())


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("sweep.image_seeds=[0, 7]", r"image_seeds has \[0\], which the report shows"),
        ("sweep.fidelity=jina", "names 'jina', which is none of evaluate.metrics"),
        ("sweep.alphas=[1, 1]", "only once"),
    ],
)
def test_a_sweep_keeps_tuning_and_reporting_apart(finished: Path, override: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        _recipe(finished, override)


def test_only_one_stage(finished: Path, tmp_path: Path) -> None:
    run, recipe = tmp_path / "run", _recipe(finished)
    with pytest.raises(StoreError, match=r"stage candidates needs prompts, which is not finished"):
        pipeline.run(recipe, run, only="candidates", parts=_parts())
    pipeline.run(recipe, run, only="prompts", parts=_parts())
    pipeline.run(recipe, run, only="sft", parts=_parts())
    pipeline.run(recipe, run, only="candidates", parts=_parts())
    assert not (run / "label").exists()
    with pytest.raises(ConfigError, match=r"there is no stage 'candidate'; did you mean 'candidates'\?"):
        pipeline.run(recipe, run, only="candidate", parts=_parts())
    with pytest.raises(StoreError, match="the report needs label"):
        pipeline.run(recipe, run, only="report", parts=_parts())


def test_prompts_that_the_encoder_does_not_know_are_refused_first(tmp_path: Path) -> None:
    class Foreign(Encoder):
        def encode(self, texts: Sequence[str]) -> Embeddings:
            return replace(super().encode(texts), unknown=np.full(len(texts), 0.7, np.float32))

    with pytest.raises(DataError, match="70% of the words here are unknown; pass --encoder"):
        pipeline.run(_recipe(tmp_path), tmp_path / "run", parts=replace(_parts(), encoder=lambda name: Foreign()))
    assert not (tmp_path / "run" / "sft").exists()


def test_an_unknown_model_or_file_is_refused_before_any_work(tmp_path: Path) -> None:
    def fingerprint(name: str) -> str:
        if name == "tiny:blip-itm":
            raise ModelError("there is no model 'tiny:blip-itm'")
        return name

    with pytest.raises(ModelError, match="blip-itm"):
        pipeline.run(_recipe(tmp_path), tmp_path / "run", parts=replace(_parts(), fingerprint=fingerprint))
    with pytest.raises(DataError, match=r"there is no file absent\.jsonl"):
        pipeline.run(_recipe(tmp_path, "sft.file=absent.jsonl"), tmp_path / "run", parts=_parts())
    assert not (tmp_path / "run" / "prompts").exists()


@pytest.mark.parametrize(
    "failure",
    [
        lambda: OSError(28, "No space left on device"),
        lambda: RuntimeError('IoError(Os { code: 28, kind: StorageFull, message: "No space left on device" })'),
    ],
)
def test_a_disk_that_fills_while_training_is_told_and_leaves_no_model(
    tmp_path: Path, failure: Callable[[], Exception]
) -> None:
    def full(pairs: object, config: object, output: Path, progress: Progress) -> list[Curve]:
        (output / "weights.txt").write_text("half")
        raise failure()

    with pytest.raises(StoreError, match="there is no space left to write"):
        pipeline.run(_recipe(tmp_path), tmp_path / "run", parts=replace(_parts(), fine_tune=full))
    assert not (tmp_path / "run" / "sft").exists()
    pipeline.run(_recipe(tmp_path), tmp_path / "run", only="sft", parts=_parts())
    assert store.is_complete(tmp_path / "run" / "sft")


def test_the_report_can_be_written_again_from_the_folder_alone(finished: Path) -> None:
    run = finished / "run"
    page = pipeline.report_path(run).read_bytes()
    pipeline.report_path(run).unlink()
    pipeline.run(pipeline.recipe_of(run), run, only="report", parts=_parts())
    assert pipeline.report_path(run).read_bytes() == page
    with pytest.raises(StoreError, match="is no run's folder"):
        pipeline.recipe_of(finished)


def test_what_the_report_tells_of_a_run(tmp_path: Path) -> None:
    additive = ("train.methods={additive: {name: additive}, sem_dpo: {name: sem_dpo}}", "report.baseline=additive")
    recipe = _recipe(tmp_path, *additive, "label.fidelity=tiny:blip-itm")
    run = Run(tmp_path / "run", recipe, _parts())
    _run_without_report(recipe, run.folder, _parts())
    for stage, version in (("weigh", "9.9"), ("label", "1.1")):  # as if other versions had made them
        manifest = run.folder / stage / "manifest.json"
        installed = f'"torch": "{store.versions()["torch"]}"'
        manifest.write_text(manifest.read_text().replace(installed, f'"torch": "{version}"'))
    data = report_data(flow(recipe), run)
    candidates = store.read_rows(run.folder / "candidates", Candidate)
    assert data.drawn == len(candidates) + 4 * 6 * 2, "a candidate has one picture for two judges"
    assert dict(data.tokens)["candidates, written"] > 0
    assert data.seen["blip_itm"] == "it helped to choose the pairs of the additive reward"
    assert "blip_itm" not in data.held_out
    assert data.cut == {"human": 0, "sft": 0, "additive": 0, "sem_dpo": 0}
    assert "9.9 (weigh)" in data.versions["torch"]
    assert "1.1 (label)" in data.versions["torch"]


def test_the_report_reads_only_the_images_that_it_shows(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, recipe = [], _recipe(finished)
    file, cells = parquet.read_file, parquet.read_cells

    def watched_file(path: Path, kind: type[Any], *given: Any, **named: Any) -> list[Any]:
        rows = file(path, kind, *given, **named)
        read.extend(row.image for row in rows if kind is Picture and row.image)
        return rows

    def watched_cells(path: Path, name: str, rows: Sequence[int]) -> list[Any]:
        found = cells(path, name, rows)
        read.extend(found if name == "image" else ())
        return found

    monkeypatch.setattr(store, "read_file", watched_file)
    monkeypatch.setattr(parquet, "read_file", watched_file)
    monkeypatch.setattr(parquet, "read_cells", watched_cells)
    data = report_data(flow(recipe), Run(finished / "run", recipe, _parts()))
    assert len(read) == sum(row.image is not None for row in data.evaluation) == 5 * 4
    read.clear()
    none = _recipe(finished, "evaluate.keep_images=0")
    assert all(row.image is None for row in report_data(flow(none), Run(finished / "run", none, _parts())).evaluation)
    assert not read


def test_time_before_a_kill_is_counted(tmp_path: Path) -> None:
    folder = tmp_path / "sft"
    clock = timing.Clock(folder)
    time.sleep(0.05)
    clock.tick(every=0)
    again = timing.Clock(folder)  # the process was killed; another one goes on
    assert again.seconds >= 0.05
    again.stop()
    assert timing.Clock(folder).seconds < 0.05
    assert list(tmp_path.iterdir()) == []


def test_stages_report_their_counts_and_seconds(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert timing.seconds(finished / "run" / "label") > 0
    pipeline.run(_recipe(finished), finished / "run", parts=_parts())
    said = capsys.readouterr().err
    assert "[1/21] prompts: 26 rows, 6 test, 20 train; was there" in said
    assert "[21/21] report: " in said


if __name__ == "__main__":
    pipeline.run(_recipe(Path(sys.argv[1])), Path(sys.argv[2]), parts=_parts(float(sys.argv[3])))
