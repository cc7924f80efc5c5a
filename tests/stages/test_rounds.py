"""Rounds after the first: whose rewriter writes, where training starts, and that the first round stays as it is."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from semdpo import pipeline
from semdpo.analysis.render_budget import draw
from semdpo.data.records import Candidate, Curve, Pair, RenderDraw, Score
from semdpo.engine import parquet, store
from semdpo.engine.counts import described
from semdpo.engine.stage import Run
from semdpo.errors import ConfigError, ModelError, StoreError
from semdpo.recipe.load import load_recipe
from semdpo.recipe.rounds import LaterRound, work_of
from semdpo.recipe.schema import Recipe
from semdpo.reporting.collect import report_data
from semdpo.stages.evaluate import evaluation
from semdpo.stages.flow import flow
from semdpo.workforce import Opener
from tests.stand_ins import Renderer, Rewriter, files_of, models, recipe_of

pytestmark = pytest.mark.usefixtures("stand_in_trainings")


def _rounds(folder: Path, count: int, *overrides: str) -> Recipe:
    return recipe_of(folder, f"rounds.count={count}", *overrides)


@pytest.fixture(scope="module")
def three(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The finished run, to which two rounds and their evaluation were added; not to be changed."""
    run = Path(shutil.copytree(finished / "run", tmp_path_factory.mktemp("three") / "run"))
    pipeline.run(_rounds(finished, 3), run, only="rounds", models=models())
    pipeline.run(_rounds(finished, 3), run, only="evaluate", models=models())
    return run


def test_the_stages_of_a_later_round_are_those_of_the_first(finished: Path) -> None:
    stages = {stage.name: stage for stage in flow(_rounds(finished, 3))}
    for name in ("candidates", "label", "pairs", "drift"):
        for number, method in ((2, "dpo"), (3, "sem_dpo")):
            later = stages[f"rounds/{number}/{method}/{name}"]
            assert (later.config, later.outside, later.title) == (
                stages[name].config,
                stages[name].outside,
                stages[name].title,
            )
    assert stages["rounds/2/dpo/candidates"].inputs == ("prompts", "train/dpo")
    assert stages["rounds/3/dpo/candidates"].inputs == ("prompts", "rounds/2/dpo/train")
    assert stages["rounds/3/dpo/label"].inputs == ("rounds/3/dpo/candidates",)
    assert stages["rounds/3/sem_dpo/train"].inputs == ("rounds/2/sem_dpo/train", "rounds/3/sem_dpo/drift")
    assert stages["rounds/3/sem_dpo/train"].config == stages["train/sem_dpo"].config
    added = [name for name in stages if name.startswith("rounds/")]
    assert len(added) == 2 * 2 * 5, "two rounds, two methods, five stages"
    assert list(stages).index(added[-1]) < list(stages).index("evaluate/human/images")


def test_the_rewriter_of_the_round_before_writes_and_is_trained_on(three: Path) -> None:
    before = three / "train/dpo"
    for number in (2, 3):
        folder = three / f"rounds/{number}/dpo"
        written = {(row.prompt, row.rewrite) for row in store.read_rows(folder / "candidates", Candidate)}
        row = store.read_rows(folder / "candidates", Candidate)[0]
        [own] = Rewriter(before).rewrite([row.prompt], 4, row.seed)
        assert {(row.prompt, rewrite) for rewrite in own} <= written
        weights = (folder / "train/weights.txt").read_text()
        assert weights.startswith((before / "weights.txt").read_text() + " {")
        assert weights.endswith(f" {len(store.read_rows(folder / 'drift', Pair))}")
        assert {c.method for c in parquet.read_file(folder / "train/curves.parquet", Curve)} == {f"dpo_round{number}"}
        before = folder / "train"
    first, second = (store.read_rows(three / place / "candidates", Candidate) for place in ("", "rounds/2/dpo"))
    assert [row.rewrite for row in first] != [row.rewrite for row in second]


def test_every_round_of_a_method_is_evaluated_with_its_own_rewriter(finished: Path, three: Path) -> None:
    found = evaluation(_rounds(finished, 3)).models
    assert list(found)[-4:] == ["dpo_round2", "sem_dpo_round2", "dpo_round3", "sem_dpo_round3"]
    assert found["dpo_round3"] == "rounds/3/dpo/train"
    assert not any(name.endswith("_sampled_round2") or name.endswith("_round2_sampled") for name in found)
    assert (three / "rounds/3/dpo/train/guard.json").is_file(), "the guard knows its limit of drift"


def test_rounds_change_nothing_of_the_first_and_more_of_them_change_nothing_of_fewer(
    finished: Path, three: Path, tmp_path: Path
) -> None:
    first, all_three = files_of(finished / "run"), files_of(three)
    assert {name for name in first if first[name] != all_three[name]} == {"recipe.json"}
    run = Path(shutil.copytree(finished / "run", tmp_path / "run"))
    for count in (2, 3):
        pipeline.run(_rounds(finished, count), run, only="rounds", models=models())
    made = {name: content for name, content in files_of(run).items() if name.startswith("rounds/")}
    expected = {name: content for name, content in all_three.items() if name.startswith("rounds/")}
    own = [name for name in expected if not name.endswith("guard.json")]  # the evaluation writes it
    assert made.keys() == set(own)
    assert [name for name in own if made[name] != expected[name]] == []


class Stopped(Renderer):
    """Renders a few batches only."""

    def render(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[Image.Image]:
        if self.calls == 9:
            raise ModelError("the machine is switched off")
        return super().render(prompts, seeds)


def test_it_resumes_at_the_first_missing_shard_with_the_same_bytes(finished: Path, three: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(three, tmp_path / "run"))
    shutil.rmtree(run / "rounds/3/sem_dpo")
    label = run / "rounds/3/sem_dpo/label"
    parts = replace(models(), renderer=lambda _: Stopped(0.0))
    with pytest.raises(ModelError, match="switched off"):
        pipeline.run(_rounds(finished, 3), run, only="rounds", models=parts)
    made = {path.name: path.stat().st_mtime_ns for path in label.glob("part-*.parquet")}
    assert 0 < len(made) < 5
    pipeline.run(_rounds(finished, 3), run, only="rounds", models=models())
    pipeline.run(_rounds(finished, 3), run, only="evaluate", models=models())
    assert {name: (label / name).stat().st_mtime_ns for name in made} == made
    again, before = files_of(run), files_of(three)
    assert again.keys() == before.keys()
    assert [name for name in before if again[name] != before[name]] == []


def test_workers_make_the_same_bytes(finished: Path, three: Path) -> None:
    make = Opener(three, _rounds(finished, 3), models(), flow)()
    for stage in ("rounds/2/sem_dpo/candidates", "rounds/3/dpo/label", "evaluate/dpo_round3/images"):
        assert make(stage, 1)[0] == (three / stage / "part-00001.parquet").read_bytes(), stage


def test_a_method_that_is_trained_again_has_new_rounds(finished: Path, three: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(three, tmp_path / "run"))
    other = _rounds(finished, 3, "train.methods={dpo: {name: dpo, beta: 0.3}, sem_dpo: {name: sem_dpo, alpha: 4.0}}")
    with pytest.raises(StoreError, match=r"train/dpo was made with objective\.beta = null, which is now 0\.3"):
        pipeline.run(other, run, only="rounds", models=models())
    made = {path: path.stat().st_mtime_ns for path in run.rglob("manifest.json")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "_write_report", lambda *_: None)
        pipeline.run(other, run, fresh=True, models=models())
    again = {path.relative_to(run).parent.as_posix() for path, at in made.items() if path.stat().st_mtime_ns != at}
    assert {name for name in again if name.startswith("rounds/")} == {
        f"rounds/{number}/dpo/{stage}"
        for number in (2, 3)
        for stage in ("candidates", "label", "pairs", "drift", "train")
    }
    assert "candidates" not in again
    assert "train/sem_dpo" not in again


def test_another_rewriter_writes_for_the_first_round_only(finished: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other/weights.txt").write_text("another")
    recipe = _rounds(finished, 2, f"candidates.rewriter={{model: {tmp_path / 'other'}}}")
    stages = {stage.name: stage for stage in flow(recipe)}
    assert "rewriter" in stages["candidates"].config
    assert "rewriter" not in stages["rounds/2/dpo/candidates"].config
    run = tmp_path / "run"
    for name in ("prompts", "sft", "candidates", "label", "pairs", "drift", "train", "rounds"):
        pipeline.run(recipe, run, only=name, models=models())
    for place, writer in (("candidates", tmp_path / "other"), ("rounds/2/dpo/candidates", run / "train/dpo")):
        row = store.read_rows(run / place, Candidate)[0]
        assert row.rewrite in Rewriter(writer).rewrite([row.prompt], 4, row.seed)[0]


def test_a_render_budget_draws_in_every_round(finished: Path, tmp_path: Path) -> None:
    recipe = _rounds(
        finished,
        2,
        "train.methods={sem_dpo: {name: sem_dpo, alpha: 4.0}}",
        "report.baseline=sft",
        "render_budget.alpha=2",
    )
    for name in ("prompts", "sft", "candidates", "render_budget", "label", "pairs", "drift", "train", "rounds"):
        pipeline.run(recipe, tmp_path, only=name, models=models())
    folder = tmp_path / "rounds/2/sem_dpo"
    draws = {row.prompt_id: row for row in store.read_rows(folder / "render_budget", RenderDraw)}
    kept = [row for row in store.read_rows(folder / "candidates", Candidate) if draws[row.prompt_id].kept]
    assert 0 < len(kept) < store.counts(folder / "candidates")["rows"]
    assert all(row.kept == (draw(row.prompt_id, 0, 2) < row.probability) for row in draws.values())
    first = {row.prompt_id: row.kept for row in store.read_rows(tmp_path / "render_budget", RenderDraw)}
    assert {name for name, row in draws.items() if row.kept} - {name for name, kept in first.items() if kept}, (
        "a prompt that the first round left out has a chance of its own in the second"
    )
    assert len(store.read_rows(folder / "label", Score)) == len(kept)
    pairs = store.read_rows(folder / "drift", Pair)
    assert [pair.weight for pair in pairs] == [1 / row.probability for row in draws.values() if row.kept]


def test_only_some_methods_may_go_on(finished: Path) -> None:
    recipe = recipe_of(finished, "rounds={count: 3, methods: [sem_dpo]}")
    assert recipe.later_rounds == [LaterRound("sem_dpo", 2), LaterRound("sem_dpo", 3)]
    assert [name for name in evaluation(recipe).models if "round" in name] == ["sem_dpo_round2", "sem_dpo_round3"]


def test_one_round_is_the_run_without_the_section(finished: Path) -> None:
    plain, one = recipe_of(finished), _rounds(finished, 1)
    assert [(s.name, s.config, s.inputs) for s in flow(plain)] == [(s.name, s.config, s.inputs) for s in flow(one)]
    assert "rounds" not in plain.model_dump(), "a recipe without the section is written as before"
    assert "user_prompt" not in plain.candidates.of_results(), "so that finished runs are not refused"


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("rounds.count=0", "'rounds.count' is 0; it must be greater than or equal to 1"),
        ("rounds.number=2", "unknown key 'rounds.number'"),
        ("rounds={count: 2, methods: [sem-dpo]}", "which train.methods has not; did you mean 'sem_dpo'"),
        ("rounds={count: 2, methods: [dpo, dpo]}", "names 'dpo' twice"),
        ("rounds={count: 2, methods: []}", "'rounds.methods' is"),
    ],
)
def test_wrong_rounds_are_refused(finished: Path, override: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said.replace("[", r"\[")):
        recipe_of(finished, override)


def test_a_method_may_not_have_the_name_of_a_round(finished: Path) -> None:
    taken = "train.methods={dpo: {name: dpo}, dpo_round2: {name: dpo}}"
    with pytest.raises(ConfigError, match="rounds makes a method 'dpo_round2', which already exists"):
        recipe_of(finished, taken, "report.subject=dpo", "report.baseline=dpo_round2", "rounds.count=2")


def test_a_section_that_is_null_can_be_filled_from_the_command_line() -> None:
    recipe = load_recipe("tiny", ["rounds=null", "rounds.count=2", "train.lora.rank=4"])
    assert recipe.rounds is not None
    assert recipe.rounds.count == 2
    assert recipe.train.lora is not None
    assert recipe.train.lora.rank == 4


@pytest.mark.parametrize(
    ("stage", "work"),
    [
        ("rounds/2/dpo/label", "label"),
        ("rounds/12/sem_dpo/train", "train/sem_dpo"),
        ("train/dpo", "train/dpo"),
        ("evaluate/dpo_round2/images", "evaluate/dpo_round2/images"),
    ],
)
def test_the_work_of_a_stage(stage: str, work: str) -> None:
    assert work_of(stage) == work


def test_a_round_is_counted_in_the_same_words() -> None:
    counts = {"rows": 5, "kept": 5, "tied": 1}
    assert described("rounds/2/dpo/pairs", counts) == described("pairs", counts)
    assert described("rounds/2/dpo/train", {"rows": 9}) == described("train/dpo", {"rows": 9})


def test_the_report_has_every_round(finished: Path, three: Path) -> None:
    recipe = _rounds(finished, 3)
    data = report_data(flow(recipe), Run(three, recipe, models()))
    assert [(r.method, r.number) for r in data.rounds] == [(m, n) for m in ("dpo", "sem_dpo") for n in (1, 2, 3)]
    for each in data.rounds:
        place = three if each.number == 1 else three / f"rounds/{each.number}/{each.method}"
        pairs = store.read_rows(place / "drift", Pair)
        assert each.pairs == len(pairs)
        assert each.distance == pytest.approx(sum(pair.distance or 0 for pair in pairs) / len(pairs))
        assert each.images == len(store.read_rows(place / "candidates", Candidate))
        assert each.tokens > 0
    assert data.label("dpo_round3") == "DPO, round 3"
    noted = [note for note in data.notes if note.startswith("Round ")]
    assert [note.partition(":")[0] for note in noted] == [
        *("Round 2, DPO", "Round 2, Sem-DPO", "Round 3, DPO", "Round 3, Sem-DPO")
    ]
    counts = store.counts(three / "rounds/3/dpo/candidates")
    assert f"{counts['kept']} candidates of 80 rewrites, {counts['duplicates']} duplicate" in noted[2]
    # Every method's candidates in every round, and 6 prompts at 2 seeds of 11 methods.
    rendered = data.rounds[0].images + sum(each.images for each in data.rounds if each.number > 1)
    assert data.rendered == rendered + 11 * 12
    assert all(each.rejected_distance > 0 for each in data.rounds)
    margin = _rounds(finished, 3, "drift.source=margin")
    of_pairs = report_data(flow(margin), Run(three, margin, models())).rounds
    assert all(np.isnan(each.rejected_distance) for each in of_pairs), "a margin is no distance of one rewrite"
