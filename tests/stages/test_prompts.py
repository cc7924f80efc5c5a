"""Stage 1: the split is by content, and held-out prompts never leak."""

from __future__ import annotations

from pathlib import Path

import pytest

from semdpo import pipeline
from semdpo.data.records import content_id
from semdpo.errors import DataError
from semdpo.recipe.prompts import PromptsConfig
from semdpo.stages.prompts import collect
from tests.stand_ins import models, recipe_of


def _file(path: Path, lines: list[str]) -> str:
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def test_two_files_make_two_splits(tmp_path: Path) -> None:
    config = PromptsConfig(
        file=_file(tmp_path / "ask.txt", ["a", "b", "c"]),
        test_file=_file(tmp_path / "held.txt", ["x", "y"]),
        limit=2,
        test_limit=1,
    )
    rows, _ = collect(config)
    assert [(r.prompt, r.split, r.source) for r in rows] == [
        ("a", "train", "ask"),
        ("b", "train", "ask"),
        ("x", "test", "held"),
    ]
    assert rows[0].prompt_id == content_id("a")


def test_without_a_test_file_the_held_out_share_does_not_depend_on_order(tmp_path: Path) -> None:
    prompts = [f"prompt {i}" for i in range(50)]
    splits = []
    for name, lines in (("a.txt", prompts), ("b.txt", prompts[::-1])):
        rows, _ = collect(PromptsConfig(file=_file(tmp_path / name, lines), test_share=0.2))
        splits.append({r.prompt for r in rows if r.split == "test"})
        assert len(rows) == 50
    assert splits[0] == splits[1]
    assert len(splits[0]) == 10


def test_leaks_are_refused_even_when_case_and_spaces_differ(tmp_path: Path) -> None:
    config = PromptsConfig(
        file=_file(tmp_path / "a.txt", ["one", "A  red Ball"]), test_file=_file(tmp_path / "b.txt", ["a red ball"])
    )
    with pytest.raises(DataError, match="1 held-out prompts are also trained on, the first is 'a red ball'"):
        collect(config)


def test_too_few_prompts_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="too few prompts to hold some out"):
        collect(PromptsConfig(file=_file(tmp_path / "a.txt", ["one", "two"])))


def _sets(tmp_path: Path, **more: object) -> PromptsConfig:
    values = {
        "file": _file(tmp_path / "db.txt", [f"prompt {i}" for i in range(30)]),
        "test_sets": {
            "coco": {"file": _file(tmp_path / "coco.txt", [f"a photo of {i}" for i in range(20)]), "limit": 5},
            "db": {"file": str(tmp_path / "db.txt"), "limit": 6},
            "again": {"file": str(tmp_path / "db.txt"), "limit": 4},
        },
    }
    return PromptsConfig.model_validate(values | more)


def test_evaluation_sets_are_drawn_by_content_and_share_nothing(tmp_path: Path) -> None:
    rows, counts = collect(_sets(tmp_path))
    by_source = {s: [r.prompt for r in rows if (r.split, r.source) == ("test", s)] for s in ("coco", "db", "again")}
    assert {name: len(each) for name, each in by_source.items()} == {"coco": 5, "db": 6, "again": 4}
    train = [r.prompt for r in rows if r.split == "train"]
    assert len(train) == 20
    assert len({r.prompt_id for r in rows}) == len(rows)
    assert counts == {"in_two_sets": 6, "also_held_out": 10}
    _file(tmp_path / "db.txt", [f"prompt {i}" for i in reversed(range(30))])
    other, _ = collect(_sets(tmp_path, file=str(tmp_path / "db.txt")))
    assert {r.prompt for r in other if r.split == "test"} == {r.prompt for r in rows if r.split == "test"}


def test_a_draw_of_training_prompts_by_hash_does_not_depend_on_order(tmp_path: Path) -> None:
    drawn = []
    for name, lines in (("a.txt", [f"p {i}" for i in range(40)]), ("b.txt", [f"p {i}" for i in reversed(range(40))])):
        config = PromptsConfig(file=_file(tmp_path / name, lines), limit=7, draw="hash", test_share=0.1)
        drawn.append([r.prompt for r in collect(config)[0] if r.split == "train"])
    assert drawn[0] == drawn[1]
    assert len(drawn[0]) == 7


def test_near_duplicates_are_left_out_of_training(tmp_path: Path) -> None:
    train = _file(
        tmp_path / "train.txt", ["A castle, at night!", "a  CASTLE at night", "another", "\uff21 castle at night"]
    )
    held = _file(tmp_path / "held.txt", ["a castle at night"])
    rows, counts = collect(PromptsConfig.model_validate({"file": train, "test_sets": {"held": {"file": held}}}))
    assert [r.prompt for r in rows] == ["another", "a castle at night"]
    assert counts["also_held_out"] == 3


def test_a_set_that_is_too_small_is_refused(tmp_path: Path) -> None:
    small = _file(tmp_path / "s.txt", ["one", "One!", "two"])
    config = {"file": small, "test_sets": {"s": {"file": small, "limit": 3}}}
    with pytest.raises(
        DataError, match=r"2 distinct prompts that no earlier set has, but prompts\.test_sets\.s asks for 3"
    ):
        collect(PromptsConfig.model_validate(config))
    with pytest.raises(ValueError, match="exclude each other"):
        PromptsConfig.model_validate(config | {"test_file": small})


def test_a_run_with_one_held_out_prompt_is_refused_before_anything_is_rendered(tmp_path: Path) -> None:
    """Ten prompts of a user's own, of which a tenth is held out."""
    own = _file(tmp_path / "own.txt", [f"a thing {i}" for i in range(10)])
    recipe = recipe_of(tmp_path, f"prompts.file={own}", "prompts.test_file=null")
    with pytest.raises(DataError, match=r"only one prompt is held out, .* raise prompts\.test_limit or "):
        pipeline.run(recipe, tmp_path / "run", models=models())
    assert not (tmp_path / "run" / "sft").exists()


def test_alike_prompts_are_held_out_together(tmp_path: Path) -> None:
    lines = [text for i in range(20) for text in (f"prompt {i}", f"Prompt {i}!")]
    rows, _ = collect(PromptsConfig(file=_file(tmp_path / "a.txt", lines), test_share=0.3))
    test = {r.prompt.casefold().rstrip("!") for r in rows if r.split == "test"}
    assert len(test) == 6
    assert sum(r.split == "test" for r in rows) == 12
