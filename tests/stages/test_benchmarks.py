"""Benchmarks in a run of stand-ins: made, resumed, kept, refused by name, and compared with the training prompts."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from semdpo import pipeline
from semdpo.cli.run import evaluate
from semdpo.data.records import Leak, Prompt, RenderedImage, Score
from semdpo.engine import store
from semdpo.engine.stage import Run
from semdpo.errors import ConfigError, DataError, StoreError
from semdpo.recipe.schema import Recipe
from semdpo.reporting.benchmarked import benchmark_data
from semdpo.stages.benchmarks import collect, leaks
from semdpo.stages.flow import flow
from tests.stages.test_atoms import _answerer
from tests.stand_ins import files_of, models, recipe_of, settings_of

pytestmark = pytest.mark.usefixtures("stand_in_trainings")

PROMPTS = [("A thing 3!", "Colors"), ("new 1", "Colors"), ("new 2", "Text"), ("another 2", "Text"), ("A", "Text")]


def _write(folder: Path, prompts: list[tuple[str, str]] = PROMPTS) -> Path:
    path = folder / "DrawBench.csv"
    path.write_text("Prompts,Category\n" + "".join(f"{text},{category}\n" for text, category in prompts))
    return path


def _recipe(finished: Path, folder: Path, *more: str) -> Recipe:
    return recipe_of(finished, f"benchmarks.drawbench.file={_write(folder)}", *more)


@pytest.fixture(scope="module")
def made(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a copy of the finished run and a benchmark, in ``run``; not to be changed."""
    folder = tmp_path_factory.mktemp("made")
    shutil.copytree(finished / "run", folder / "run", symlinks=True)
    pipeline.run(_recipe(finished, folder), folder / "run", only="evaluate", models=models())
    return folder


def test_a_benchmark_is_evaluated_as_the_held_out_prompts_are(finished: Path, made: Path) -> None:
    run, before = made / "run", files_of(finished / "run")
    after = files_of(run)
    assert {name for name in before if after[name] != before[name]} == {"recipe.json"}, "nothing else is made again"
    assert all(name.startswith("benchmarks/drawbench/") for name in after.keys() - before.keys())
    prompts = store.read_rows(run / "benchmarks/drawbench/prompts", Prompt)
    assert [(row.prompt, row.source, row.split) for row in prompts] == [(*each, "test") for each in PROMPTS]
    methods = {path.name for path in (run / "evaluate").iterdir()}
    assert {path.name for path in (run / "benchmarks/drawbench/evaluate").iterdir()} == methods
    images = store.read_rows(run / "benchmarks/drawbench/evaluate/sft/images", RenderedImage)
    assert [row.prompt for row in images] == [text for text, _ in PROMPTS for _ in (0, 1)], "two image seeds"
    scores = store.read_rows(run / "benchmarks/drawbench/evaluate/human/hps", Score)
    assert len(scores) == 2 * len(PROMPTS)


def test_prompts_that_the_run_trained_on_are_counted_and_kept(made: Path, finished: Path) -> None:
    run = made / "run"
    found = store.read_rows(run / "benchmarks/drawbench/leaks", Leak)
    assert {(row.prompt, row.used_as) for row in found} == {("A thing 3!", "trained"), ("A", "sft")}
    counts = store.counts(run / "benchmarks/drawbench/leaks")
    assert (counts["prompts"], counts["leaked"], counts["trained"], counts["sft"]) == (5, 2, 1, 1)
    assert counts["tuning"] == 0, "the recipe has a sweep, whose prompts count too"
    recipe = pipeline.recipe_of(run)
    data = benchmark_data("drawbench", Run(run, recipe, models()))
    assert {use: len(ids) for use, ids in data.leaked.items()} == {"trained": 1, "sft": 1, "tuning": 0}
    assert data.likeness == "not the published prompts: 0 of 200 equal, and 5 others"
    assert len({row.prompt for row in data.rows}) == 5


def test_leaks_are_found_by_words_in_every_use() -> None:
    prompts = [Prompt.of(text, "x", "test") for text in ("A red ball.", "two cats", "the sea", "３ birds")]
    rows, counts = leaks(prompts, {"trained": ["a RED  ball", "3 birds"], "sft": ["A red ball"], "tuning": ["seas"]})
    assert {(row.prompt, row.used_as) for row in rows} == {
        ("A red ball.", "trained"),
        ("３ birds", "trained"),
        ("A red ball.", "sft"),
    }
    assert counts == {"prompts": 4, "leaked": 2, "trained": 2, "sft": 1, "tuning": 0}


def test_a_limit_takes_prompts_by_their_words_and_keeps_their_order(tmp_path: Path) -> None:
    forwards = _write(tmp_path)
    rows, counts = collect("drawbench", str(forwards), 3)
    (tmp_path / "other").mkdir()
    backwards, _ = collect("drawbench", str(_write(tmp_path / "other", PROMPTS[::-1])), 3)
    assert len(rows) == 3
    assert rows == backwards[::-1]
    assert counts == {"in_file": 5, "duplicates": 0}
    alike = str(_write(tmp_path / "other", [("a cat", "x"), ("A cat!", "x"), ("two", "x")]))
    assert len(collect("drawbench", alike, 2)[0]) == 2
    assert len(collect("drawbench", alike, 3)[0]) == 3, "a limit that leaves nothing out changes nothing"
    plain = tmp_path / "d.txt"
    plain.write_text("one\n")
    assert collect("drawbench", str(plain), None)[0][0].source == "DrawBench", "no category"


def test_the_same_command_resumes_with_the_same_files(finished: Path, made: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(finished / "run", tmp_path / "run", symlinks=True))
    own = models()

    class StopsError(Exception):
        pass

    def fails(*given: object) -> None:
        raise StopsError

    recipe = _recipe(finished, made)
    with pytest.raises(StopsError):
        pipeline.run(recipe, run, only="evaluate", models=replace(own, scorer=fails))
    assert store.is_complete(run / "benchmarks/drawbench/evaluate/sft/images")
    assert not store.is_complete(run / "benchmarks/drawbench/evaluate/sft/hps")
    pipeline.run(pipeline.recipe_of(run), run, only="evaluate", models=own)
    assert files_of(run) == files_of(made / "run")


def test_a_later_run_without_the_benchmark_keeps_it(
    made: Path, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, before = made / "run", files_of(made / "run")
    pipeline.run(recipe_of(finished), run, models=models())
    assert files_of(run) == before
    said = capsys.readouterr().err
    assert "that the recipe does not name are kept: drawbench" in said
    assert "WARNING: 2 of 5 prompts leaked: 1 among the training prompts and 1 among the SFT examples" in said
    page = pipeline.report_path(run).read_text()
    assert "DrawBench: not the published prompts: 0 of 200 equal, and 5 others" in page
    assert "2 of these prompts leaked" in page


def test_a_changed_file_is_refused_by_name_and_fresh_makes_the_benchmark_again(
    finished: Path, made: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(made / "run", tmp_path / "run", symlinks=True))
    before = files_of(run)
    recipe = _recipe(finished, tmp_path)
    pipeline.run(recipe, run, only="evaluate", models=models())  # the same content elsewhere is the same
    _write(tmp_path, [*PROMPTS, ("new 3", "Text")])
    with pytest.raises(StoreError, match=r"prompts was made from a different version of benchmarks\.drawbench\.file"):
        pipeline.run(recipe, run, models=models())
    with pytest.raises(StoreError, match=r"benchmarks/drawbench/prompts was made with limit = null, which is now 2"):
        pipeline.run(_recipe(finished, made, "benchmarks.drawbench.limit=2"), run, models=models())
    pipeline.run(recipe, run, only="benchmarks/drawbench", fresh=True, models=models())
    after = files_of(run)
    assert len(store.read_rows(run / "benchmarks/drawbench/prompts", Prompt)) == 6
    changed = {name for name in before if after[name] != before[name]} - {"recipe.json"}
    assert changed
    assert all(name.startswith("benchmarks/drawbench/") for name in changed), "nothing else is made again"


def test_what_cannot_be_read_is_refused_before_anything_is_noted(finished: Path, made: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(finished / "run", tmp_path / "run", symlinks=True))
    before = files_of(run)
    (tmp_path / "bad.csv").write_text("question\nwhat?\n")
    for file, said in (("bad.csv", "is not DrawBench"), ("none.csv", "there is no file")):
        with pytest.raises(DataError, match=said):
            pipeline.run(recipe_of(finished, f"benchmarks.drawbench.file={tmp_path / file}"), run, models=models())
    assert files_of(run) == before
    run, recipe = (
        Path(shutil.copytree(made / "run", tmp_path / "again", symlinks=True)),
        pipeline.recipe_of(made / "run"),
    )
    wrong = recipe.benchmarks["drawbench"].model_copy(update={"file": str(tmp_path / "bad.csv")})
    recipe = recipe.model_copy(update={"benchmarks": {"drawbench": wrong}})
    with pytest.raises(DataError, match="is not DrawBench"):
        pipeline.run(recipe, run, only="benchmarks/drawbench", fresh=True, models=models())
    assert files_of(run) == files_of(made / "run"), "nothing is removed for a file that cannot be read"
    with pytest.raises(
        ConfigError, match=r"there is no stage 'benchmarks/drawbnch'; did you mean 'benchmarks/drawbench'"
    ):
        pipeline.run(_recipe(finished, made), run, only="benchmarks/drawbnch", models=models())


def test_a_process_that_shares_the_folder_makes_the_same_files(finished: Path, made: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(finished / "run", tmp_path / "run", symlinks=True))
    pipeline.run(_recipe(finished, made), run, only="evaluate", models=models(), shard=(2, 2))
    assert files_of(run) == files_of(made / "run")


@pytest.mark.slow
def test_workers_make_the_same_files(finished: Path, made: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(finished / "run", tmp_path / "run", symlinks=True))
    pipeline.run(_recipe(finished, made), run, only="evaluate", models=models(), workers=2)
    assert files_of(run) == files_of(made / "run")


def test_the_seeds_of_a_benchmark_may_be_its_own(finished: Path, tmp_path: Path) -> None:
    recipe = _recipe(finished, tmp_path, "benchmarks.drawbench.image_seeds=[5]")
    own = {stage.name: stage for stage in flow(recipe)}
    assert own["benchmarks/drawbench/evaluate/sft/images"].config["image_seeds"] == [5]
    usual = {stage.name: stage for stage in flow(_recipe(finished, tmp_path))}
    shared = own.keys() & {stage.name for stage in flow(recipe_of(finished))}
    assert all(own[name].config == usual[name].config for name in shared), "no other stage has other settings"


def test_geneval_2_brings_its_own_atoms(finished: Path, tmp_path: Path) -> None:
    lines = [
        {"prompt": f"{n} cups", "atom_count": 3, "vqa_list": [["Are there any cups?", "Yes"], ["How many cups?", n]],
         "skills": ["object", "count"]} for n in ("two", "three")
    ]  # fmt: skip
    (tmp_path / "geneval2.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    questions = {"prompt": "a thing 1", "atoms": [{"question": "Is it a thing?", "skill": "object"}]}
    (tmp_path / "atoms.jsonl").write_text(json.dumps(questions) + "\n")
    run = Path(shutil.copytree(finished / "run", tmp_path / "run", symlinks=True))
    asked = f"atoms={{maker: file, file: {tmp_path}/atoms.jsonl, model: judge, without: leave_out}}"
    recipe = recipe_of(finished, f"benchmarks.geneval2.file={tmp_path}/geneval2.jsonl", asked)
    own = replace(models(), answerer=_answerer)
    for stage in ("atoms", "evaluate"):
        pipeline.run(recipe, run, only=stage, models=own)
    found = benchmark_data("geneval2", Run(run, recipe, own))
    assert found.atoms is not None
    assert (found.atoms.prompts, found.atoms.without) == (2, 0)
    assert {answer.question for answer in found.atoms.answers["sft"]} == {"Are there any cups?", "How many cups?"}
    assert {row.source for row in found.rows} == {"3 atoms"}
    without = {stage.name for stage in flow(recipe_of(finished, f"benchmarks.geneval2.file={tmp_path}/geneval2.jsonl"))}
    assert not [name for name in without if name.startswith("benchmarks/") and name.endswith("/atoms")]


def test_the_command_adds_a_benchmark_and_fresh_makes_only_it_again(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Path(shutil.copytree(finished / "run", tmp_path / "run", symlinks=True))
    asked: list[tuple[Recipe, object, object]] = []

    def instead(recipe: Recipe, folder: Path, **given: object) -> Path:
        asked.append((recipe, given["only"], given["fresh"]))
        return folder

    monkeypatch.setattr(pipeline, "run", instead)
    evaluate(run, [f"drawbench={_write(tmp_path)}", "partiprompts"], 3)
    evaluate(run, ["partiprompts"], fresh=True)
    evaluate(run, fresh=True)
    assert [(only, fresh) for _, only, fresh in asked] == [
        ("evaluate", False),
        ("benchmarks/partiprompts", True),
        ("evaluate", False),
        ("evaluate", True),
    ]
    assert asked[0][0].benchmarks["drawbench"].limit == 3
    assert f"next: semdpo report {run}" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="there is no benchmark 'parti-prompts'; did you mean 'partiprompts'"):
        evaluate(run, ["parti-prompts"])


def test_settings_of_recipes_without_benchmarks_are_the_same(finished: Path) -> None:
    assert settings_of(finished)
    assert "benchmarks" not in json.loads((finished / "run/recipe.json").read_text())
    assert not [stage.name for stage in flow(recipe_of(finished)) if stage.name.startswith("benchmarks")]
