"""``semdpo evaluate --benchmark``: what the options add to a run's recipe, and what is refused in one sentence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from semdpo.cli.benchmarks import names_of, with_benchmarks
from semdpo.errors import ConfigError, StoreError
from semdpo.recipe.benchmarks import BenchmarkConfig, source_of
from semdpo.recipe.load import load_recipe
from semdpo.recipe.schema import Recipe
from semdpo.stages.benchmarks import with_kept


def _recipe(*overrides: str) -> Recipe:
    return load_recipe("tiny", overrides)


def test_a_recipe_without_benchmarks_is_written_as_before() -> None:
    recipe = _recipe()
    assert recipe.benchmarks == {}
    assert "benchmarks" not in recipe.model_dump(mode="json")
    assert "benchmarks" not in json.loads(recipe.model_dump_json())
    written = _recipe("benchmarks.drawbench.file=d.csv").model_dump(mode="json")["benchmarks"]
    assert written == {"drawbench": {"file": "d.csv", "limit": None, "image_seeds": None}}


def test_options_add_to_what_the_run_has() -> None:
    recipe = _recipe("benchmarks.drawbench={file: d.csv, limit: 9}")
    names = names_of(["PartiPrompts", "T2I-CompBench++=a=b", "drawbench"], 20)
    assert names == {"partiprompts": None, "t2i-compbench": "a=b", "drawbench": None}
    added = with_benchmarks(recipe, names, 20).benchmarks
    assert list(added) == ["drawbench", "partiprompts", "t2i-compbench"]
    assert added["drawbench"] == BenchmarkConfig(file="d.csv", limit=20)
    assert source_of("partiprompts", added["partiprompts"]) == "hub:nateraw/parti-prompts"
    assert source_of("t2i-compbench", added["t2i-compbench"]) == "a=b"
    assert with_benchmarks(recipe, names_of(["drawbench"], None), None) == recipe
    assert with_benchmarks(recipe, {}, None) is recipe


@pytest.mark.parametrize(
    ("options", "limit", "said"),
    [
        (["drawbnch"], None, "there is no benchmark 'drawbnch'; did you mean 'drawbench'?"),
        (["=d.csv"], None, "there is no benchmark ''; known: dpg-bench, drawbench, geneval, geneval2, partiprompts, "),
        (["drawbench="], None, "--benchmark 'drawbench=' names no file; write drawbench=FILE, or drawbench alone"),
        (["drawbench", "DrawBench=d.csv"], None, "--benchmark names drawbench twice; name it once"),
        (["drawbench"], 0, "--benchmark-limit is 0; it must be a number"),
        ([], 5, "--benchmark-limit has no effect without --benchmark; leave it out"),
    ],
)
def test_odd_options_are_refused(options: list[str], limit: int | None, said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        names_of(options, limit)
    assert said in str(refused.value)


def test_a_set_that_is_published_as_files_needs_its_file() -> None:
    with pytest.raises(ConfigError, match="geneval2 is published as files only; download them"):
        with_benchmarks(_recipe(), names_of(["geneval2"], None), None)
    with pytest.raises(ConfigError, match="'benchmarks': geneval2 is published as files only"):
        _recipe("benchmarks={geneval2: {}}")


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("benchmarks={partiprompt: {}}", "there is no benchmark 'partiprompt'; did you mean 'partiprompts'"),
        ("benchmarks.drawbench.files=x", "unknown key 'benchmarks.drawbench.files'; did you mean 'file'"),
        ("benchmarks.drawbench.limit=0", "greater than or equal to 1"),
        ("benchmarks.drawbench.image_seeds=[1, 1]", "every image seed may appear only once"),
        ("benchmarks.drawbench=d.csv", "it must be a mapping"),
    ],
)
def test_odd_settings_are_refused_by_their_place(override: str, said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        _recipe(override)
    assert said in str(refused.value)
    assert f"--set {override}" in str(refused.value)


def test_a_run_keeps_its_benchmarks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    had, new = _recipe("benchmarks.drawbench.file=old.csv"), _recipe("benchmarks.partiprompts.limit=7")
    assert with_kept(new, tmp_path / "none") is new
    (tmp_path / "recipe.json").write_text(had.model_dump_json())
    assert with_kept(had, tmp_path) is had, "what the recipe names counts"
    assert capsys.readouterr().err == ""
    both = with_kept(new, tmp_path)
    assert list(both.benchmarks) == ["partiprompts", "drawbench"]
    assert both.benchmarks["drawbench"].file == "old.csv"
    assert "that the recipe does not name are kept: drawbench" in capsys.readouterr().err
    assert with_kept(_recipe("benchmarks.drawbench.file=new.csv"), tmp_path).benchmarks["drawbench"].file == "new.csv"
    (tmp_path / "recipe.json").write_text(_recipe().model_dump_json())
    assert with_kept(new, tmp_path) is new
    (tmp_path / "recipe.json").write_text('{"benchmarks": 3, "of": "another program"}')
    assert with_kept(new, tmp_path) is new
    (tmp_path / "recipe.json").write_text('{"benchmarks": {"later": {}}, "prompts": {}, "sft": {}}')
    with pytest.raises(StoreError, match="correct or remove its entry 'benchmarks', and run again"):
        with_kept(new, tmp_path)
