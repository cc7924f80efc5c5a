"""A plan of a run: the same bytes for a seed, sealed, and refused when anything has changed."""

from __future__ import annotations

import io
import sqlite3
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from semdpo import pipeline
from semdpo.engine.stage import Run
from semdpo.engine.store import digest
from semdpo.errors import ConfigError, DataError, StoreError
from semdpo.study import from_run
from semdpo.study.design import MATCH, QUESTIONS, Analysis
from semdpo.study.encoding import png, same_size
from semdpo.study.plan import plan_bytes, read_study, refuse_started, write_study
from semdpo.study.planning import StudySettings, make_plan
from semdpo.study.power import Assumptions
from tests import stand_ins
from tests.study import example

QUICK = Assumptions(simulations=50)
SETTINGS = StudySettings(methods=("human", "sft", "dpo"), raters=3, assumptions=QUICK)


@pytest.fixture(scope="module")
def run(stand_in_trainings: None, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run of stand-ins; human and a method may have equal images only by chance, and have none here."""
    folder = tmp_path_factory.mktemp("run")
    recipe = stand_ins.recipe_of(folder)
    stand_ins.run_without_report(recipe, folder / "run", stand_ins.models())
    return Run(folder / "run", pipeline.recipe_of(folder / "run"), stand_ins.models())


def test_a_plan_compares_all_pairs_on_all_prompts_with_the_runs_own_pixels(run: Run) -> None:
    plan, images = make_plan(run, SETTINGS)
    kinds = Counter(trial.kind for trial in plan.trials)
    shown = 18 - len(plan.left_out)
    assert (kinds["comparison"], len(plan.prompts)) == (3 * shown, 6)
    assert (kinds["attention"], kinds["repeat"]) == (3, 3 * max(1, int(shown * 0.1 + 0.5)))
    by_name = {image.name: image for image in plan.images}
    for trial in plan.trials:
        left, right = by_name[trial.left], by_name[trial.right]
        if trial.kind == "attention":
            assert left.method == right.method
            assert (left.prompt_id == trial.prompt_id) != (right.prompt_id == trial.prompt_id)
        else:
            assert left.prompt_id == right.prompt_id == trial.prompt_id
            assert left.method != right.method
            assert left.image_seed == right.image_seed
    rows = {(row.method, row.prompt_id, row.image_seed): row for m in plan.methods for row in run.rows(
        f"evaluate/{m}/images", from_run.RenderedImage)}  # fmt: skip
    for image in plan.images:
        row = rows[image.method, image.prompt_id, image.image_seed]
        with Image.open(io.BytesIO(images[image.sha256])) as shown_image:
            assert (shown_image.mode, shown_image.format, shown_image.info) == ("RGB", "PNG", {})
            assert shown_image.tobytes() == from_run.decoded(row).tobytes()
        assert image.rewrite == row.rewrite
        assert plan.prompts[image.prompt_id] == row.prompt


def test_one_seed_gives_the_same_bytes_and_another_one_does_not(run: Run) -> None:
    one, same = (plan_bytes(make_plan(run, SETTINGS).plan) for _ in range(2))
    assert one == same
    assert one != plan_bytes(make_plan(run, replace(SETTINGS, seed=1)).plan)


def test_black_and_equal_images_are_left_out_and_counted(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    real, ids = from_run._rows, list(make_plan(run, SETTINGS).plan.prompts)

    def rows(run: Run, stage: str, method: str) -> list[from_run.RenderedImage]:
        return [replace(r, blackened=method == "dpo" and r.prompt_id == ids[0]) for r in real(run, stage, method)]

    decoded = from_run.decoded

    def equal(row: from_run.RenderedImage) -> Image.Image:
        return Image.new("RGB", (8, 8), "red") if row.prompt_id == ids[1] else decoded(row)

    before = make_plan(run, SETTINGS).plan.left_out
    monkeypatch.setattr(from_run, "_rows", rows)
    monkeypatch.setattr(from_run, "decoded", equal)
    plan = make_plan(run, SETTINGS).plan
    black = {(each.prompt_id, each.methods) for each in plan.left_out if each.reason == "blackened"}
    assert black == {(ids[0], ("human", "dpo")), (ids[0], ("sft", "dpo"))}
    same = [each for each in plan.left_out if each.reason == "equal images"]
    assert sum(each.prompt_id == ids[1] for each in same) == 3
    assert {each for each in before if each.prompt_id not in ids[:2]} <= set(plan.left_out)
    assert ids[1] not in plan.prompts
    compared = {(t.prompt_id, t.left, t.right) for t in plan.trials if t.kind == "comparison"}
    assert not any(prompt == ids[1] for prompt, _, _ in compared)


def test_images_that_could_not_be_rendered_are_left_out_and_counted(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    real, first = from_run._rows, next(iter(make_plan(run, SETTINGS).plan.prompts))

    def rows(run: Run, stage: str, method: str) -> list[from_run.RenderedImage]:
        found = real(run, stage, method)
        return [replace(row, error="no" if method == "dpo" and row.prompt_id == first else None) for row in found]

    monkeypatch.setattr(from_run, "_rows", rows)
    left_out = make_plan(run, SETTINGS).plan.left_out
    missing = {(each.prompt_id, each.methods) for each in left_out if each.reason == "not rendered"}
    assert missing == {(first, ("human", "dpo")), (first, ("sft", "dpo"))}
    assert not any(each.reason == "blackened" for each in left_out)


def test_prompts_are_drawn_and_shared_out(run: Run) -> None:
    settings = replace(SETTINGS, prompts=4, prompts_per_rater=2, raters=4, repeats=0, attention=0)
    plan = make_plan(run, settings).plan
    assert len(plan.prompts) == 4
    seen = Counter(prompt for _, prompt in {(t.rater, t.prompt_id) for t in plan.trials})
    assert set(seen.values()) == {2}
    assert {len({t.prompt_id for t in plan.trials if t.rater == r}) for r in range(4)} == {2}
    assert len({tuple(make_plan(run, replace(settings, seed=s)).plan.prompts) for s in range(5)}) > 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"methods": ("human", "dp")}, "no method 'dp'; did you mean 'dpo'"),
        ({"methods": ("human",)}, "two methods or more"),
        ({"methods": ("human", "human")}, "given twice"),
        ({"prompts": 7}, "evaluated 6 prompts only"),
        ({"prompts_per_rater": 7}, "only 6 prompts can be compared"),
        ({"attention": 7}, "only 6 prompts can be checked"),
        ({"title": " \u200b"}, "--title has no readable words"),
        ({"tie": "\ud83d"}, "--tie has no readable words"),
        ({"questions": {}}, "needs a question"),
        ({"questions": {"prefer": QUESTIONS["prefer"]}}, "--primary is 'match', which no rater is asked"),
        (
            {"questions": {"prefer": "?"}, "analysis": Analysis(primary="prefer"), "attention": 1},
            "attention checks have a right answer",
        ),
    ],
)
def test_settings_that_do_not_fit_are_refused(run: Run, change: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make_plan(run, replace(SETTINGS, **change))  # type: ignore[arg-type]
    assert words in str(caught.value)


def test_without_the_question_match_there_are_no_attention_checks(run: Run) -> None:
    asked = replace(SETTINGS, questions={"prefer": QUESTIONS["prefer"]}, analysis=Analysis(primary="prefer"))
    assert "attention" not in {trial.kind for trial in make_plan(run, asked).plan.trials}


def test_an_unfinished_evaluation_is_refused(run: Run, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="has no images of 'human' yet"):
        make_plan(replace(run, folder=tmp_path), SETTINGS)


# ------------------------------------------------------------------------------------------------- the folder


def test_a_study_is_read_as_it_was_written(tmp_path: Path) -> None:
    study = example.study(tmp_path / "study")
    assert study.plan == example.plan()
    assert list(study.plan.questions) == [MATCH, "prefer"]
    assert len(study.secret) == 32
    assert (tmp_path / "study" / "secret").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "study" / "plan.sha256").read_text().strip() == digest(plan_bytes(study.plan))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["study"]


@pytest.mark.parametrize("name", ["plan.json", "plan.sha256", "secret"])
def test_a_missing_file_is_refused_by_name(name: str, tmp_path: Path) -> None:
    folder = example.study(tmp_path / "study").folder
    (folder / name).unlink()
    with pytest.raises(DataError, match=f"because {name} is missing"):
        read_study(folder)


def test_a_changed_plan_or_image_is_refused_by_name(tmp_path: Path) -> None:
    folder = example.study(tmp_path / "study").folder
    data, image = (folder / "plan.json").read_bytes(), next((folder / "images").iterdir())
    (folder / "plan.json").write_bytes(data.replace(b"0.34", b"0.35"))
    with pytest.raises(DataError, match=r"plan\.json has changed since it was fixed"):
        read_study(folder)
    for changed, words in (
        (data.replace(b'"seed": 3', b'"seed": "3"', 1), "seed: Input should be a valid integer"),
        (data.replace(b'"seed": 3', b'"seed": 3,\n "more": 1', 1), "it has other keys or another form"),
        (data.replace(b'"right": "i0', b'"right": "j0', 1), "names what is not there"),
        (data.replace(b'"name": "t00001"', b'"name": "t00000"', 1), "two things have the name t00000"),
    ):
        assert changed != data
        (folder / "plan.json").write_bytes(changed)
        (folder / "plan.sha256").write_text(digest(changed))
        with pytest.raises(DataError) as caught:
            read_study(folder)
        assert words in str(caught.value)
    (folder / "plan.json").write_bytes(data)
    (folder / "plan.sha256").write_text(digest(data))
    read_study(folder)
    kept = image.read_bytes()
    image.write_bytes(kept[:-1])
    with pytest.raises(DataError, match=f"{image.name} has changed since the plan was fixed"):
        read_study(folder)
    image.unlink()
    with pytest.raises(DataError, match=f"{image.name} is missing"):
        read_study(folder)
    image.write_bytes(kept)
    (folder / "secret").write_text("00")
    with pytest.raises(DataError, match="secret is damaged"):
        read_study(folder)


def test_only_a_plan_without_votes_is_replaced(tmp_path: Path) -> None:
    folder = example.study(tmp_path / "study").folder
    first = read_study(folder).secret
    base = sqlite3.connect(folder / "votes.sqlite")
    base.execute("CREATE TABLE votes (trial TEXT)")
    base.commit()
    assert example.study(folder, title="Another").plan.title == "Another"
    assert read_study(folder).secret != first
    assert not (folder / "votes.sqlite").exists()
    base.close()
    base = sqlite3.connect(folder / "votes.sqlite")
    base.execute("CREATE TABLE votes (trial TEXT)")
    base.execute("INSERT INTO votes VALUES ('t00000')")
    base.commit()
    base.close()
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    with pytest.raises(StoreError, match="holds the votes of a study that has begun"):
        write_study(folder, example.plan(), {})
    assert before == {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    (folder / "votes.sqlite").write_bytes(b"not a database, perhaps votes")
    with pytest.raises(StoreError, match="holds the votes"):
        refuse_started(folder)


def test_files_of_others_are_not_lost(tmp_path: Path) -> None:
    folder = example.study(tmp_path / "study").folder
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(StoreError, match=r"notes\.txt is no part of a plan and would be lost"):
        write_study(folder, example.plan(), {})
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("mine")
    with pytest.raises(StoreError, match="was not made by semdpo"):
        write_study(tmp_path / "mine", example.plan(), {})


def test_a_full_disk_is_one_error_and_leaves_nothing(small_disk: Path) -> None:
    plan = example.study(small_disk / "study").plan
    before = read_study(small_disk / "study").secret
    with pytest.raises(StoreError, match="there is no space left to write"):
        write_study(small_disk / "study", plan, {"0" * 64: bytes(3_000_000)})
    assert read_study(small_disk / "study").secret == before
    with pytest.raises(StoreError, match="there is no space left to write"):
        write_study(small_disk / "new", plan, {"0" * 64: bytes(3_000_000)})
    assert [path.name for path in small_disk.iterdir()] == ["study"]


# ------------------------------------------------------------------------------------------------- images


def test_sizes_of_one_proportion_become_one_and_others_are_refused() -> None:
    small, large = Image.new("RGB", (64, 48), "red"), Image.new("RGB", (129, 96), "blue")
    images, resized = same_size([small, large])
    assert resized
    assert {image.size for image in images} == {(64, 48)}
    assert same_size([small, small]) == ([small, small], False)
    with pytest.raises(DataError, match="render all methods at one size"):
        same_size([small, Image.new("RGB", (64, 64))])


def test_nothing_but_pixels_is_kept() -> None:
    image = Image.new("RGB", (8, 8), "red")
    image.info |= {"dpi": (72, 72), "icc_profile": b"profile", "comment": "by dpo"}
    assert png(image) == png(Image.new("RGB", (8, 8), "red"))
