"""Images of earlier runs: the same ones, for the same batch only."""

from __future__ import annotations

import multiprocessing
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from semdpo import disk
from semdpo.data.records import BLACKENED
from semdpo.engine.image_cache import NAME, ImageCache, Rendered
from semdpo.errors import StoreError
from tests.stand_ins import Renderer, models, recipe_of, run_without_report

ROWS = [("a cat, oil", 7), ("a dog", 2**62)]
PLENTY = 1e9


def _image(seed: int, side: int = 8) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8))


def _shown(found: list[Rendered] | None) -> list[tuple[Any, str | None, bool]]:
    assert found is not None
    return [(None if i.image is None else np.asarray(i.image).tolist(), i.error, i.too_long) for i in found]


def test_images_come_back_for_the_same_batch_only(tmp_path: Path) -> None:
    kept = ImageCache({"renderer": "a"}, tmp_path / NAME, PLENTY)
    assert kept.get(ROWS) is None
    images = [Rendered(_image(1), None, True), Rendered(None, BLACKENED, False)]
    kept.put(ROWS, images)
    assert _shown(kept.get(ROWS)) == _shown(images)
    for others in (ROWS[:1], ROWS[::-1], [("a cat, oil", 8), ROWS[1]], [*ROWS, ("x", 1)]):
        assert kept.get(others) is None
    assert replace(kept, depends_on={"renderer": "b"}).get(ROWS) is None
    changed = [Rendered(_image(2), None, False), images[1]]
    kept.put(ROWS, changed)
    assert _shown(kept.get(ROWS)) == _shown(changed)


def _edited(path: Path, change: str) -> None:
    with closing(sqlite3.connect(path)) as file, file:
        file.execute(change)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE images SET image = substr(image, 1, 40) WHERE place = 0",
        "UPDATE images SET image = (SELECT image FROM images WHERE place = 1) WHERE place = 0",
        "UPDATE images SET image = NULL WHERE place = 0",
        "UPDATE images SET image = 'text' WHERE place = 0",
        "UPDATE images SET too_long = 1 WHERE place = 1",
        "UPDATE images SET error = x'ff' WHERE place = 1",
        "UPDATE images SET place = 1 - place + 7",
        "UPDATE images SET sha256 = NULL",
        "DELETE FROM images WHERE place = 1",
        "INSERT INTO images SELECT batch, 2, image, error, too_long, sha256 FROM images WHERE place = 1",
    ],
)
def test_a_damaged_entry_is_not_used_and_made_again(change: str, tmp_path: Path) -> None:
    kept = ImageCache({}, tmp_path / NAME, PLENTY)
    images = [Rendered(_image(1), None, False), Rendered(_image(2), None, False)]
    kept.put(ROWS, images)
    _edited(tmp_path / NAME, change)
    assert kept.get(ROWS) is None
    kept.put(ROWS, images)
    assert _shown(kept.get(ROWS)) == _shown(images)


@pytest.mark.parametrize("content", [b"no database", b"SQLite format 3\0" + b"x" * 5000])
def test_a_damaged_file_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(content)
    with pytest.raises(StoreError, match=r"keeps images.*cannot be used \(.*\); remove it, or set label\.reuse_images"):
        ImageCache({}, tmp_path / NAME, PLENTY).get(ROWS)


def test_the_oldest_images_make_room(tmp_path: Path) -> None:
    most = 300_000
    kept = ImageCache({}, tmp_path / NAME, most)
    batches = [[(str(number), 0), (str(number), 1)] for number in range(40)]
    for number, batch in enumerate(batches):
        kept.put(batch, [Rendered(_image(number, 64), None, False)] * 2)  # 2 x 12 kB
    found = [kept.get(batch) is not None for batch in batches]
    assert found == sorted(found)
    assert 8 <= sum(found) <= 12
    assert (tmp_path / NAME).stat().st_size < most + 50_000
    replace(kept, most=1).put(batches[0], [Rendered(_image(0), None, False)] * 2)
    assert not any(kept.get(batch) for batch in batches)


def _put_many(path: Path, number: int) -> None:
    kept = ImageCache({}, path, PLENTY)
    for index in range(20):
        kept.put([("shared", index)], [Rendered(_image(index), None, False)])
        kept.put([(str(number), index)], [Rendered(_image(number), None, False)])


def test_several_processes_write_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_put_many, args=(tmp_path / NAME, number)) for number in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    kept = ImageCache({}, tmp_path / NAME, PLENTY)
    for index in range(20):
        assert _shown(kept.get([("shared", index)])) == _shown([Rendered(_image(index), None, False)])
        assert all(kept.get([(str(number), index)]) is not None for number in range(3))


class Drawing(Renderer):
    """Counts the images, blackens some, finds some texts too long, and fails for some seeds, or for several at once."""

    def __init__(self) -> None:
        super().__init__(0.0)
        self.images, self.failing, self.alone = 0, False, False

    def render_checked(self, prompts: list[str], seeds: list[int]) -> list[tuple[Image.Image, bool]]:
        self.images += len(prompts)
        if self.alone and len(seeds) > 1:
            raise RuntimeError("not together")
        if self.failing and any(seed % 5 == 0 for seed in seeds):
            raise ValueError("no such colour")
        images = self.render(prompts, seeds)
        return [(image, seed % 3 == 0) for image, seed in zip(images, seeds, strict=True)]

    def too_long(self, prompts: list[str]) -> list[bool]:
        return [len(prompt) % 2 == 0 for prompt in prompts]


def _labelled(
    folder: Path, run: Path, *overrides: str, failing: bool = False, alone: bool = False
) -> tuple[int, dict[str, bytes]]:
    renderer = Drawing()
    renderer.failing, renderer.alone = failing, alone
    own = replace(models(), renderer=lambda _: renderer)
    run_without_report(recipe_of(folder, "label.max_failed=1.0", *overrides), run, own, last="label")
    return renderer.images, {path.name: path.read_bytes() for path in (run / "label").glob("part-*")}


@pytest.fixture
def cache(stand_in_trainings: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(disk.CACHE, str(tmp_path / "cache"))
    return tmp_path / "cache"


REUSE = "label.reuse_images=true"


def test_another_scorer_renders_nothing(cache: Path, tmp_path: Path) -> None:
    images, scores = _labelled(tmp_path, tmp_path / "without")
    assert not (cache / NAME).exists()
    assert _labelled(tmp_path, tmp_path / "first", REUSE) == (images, scores)
    assert _labelled(tmp_path, tmp_path / "again", REUSE) == (0, scores)
    other = ("label.scorer=tiny:pickscore", "scoring.batch_size=3")
    anew = _labelled(tmp_path, tmp_path / "other", *other)
    assert anew[0] == images
    assert _labelled(tmp_path, tmp_path / "other-again", *other, REUSE) == (0, anew[1])
    for setting in ("label.renderer.steps=3", "label.renderer.batch_size=5", "label.seed=3"):
        assert _labelled(tmp_path, tmp_path / setting, setting, REUSE)[0] == images


def test_a_damaged_image_is_rendered_again(cache: Path, tmp_path: Path) -> None:
    images, scores = _labelled(tmp_path, tmp_path / "first", REUSE)
    _edited(cache / NAME, "UPDATE images SET image = x'00' WHERE rowid = 1")
    again, same = _labelled(tmp_path, tmp_path / "again", REUSE)
    assert 0 < again < images
    assert same == scores
    assert _labelled(tmp_path, tmp_path / "healed", REUSE) == (0, scores)


def test_what_could_not_be_rendered_is_tried_again(cache: Path, tmp_path: Path) -> None:
    _, failed = _labelled(tmp_path, tmp_path / "failing", REUSE, failing=True)
    images, scores = _labelled(tmp_path, tmp_path / "corrected", REUSE)
    assert images > 0
    assert scores != failed
    assert scores == _labelled(tmp_path, tmp_path / "without")[1]


def test_images_that_were_rendered_one_by_one_are_not_kept(cache: Path, tmp_path: Path) -> None:
    _labelled(tmp_path, tmp_path / "alone", REUSE, alone=True)
    again = _labelled(tmp_path, tmp_path / "together", REUSE)
    images, scores = _labelled(tmp_path, tmp_path / "without")
    assert again[0] >= images - len(scores)  # a file may have one batch of a single image, which is kept
    assert again[1] == scores
    assert _labelled(tmp_path, tmp_path / "kept", REUSE) == (0, scores)
