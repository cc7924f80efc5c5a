"""Scores of earlier runs: the same ones, for the same image only."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from semdpo import disk
from semdpo.data.records import Score
from semdpo.engine import store
from semdpo.engine.score_cache import NAME, ScoreCache
from semdpo.errors import StoreError
from tests.stand_ins import Renderer, models, recipe_of, run_without_report

IMAGE = ("a cat, oil", 7, "a cat")


def test_scores_come_back_for_the_same_image_only(tmp_path: Path) -> None:
    kept = ScoreCache({"renderer": "a"}, tmp_path / NAME)
    assert kept.get([IMAGE]) == {}
    kept.put({IMAGE: (0.1, True), ("x", 2**62, "ü"): (-3.5e-9, False)})
    others = [("a cat, oil", 8, "a cat"), ("a cat, oil", 7, "a dog"), ("a cat", 7, "a cat, oil")]
    assert kept.get([IMAGE, *others, ("x", 2**62, "ü")]) == {IMAGE: (0.1, True), ("x", 2**62, "ü"): (-3.5e-9, False)}
    assert replace(kept, depends_on={"renderer": "b"}).get([IMAGE]) == {}
    many = {("a", index, "b"): (index / 7, index % 2 == 0) for index in range(1234)}
    kept.put(many)
    assert kept.get(list(many)) == many


def test_several_processes_write_at_once(tmp_path: Path) -> None:
    kept = ScoreCache({}, tmp_path / NAME)

    def put(number: int) -> None:
        for index in range(20):
            kept.put({(str(number), index, ""): (number + index / 100, False)})

    with ThreadPoolExecutor(8) as pool:  # a connection each
        list(pool.map(put, range(8)))
    assert len(kept.get([(str(number), index, "") for number in range(8) for index in range(20)])) == 160


@pytest.mark.parametrize("content", [b"no database", b"SQLite format 3\0" + b"x" * 5000])
def test_a_damaged_file_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(content)
    with pytest.raises(StoreError, match=r"cannot be used \(.*\); remove it, or set label\.reuse_scores=false"):
        ScoreCache({}, tmp_path / NAME).get([IMAGE])


class Counting(Renderer):
    """Counts the images."""

    def __init__(self) -> None:
        super().__init__(0.0)
        self.images = 0

    def render(self, prompts: list[str], seeds: list[int]) -> list[object]:  # type: ignore[override]
        self.images += len(prompts)
        return super().render(prompts, seeds)  # type: ignore[return-value]


def _labelled(folder: Path, run: Path, *overrides: str) -> tuple[int, list[Score]]:
    renderer = Counting()
    own = replace(models(), renderer=lambda _: renderer)
    run_without_report(recipe_of(folder, "label.reuse_scores=true", *overrides), run, own, last="label")
    return renderer.images, store.read_rows(run / "label", Score)


def test_a_later_run_renders_what_is_new(
    stand_in_trainings: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(disk.CACHE, str(tmp_path / "cache"))
    few = _labelled(tmp_path, tmp_path / "few", "prompts.limit=8")
    assert few[0] == len(few[1]) > 20
    all_images, scores = _labelled(tmp_path, tmp_path / "all")
    assert all_images == len(scores) - few[0]
    assert set(few[1]) < set(scores)
    assert _labelled(tmp_path, tmp_path / "again") == (0, scores)
    assert _labelled(tmp_path, tmp_path / "other", "label.renderer.steps=3")[0] == len(scores)
    assert _labelled(tmp_path, tmp_path / "seed", "label.seed=3")[0] == len(scores)
    assert _labelled(tmp_path, tmp_path / "scorer", "label.scorer=tiny:pickscore")[0] == len(scores)


def test_without_the_setting_nothing_is_kept(
    stand_in_trainings: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(disk.CACHE, str(tmp_path / "cache"))
    run_without_report(recipe_of(tmp_path), tmp_path / "run", models(), last="label")
    assert not (tmp_path / "cache" / NAME).exists()
