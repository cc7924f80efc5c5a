"""Stage 1: the split is by content, and held-out prompts never leak."""

from __future__ import annotations

from pathlib import Path

import pytest

from semdpo.config import PromptsConfig
from semdpo.errors import DataError
from semdpo.records import content_id
from semdpo.stages.prompts import collect


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
    rows = collect(config)
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
        rows = collect(PromptsConfig(file=_file(tmp_path / name, lines), test_share=0.2))
        splits.append({r.prompt for r in rows if r.split == "test"})
        assert len(rows) == 50
    assert splits[0] == splits[1]
    assert len(splits[0]) == 10


def test_leaks_are_refused_even_when_case_and_spaces_differ(tmp_path: Path) -> None:
    config = PromptsConfig(
        file=_file(tmp_path / "a.txt", ["one", "A  red Ball"]), test_file=_file(tmp_path / "b.txt", ["a red ball"])
    )
    with pytest.raises(DataError, match="1 of the held-out prompts are also trained on, the first is 'a red ball'"):
        collect(config)


def test_too_few_prompts_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="too few prompts to hold some out"):
        collect(PromptsConfig(file=_file(tmp_path / "a.txt", ["one", "two"])))
