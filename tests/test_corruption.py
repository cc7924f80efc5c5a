"""Every kind of file of a run, damaged in every way: never used in silence, never a traceback, and cured by --fresh."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from semdpo import pipeline
from semdpo.engine import claims, shard_files, store
from semdpo.errors import DataError, StoreError
from semdpo.recipe.schema import Recipe
from semdpo.reporting.report import REPORT_FILES, publish
from tests.stand_ins import Renderer, models, recipe_of

pytestmark = pytest.mark.usefixtures("stand_in_trainings")


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x10
    path.write_bytes(bytes(data))


DAMAGE: dict[str, Callable[[Path], object]] = {"flipped": _flip, "removed": lambda path: path.unlink()}
# What no result depends on, or what is written again each time.
OF_NO_CONSEQUENCE = {"timing.json", ".lock", ".lock.pid", ".semdpo.json", "started.json"}


@pytest.fixture(autouse=True, scope="module")
def _unplotted() -> Iterator[None]:
    """Plots take seconds; what a report is made from is verified before it is written."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "_write_report", lambda _stages, _run: None)
        yield


def _kinds(run: Path) -> dict[str, Path]:
    """One file of each kind: of each stage each name, numbers and methods apart."""
    found: dict[str, Path] = {}
    for path in sorted(run.rglob("*")):
        name = path.relative_to(run).as_posix()
        if path.is_file() and not name.startswith("report/") and path.name not in OF_NO_CONSEQUENCE:
            found.setdefault(re.sub(r"part-\d+|(?<=evaluate/)\w+|(?<=train/)\w+", "N", name), path)
    return found


def _contents(run: Path) -> dict[str, bytes]:
    files = (path for path in run.rglob("*") if path.is_file() and path.name not in OF_NO_CONSEQUENCE)
    return {
        name: path.read_bytes()
        for path in files
        if not (name := path.relative_to(run).as_posix()).startswith("report/") and "reference" not in name
    }


def _refusal(recipe: Recipe, run: Path) -> str:
    """What is said when a run is run again; empty when it ends."""
    try:
        pipeline.run(recipe, run, models=models())
    except StoreError as error:
        return str(error)
    return ""


# tests/test_store.py has the other ways, for one stage: each takes half a minute for all kinds of files.
@pytest.mark.slow
@pytest.mark.parametrize("how", ["flipped", "removed"])
def test_nothing_damaged_is_used(how: str, finished: Path, tmp_path: Path) -> None:
    """Each kind of file in turn: the run is refused by name, or ends with the same bytes; --fresh always cures it."""
    recipe, whole = recipe_of(finished), _contents(finished / "run")
    kinds = _kinds(finished / "run")
    assert len(kinds) > 15
    outcomes = {}
    for index, (kind, original) in enumerate(kinds.items()):
        run = Path(shutil.copytree(finished / "run", tmp_path / str(index)))
        DAMAGE[how](run / original.relative_to(finished / "run"))
        said = _refusal(recipe, run)
        outcomes[kind] = "refused" if said else "made again"
        if said:
            stage = original.parent.relative_to(finished / "run").as_posix()
            assert stage in said, f"{kind}: {said}"
            assert "--fresh" in said or "not finished" in said, f"{kind}: {said}"
            pipeline.run(recipe, run, fresh=True, models=models())
        assert _contents(run) == whole, f"{kind} {how}"
        shutil.rmtree(run)
    assert outcomes["recipe.json"] == "made again"
    if how != "removed":  # an unfinished stage is finished from what is there
        assert set(outcomes.values()) == {"refused", "made again"}
        again = {kind for kind, outcome in outcomes.items() if outcome == "made again"}
        assert again == {"recipe.json", "sft/guard.json", "train/N/guard.json"}, "what every run writes anew"


@pytest.fixture(scope="module")
def unfinished(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was stopped in ``label``: two of five shards are made."""

    class Failing(Renderer):
        def render(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[Image.Image]:
            if self.calls == 10:
                raise DataError("the disk was lost")
            return super().render(prompts, seeds)

    run = tmp_path_factory.mktemp("unfinished") / "run"
    failing = Failing(0.0)
    with pytest.raises(DataError, match="the disk was lost"):
        pipeline.run(recipe_of(finished), run, models=replace(models(), renderer=lambda _: failing))
    assert shard_files.is_noted(run / "label", 1)
    assert not store.is_complete(run / "label")
    return run


def _emptied(path: Path) -> None:
    path.write_bytes(b"")


def _truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


@pytest.mark.parametrize("damage", [_flip, _emptied, _truncated, Path.unlink])
def test_an_unfinished_stage_is_finished_from_what_is_whole(
    damage: Callable[[Path], object], finished: Path, unfinished: Path, tmp_path: Path
) -> None:
    whole = {name: data for name, data in _contents(finished / "run").items() if name.startswith("label/")}
    for name in ("part-00000.parquet", "made/part-00000.json", "started.json"):
        run = Path(shutil.copytree(unfinished, tmp_path / name.replace("/", "-")))
        damage(run / "label" / name)
        if name == "started.json":  # the folder cannot be known for one of semdpo's
            with pytest.raises(StoreError, match=r"label (was (not )?(made|started)|cannot be read)"):
                pipeline.run(recipe_of(finished), run, only="label", models=models())
            continue
        pipeline.run(recipe_of(finished), run, only="label", models=models())
        assert {name: data for name, data in _contents(run).items() if name.startswith("label/")} == whole


def test_damaged_claims_of_dead_processes_are_in_nobodys_way(
    finished: Path, unfinished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(claims.SILENCE, "1")
    run = Path(shutil.copytree(unfinished, tmp_path / "run"))
    place = run / claims.FOLDER / "label"
    place.mkdir(parents=True)
    for index, content in enumerate([b"", b"\xff\0", b"host-12-", b"../../x", b"n" * 300]):
        (place / str(index)).write_bytes(content)
        os.utime(place / str(index), (0, 0))
    pipeline.run(recipe_of(finished), run, only="label", models=models(), shard=(1, 1))
    pipeline.run(recipe_of(finished), run, only="label", models=models())
    assert not (run / claims.FOLDER).exists()
    assert (run / "label/manifest.json").read_bytes() == (finished / "run/label/manifest.json").read_bytes()


def test_damaged_times_change_nothing(finished: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(finished / "run", tmp_path / "run"))
    damages = [_flip, _emptied, _truncated, Path.unlink]
    notes = sorted(run.rglob("timing.json"))
    for index, note in enumerate(notes):
        damages[index % 4](note)
    (run / "sft.partial.seconds.json").write_bytes(b"")
    pipeline.run(recipe_of(finished), run, models=models())
    assert _contents(run).items() >= _contents(finished / "run").items()


def test_what_was_added_to_a_stage_is_not_used(finished: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(finished / "run", tmp_path / "run"))
    shutil.copyfile(run / "candidates/part-00000.parquet", run / "candidates/part-00009.parquet")
    with pytest.raises(StoreError, match=r"candidates holds part-00009\.parquet, which does not belong to it.*--fresh"):
        pipeline.run(recipe_of(finished), run, models=models())


@pytest.mark.parametrize("stage", ["sft", "candidates", "train/dpo"])
def test_a_users_folder_of_a_stages_name_stays(stage: str, tmp_path: Path) -> None:
    mine = tmp_path / "run" / stage / "index.html"
    mine.parent.mkdir(parents=True)
    mine.write_text("the user's")
    for fresh in (False, True):
        with pytest.raises(StoreError, match=r"was not made by semdpo|no report wrote it"):
            pipeline.run(recipe_of(tmp_path), tmp_path / "run", fresh=fresh, models=models())
    assert mine.read_text() == "the user's"
    assert not (tmp_path / "run/prompts").exists(), "it is refused before anything is made"


@pytest.mark.parametrize("names", ['["../../x", "/tmp/x"]', "{}", "3", "[" * 100_000, '[["a"], 3, "gone"]', ""])
def test_a_reports_list_of_files_harms_nothing_else(names: str, tmp_path: Path) -> None:
    page = tmp_path / "run/report/index.html"
    publish(page, "first", {"tables/a.csv": b"1"}, REPORT_FILES)
    (tmp_path / "x").write_text("the user's")
    (page.parent / "mine.txt").write_text("the user's")
    (page.parent / REPORT_FILES).write_text(names)
    with pytest.raises(StoreError, match="no report wrote it"):  # its own page is not on the list any more
        publish(page, "second", {"tables/b.csv": b"2"}, REPORT_FILES)
    assert (tmp_path / "x").read_text() == "the user's"
    assert (page.parent / "mine.txt").read_text() == "the user's"
    assert page.read_text() == "first"


def test_a_report_removes_what_the_last_one_wrote(tmp_path: Path) -> None:
    page = tmp_path / "report/index.html"
    publish(page, "first", {"tables/a.csv": b"1", "tables/b.csv": b"1"}, REPORT_FILES)
    (page.parent / "tables/mine.csv").write_text("the user's")
    publish(page, "second", {"tables/b.csv": b"2"}, REPORT_FILES)
    found = {path.relative_to(page.parent).as_posix() for path in page.parent.rglob("*") if path.is_file()}
    assert found == {REPORT_FILES, "index.html", "tables/b.csv", "tables/mine.csv"}


def test_a_stage_behind_a_link_is_not_removed(finished: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(finished / "run", tmp_path / "run"))
    (run / "label").rename(tmp_path / "elsewhere")
    (run / "label").symlink_to(tmp_path / "elsewhere")
    pipeline.run(recipe_of(finished), run, only="pairs", models=models())  # it may be read
    with pytest.raises(StoreError, match="is a link"):
        pipeline.run(recipe_of(finished), run, only="label", fresh=True, models=models())
    assert (tmp_path / "elsewhere/manifest.json").is_file()


def test_a_users_recipe_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    mine = tmp_path / "run/recipe.json"
    mine.write_text('{"dish": "soup"}')
    with pytest.raises(StoreError, match=r"recipe\.json"):
        pipeline.run(recipe_of(tmp_path), tmp_path / "run", models=models())
    assert mine.read_text() == '{"dish": "soup"}'
