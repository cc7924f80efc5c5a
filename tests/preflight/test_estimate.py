"""What a run costs: arithmetic on costs that a test sets, and a probe of stand-ins against a run of stand-ins."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from semdpo.cli.app import app
from semdpo.data.records import Curve
from semdpo.engine import timing
from semdpo.errors import ModelError
from semdpo.preflight import bill, estimate, probe, resources
from semdpo.preflight.measuring import Cost, longest
from semdpo.preflight.probe import Found, Unmeasured
from semdpo.preflight.rewritings import rewritings
from semdpo.preflight.sample import sample_of
from semdpo.progress import say, silent
from semdpo.recipe.load import load_recipe
from semdpo.recipe.schema import Recipe
from tests import stand_ins

CPU = bill.Device("a CPU", "CPU-hours", is_gpu=False)


def _found(recipe: Recipe, **others: Cost | Unmeasured) -> Found:
    """Every unit takes 2 s, 1 to 3; every fixed cost is 10 s, and every file has 100 bytes and 5 a row."""
    cost = Cost("2 batches", [1.0, 3.0], 10.0, 1.0, 100.0, 5.0)
    objectives = {f"train/{objective.name}" for objective in recipe.train.methods.values()}
    metrics = {f"score/{metric}" for metric in recipe.evaluate.metrics}
    jobs = {job.what for job in rewritings(recipe)}
    names = {"prompts", "sft", "reference", "label", "pairs", "drift", "images", "atoms", "write/atoms"}
    names |= {*objectives, *metrics, *jobs}
    return dict.fromkeys(sorted(names), cost) | others


def _plan(recipe: Recipe, found: Found, prompts: int = 400, held_out: int = 120) -> dict[str, estimate.Stage]:
    return {stage.name: stage for stage in estimate.stages(recipe, found, prompts, held_out, 1.5)}


def test_a_later_round_costs_what_the_first_does_for_every_method() -> None:
    methods = "train.methods={dpo: {name: dpo}, sem_dpo: {name: sem_dpo}}"
    one, three = (load_recipe("tiny", [methods, f"rounds.count={count}"]) for count in (1, 3))
    before, plan = (_plan(recipe, _found(recipe)) for recipe in (one, three))
    added = {name: stage for name, stage in plan.items() if name.startswith("rounds/")}
    assert len(added) == 2 * 2 * 5, "two later rounds of two methods"
    for name in ("candidates", "label", "pairs", "drift"):
        for place in ("rounds/2/dpo", "rounds/3/sem_dpo"):
            assert replace(plan[f"{place}/{name}"], name=name) == before[name]
    # Each has a reference of its own.
    assert plan["rounds/3/sem_dpo/train"].seconds == plan["train/dpo"].seconds
    assert {name for name in before if before[name] != plan[name]} == {
        name for name in before if name.startswith("evaluate/")
    }
    assert plan["evaluate/…/clip"].work.mean == before["evaluate/…/clip"].work.mean * 11 / 7


def test_the_users_prompt_costs_one_more_image_and_no_rewrite() -> None:
    plain, own = (load_recipe("tiny", overrides) for overrides in ([], ["candidates.user_prompt=true"]))
    before, plan = (_plan(recipe, _found(recipe)) for recipe in (plain, own))
    assert plan["label"].work.mean == before["label"].work.mean * 5 / 4
    assert plan["candidates"] == before["candidates"]


def test_where_another_rewriter_begins_the_own_one_is_measured_for_later_rounds() -> None:
    other = "candidates.rewriter={model: 'http://localhost:1/v1', endpoint: {model_name: x}}"
    recipe = load_recipe("tiny", [other, "candidates.batch_size=64", "rounds.count=2"])
    plan = _plan(recipe, _found(recipe))
    assert plan["candidates"].missing is not None
    assert plan["rounds/2/dpo/candidates"].missing is None


def test_costs_are_multiplied_by_the_work_of_a_run() -> None:
    recipe = load_recipe("tiny")
    plan = _plan(recipe, _found(recipe))
    spent = {name: stage.seconds.mean for name, stage in plan.items()}
    assert spent["prompts"] == 1.5 + 10 + 2 * 520
    assert spent["sft"] == 10 + 2 * 150
    assert spent["candidates"] == 10 + 2 * 400
    assert spent["label"] == 10 + 2 * 1600
    assert (spent["pairs"], spent["drift"]) == (10 + 2 * 400, 10 + 2 * 400)
    # 3 epochs of 25 updates, and for the first method the reference's pass over 400 pairs.
    assert spent["train/dpo"] == 10 + 2 * 75 + 2 * 400
    assert (spent["train/dpo_liked"], spent["train/sem_dpo"]) == (10 + 2 * 75, 10 + 2 * 75)
    assert spent["losses/sem_dpo"] == 10 + 2 * 400
    # Nine methods render 240 images; all but the user's own prompt write 120 rewrites. Each loads a rewriter.
    assert spent["evaluate/…/images"] == 10 + 9 * 10 + 2 * 9 * 240 + 2 * 8 * 120
    assert spent["evaluate/…/hps"] == spent["evaluate/…/consistency"] == 10 + 2 * 9 * 240
    assert spent["evaluate/…/atoms"] == 10 + 2 * 9 * 240
    assert plan["atoms"].seconds.mean == 0, "the grammar takes no time"
    assert (plan["label"].seconds.low, plan["label"].seconds.high) == (10 + 1600, 10 + 3 * 1600)
    assert plan["candidates"].size == 7 * 100 + 1600 * 5 + estimate.NOTES_BYTES, "seven files of 64 prompts"
    assert plan["evaluate/…/images"].size == 9 * (2 * 100 + 240 * 5 + estimate.NOTES_BYTES)
    assert set(plan) >= {"evaluate/…/clip", "evaluate/…/clip_b", "evaluate/…/pickscore", "evaluate/…/image_reward"}


def test_a_benchmark_costs_what_its_prompts_and_image_seeds_cost() -> None:
    asked = ("benchmarks.drawbench={file: d.csv, image_seeds: [0]}", "benchmarks.geneval2={file: g.jsonl, limit: 50}")
    recipe = load_recipe("tiny", asked)
    plan, before = _plan(recipe, _found(recipe)), _plan(load_recipe("tiny"), _found(recipe))
    assert {name: stage for name, stage in plan.items() if not name.startswith("benchmarks/")} == before
    spent = {name: stage.seconds.mean for name, stage in plan.items()}
    assert spent["benchmarks/drawbench/evaluate/…/images"] == 10 + 9 * 10 + 2 * 9 * 200 + 2 * 8 * 200
    assert spent["benchmarks/geneval2/evaluate/…/hps"] == 10 + 2 * 9 * 50 * 2
    assert spent["benchmarks/geneval2/evaluate/…/atoms"] == 10 + 2 * 9 * 50 * 2, "it brings its own"
    assert not {"benchmarks/drawbench/evaluate/…/atoms", "benchmarks/drawbench/evaluate/…/consistency"} & plan.keys()
    assert resources.images(recipe) == resources.images(load_recipe("tiny")) + 9 * (200 + 50 * 2)


def test_atoms_that_score_candidates_cost_in_label_and_so_does_the_language_model_that_writes_them() -> None:
    recipe = load_recipe("tiny", ["label.fidelity=atoms"])
    plan = _plan(recipe, _found(recipe))
    assert plan["label"].seconds.mean == 20 + 4 * 1600
    unknown = Unmeasured("tiny:judge is not downloaded")
    assert _plan(recipe, _found(recipe, atoms=unknown))["label"].missing == unknown
    lm = load_recipe("tiny", ["atoms={maker: lm, lm: {model: m}}"])
    written = _plan(lm, _found(lm))["atoms"]
    assert written.seconds.mean == 10 + 2 * 520, "for every prompt, held out or not"
    assert written.size == 2 * 100 + 520 * 5 + estimate.NOTES_BYTES, "two files of 512 prompts"
    server = load_recipe("tiny", ["atoms={maker: lm, lm: {model: 'http://h/v1', endpoint: {model_name: m}}}"])
    plan = _plan(server, _found(server))
    assert plan["atoms"].missing is not None
    assert "a server writes them; it is not asked" in plan["atoms"].missing.reason


def test_twice_the_prompts_take_twice_the_work_and_the_same_loading() -> None:
    recipe = load_recipe("tiny")
    one, two = (_plan(recipe, _found(recipe), prompts) for prompts in (400, 800))
    assert two["label"].work.mean == 2 * one["label"].work.mean
    assert two["label"].fixed == one["label"].fixed
    assert two["sft"] == one["sft"]
    assert two["evaluate/…/images"] == one["evaluate/…/images"], "the held-out prompts stay"


def test_kto_reads_other_prompts_completions_in_every_epoch() -> None:
    recipe = load_recipe("tiny", ["train.methods={kto: {name: kto}, simpo: {name: simpo}}", "report.subject=kto",
                                  "report.baseline=kto", "report.images=[kto]"])  # fmt: skip
    plan = _plan(recipe, _found(recipe))
    assert plan["train/kto"].work.mean == 2 * 75 + 2 * 400 * (1 + 3)
    assert plan["train/simpo"].work.mean == 2 * 75, "it has no reference"
    assert "losses/kto" not in plan


def test_a_reference_that_was_too_slow_to_time_is_a_third_of_an_update() -> None:
    recipe = load_recipe("tiny")
    found = _found(recipe)
    del found["reference"]
    stage = _plan(recipe, found)["train/dpo"]
    assert stage.work.mean == pytest.approx(2 * 75 + 400 * 2 / 16 / 3)
    assert "the reference as a third of an update" in stage.measured
    found["train/dpo"] = Unmeasured("out of memory", failed=True)
    plan = _plan(recipe, found)
    assert plan["train/dpo"].missing == found["train/dpo"]
    assert plan["losses/sem_dpo"].work.mean == pytest.approx(400 * 2 / 16 / 3), (
        "another method's update is a measure, too"
    )


def test_processes_share_shards_and_not_trainings() -> None:
    stage = estimate.Stage("label", estimate.Span(70.0, 60.0, 80.0), 10.0, shards=7)
    assert stage.wall(1) == stage.seconds
    assert stage.wall(4).mean == pytest.approx(10 + 70 * 2 / 7)
    assert stage.wall(100).mean == pytest.approx(10 + 70 / 7), "more processes than shards have nothing to do"
    assert stage.device(4).mean == 70 + 4 * 10, "each loads the models"
    alone = estimate.Stage("train/dpo", estimate.Span(70.0, 70.0, 70.0), 10.0)
    assert (alone.wall(4).mean, alone.device(4).mean) == (80.0, 80.0)


def test_what_is_not_measured_is_named_with_its_reason_and_its_cure() -> None:
    recipe = load_recipe("tiny", ["evaluate.rewriters={bold: {model: 'tiny:gpt2'}, far: {model: 'http://h/v1', "
                                  "endpoint: {model_name: x}}}"])  # fmt: skip
    reason = Unmeasured(f"tiny:sd is not downloaded; {probe.AGAIN}")
    found = _found(recipe, label=reason)
    assert "rewrite/other bold" in found
    assert "rewrite/other far" not in found, "a server is not asked"
    plan = _plan(recipe, found)
    assert plan["label"].missing == reason
    assert "without far, which a server writes" in plan["evaluate/…/images"].measured
    text = "\n".join(bill.lines(recipe, list(plan.values()), CPU))
    assert "not measured: label: tiny:sd is not downloaded; download it, then run `semdpo doctor` again" in text
    assert "\n  these " in text, "a sum that lacks a stage is not called the whole"
    assert "in all" not in text


def test_hours_money_and_bytes_are_printed() -> None:
    recipe = load_recipe("tiny")
    plan = [
        estimate.Stage("sft", estimate.Span(1800, 1800, 1800), 0.0, 4e6, "4 updates"),
        estimate.Stage("label", estimate.Span(5400, 3600, 7200), 0.0, 1e6, "2 batches", 8),
    ]
    text = "\n".join(bill.lines(recipe, plan, CPU, workers=4, price=2.5))
    assert "time         2.0 h (1.5 h to 2.5 h) by one process" in text
    assert "4 processes  52 min (45 min to 60 min)" in text  # 30 minutes, and a quarter of 90
    assert "CPU-hours    2 (1.5 to 2.5); 3.5 if all 4 devices are kept until the end" in text
    assert "money        5.00 (3.75 to 6.25), at 2.5 an hour; 8.75 if all 4 devices" in text
    assert "disk         5 MB kept: models 4 MB, images 0 B, other rows 1 MB; and up to 25.1 MB more" in text
    assert "downloads    no models" in text
    assert "money" not in "\n".join(bill.lines(recipe, plan, CPU))


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.04, "0.0 s"), (9.9, "9.9 s"), (9.96, "10 s"), (90, "1.5 min"), (599, "10 min"), (5400, "1.5 h")],
)
def test_times_in_words(seconds: float, said: str) -> None:
    assert bill.duration(seconds) == said


# ------------------------------------------------------------------------------------------------- the probe itself


def _training(update: float) -> Callable[..., list[Curve]]:
    """A training that loads for 0.1 s, computes, reports and writes a text in place of weights."""

    def work(pairs: Sequence[Any], *settings: Any) -> list[Curve]:
        config = next(each for each in settings if hasattr(each, "batch_size"))
        output = next(each for each in settings if isinstance(each, Path))
        time.sleep(0.1)
        say("alpha is 3.93, computed from the pairs")
        steps = getattr(config, "steps", None) or len(pairs) // config.batch_size * config.epochs
        for done in range(1, steps + 1):
            time.sleep(update)
            settings[-1](done, steps, "loss")
        (output / "weights.txt").write_text("trained")
        return [Curve("any", step, "loss", 0.5) for step in range(3)]

    return work


def _models(delay: float) -> Any:
    own = stand_ins.models(delay)

    def rewriter(model: str, template: Any, decoding: Any) -> stand_ins.Rewriter:
        folder = Path(model)
        return own.rewriter(model, template, decoding) if folder.is_dir() else _Untrained()  # type: ignore[return-value]

    return replace(own, rewriter=rewriter)


class _Untrained(stand_ins.Rewriter):
    def __init__(self) -> None:
        self.weights = "untrained"


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stand_ins.stand_in_trainings(monkeypatch)
    monkeypatch.setattr("semdpo.training.fine_tune.fine_tune", _training(0.02))
    monkeypatch.setattr("semdpo.training.preference.train", lambda pairs, model, objective, *more: (
        _training(0.02)(pairs, *(each for each in more if not str(each).endswith(("reference", "cache"))))
    ))  # fmt: skip
    monkeypatch.chdir(tmp_path)


def _recipe(folder: Path, *more: str) -> Recipe:
    return stand_ins.recipe_of(folder, "sft.steps=30", "evaluate.renderer.batch_size=4", "scoring.batch_size=4",
                               "train.batch_size=4", "sft.batch_size=4", *more)  # fmt: skip


@pytest.mark.usefixtures("trainings")
def test_predictions_are_what_a_run_takes_and_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe, models = _recipe(tmp_path), _models(0.1)
    sample = sample_of(recipe)
    assert (sample.typical, sample.count(recipe), sample.count_held_out(recipe)) == ("", 20, 6)
    found = probe.probe(recipe, sample, 20, 6, 6.0, models)
    assert capsys.readouterr().err == "", "what a training says of made-up pairs is not shown"
    plan = {stage.name: stage for stage in estimate.stages(recipe, found, 20, 6, sample.seconds)}
    assert [stage.missing for stage in plan.values() if stage.missing] == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ask.txt", "held.txt", "rewrites.jsonl"]
    stand_ins.run_without_report(recipe, tmp_path / "run", models)
    for name in ("sft", "label", "train/dpo"):  # the work of all three is a known wait
        spent = timing.seconds(tmp_path / "run" / name)
        assert plan[name].seconds.mean == pytest.approx(spent, rel=0.5), name
    images = sum(timing.seconds(path) for path in (tmp_path / "run/evaluate").glob("*/images"))
    assert plan["evaluate/…/images"].seconds.mean == pytest.approx(images, rel=0.5)
    for name in ("prompts", "candidates", "label", "drift"):
        written = sum(path.stat().st_size for path in (tmp_path / "run" / name).iterdir())
        assert plan[name].size == pytest.approx(written, rel=0.25), name


@pytest.mark.usefixtures("trainings")
def test_what_fails_in_the_probe_is_a_reason_and_not_a_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = _recipe(tmp_path)

    def full(*_: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    def broken(*_: Any) -> Any:
        raise ModelError("the folder holds no scorer; give another one")

    monkeypatch.setattr(probe, "is_absent", lambda name: name == "tiny:hps")
    models = replace(_models(0.0), renderer=full, scorer=broken)
    found = probe.probe(recipe, sample_of(recipe), 20, 6, 0.01, models)
    reasons = {name: each for name, each in found.items() if isinstance(each, Unmeasured)}
    assert set(reasons) == {"label", "images", *(f"score/{metric}" for metric in recipe.evaluate.metrics)}
    assert reasons["label"] == Unmeasured(
        "out of memory; lower its batch_size (of a training, micro_batch_size)", failed=True
    )
    assert reasons["score/hps"] == Unmeasured(f"tiny:hps is not downloaded; {probe.AGAIN}")
    assert "no image was rendered" in reasons["score/clip"].reason


@pytest.mark.usefixtures("trainings")
def test_the_language_model_that_writes_atoms_is_measured(tmp_path: Path) -> None:
    lm = "lm: {model: 'tiny:gpt2', batch_size: 4}"
    recipe = _recipe(tmp_path, f"atoms={{maker: lm, {lm}, without: leave_out}}")

    def broken(*_: Any) -> Any:
        raise ModelError("no renderer")

    found = probe.probe(recipe, sample_of(recipe), 20, 6, 0.01, replace(_models(0.0), renderer=broken))
    cost = found["write/atoms"]
    assert isinstance(cost, Cost)
    assert "4 prompts" in cost.measured
    server = _recipe(tmp_path, "atoms={maker: lm, lm: {model: 'http://h/v1', endpoint: {model_name: m}}}")
    assert "write/atoms" not in probe.probe(
        server, sample_of(server), 20, 6, 0.01, replace(_models(0.0), renderer=broken)
    )


def test_typical_texts_stand_in_for_files_that_are_not_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = load_recipe("paper/gpt2")
    sample = sample_of(recipe)
    assert len(sample.stand_ins) == 2
    assert sample.count(recipe) == recipe.prompts.limit
    hub = sample_of(load_recipe("tiny", ["prompts.file=hub:somebody/prompts", "prompts.limit=null"]))
    assert (hub.typical, hub.count(load_recipe("tiny", ["prompts.limit=null"]))) == (
        "hub:somebody/prompts would have to be downloaded",
        None,
    )


def test_the_longest_of_many_draws() -> None:
    assert longest([1, 2, 3], 1) == pytest.approx(2.0)
    assert longest([1, 2, 3], 100) == pytest.approx(3.0)
    assert longest([7], 5) == 7.0


@pytest.mark.slow
def test_the_command_measures_every_stage_of_the_tiny_recipe(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(probe.probe, "__defaults__", (0.1, None, silent))
    small = ["sft.batch_size=4", "train.batch_size=4", "candidates.batch_size=4", "label.batch_size=4"]
    options = [each for setting in small for each in ("--set", setting)]
    done = CliRunner().invoke(
        app, ["doctor", "tiny", *options, "--prompts", "10000", "--price", "2.5", "--workers", "4"]
    )
    assert done.exit_code == 0, done.output
    assert "Estimate for 10,000 training and 120 held-out prompts, measured on the CPU" in done.output
    assert "not measured" not in done.output
    for said in ("candidates", "losses/sem_dpo", "evaluate/…/consistency", "in all", "CPU-hours", "money", "downloads"):
        assert f"\n  {said}" in done.output
    assert list(tmp_path.iterdir()) == []
