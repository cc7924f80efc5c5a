"""The report's study with simulated raters: says so everywhere, is whole, and is the same for the same images."""

from __future__ import annotations

import dataclasses
import hashlib
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from semdpo.data.records import content_seed
from semdpo.engine.stage import Run
from semdpo.errors import ConfigError
from semdpo.recipe.load import load_recipe
from semdpo.reporting.collect import report_data
from semdpo.reporting.report import ReportData, write_report
from semdpo.reporting.simulated_study import SimulatedStudy, published
from semdpo.reporting.study_sources import of_study
from semdpo.stages.flow import flow
from semdpo.study.design import QUESTIONS
from semdpo.study.tiny_votes import vote
from semdpo.tiny_world.facts import parse
from semdpo.tiny_world.grammar import Item as Thing
from semdpo.tiny_world.grammar import Scene
from semdpo.tiny_world.painter import paint
from tests.reporting.example import FIDELITY, PREFERENCE, evaluation
from tests.reporting.test_report import parsed
from tests.stand_ins import models, recipe_of, run_without_report
from tests.study import example


def _made(folder: Path) -> SimulatedStudy:
    study = example.study(folder)
    assert vote(study, 0) == 2 * len(study.plan.trials)
    return SimulatedStudy(of_study(folder), (folder / "plan.json").read_bytes())


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("study") / "study"


@pytest.fixture(scope="module")
def made(study: Path) -> SimulatedStudy:
    return _made(study)


@pytest.fixture(scope="module")
def folder(made: SimulatedStudy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a report."""
    data = ReportData(
        title="Trial", evaluation=evaluation(6), pairs=[], pair_counts={}, curves=[], stages=[], recipe="", versions={},
        alpha=None, notes=[], fidelity=FIDELITY, preference=PREFERENCE, study=made,
    )  # fmt: skip
    path = tmp_path_factory.mktemp("report")
    write_report(data, path / "index.html")
    return path


def test_the_page_says_that_the_raters_are_simulated_and_what_they_said(made: SimulatedStudy, folder: Path) -> None:
    page = (folder / "index.html").read_text()
    section = page.split("A study with simulated raters</h2>")[1].split("<h2>")[0]
    assert section.startswith("\n<p><strong>The raters are simulated: no person took part")
    (match,), prefer = made.report.results.primary, made.report.results.pairs[1]
    for pair in (match, prefer):
        share = f"{100 * pair.both.share:.1f}%</td>"
        interval = f"[{100 * pair.both.low:.1f}%, {100 * pair.both.high:.1f}%]"
        row = section.split(f"<td>{QUESTIONS[pair.question]}</td>")[1].split("</tr>")[0]
        again = made.report.results.consistency[pair.question]
        for cell in (share, interval, f"{pair.raters.prefer_first} of 4", f"{again.same} of {again.repeats}"):
            assert cell in row
    assert match.both.share > 0.8
    assert "Simulated raters (4)" in section
    checks = made.report.results.attention.values()
    assert f"Attention checks failed: {sum(n for n, _ in checks)} of 8." in section
    assert hashlib.sha256(made.plan).hexdigest() in section


def test_the_page_still_loads_nothing_and_links_to_the_whole_study(folder: Path) -> None:
    tags = parsed((folder / "index.html").read_text())
    assert tags.open == []
    ids = [value for _, name, value in tags.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    assert not {"script", "link", "iframe", "object", "embed"} & set(tags.tags)
    links = [value for tag, name, value in tags.attributes if (tag, name) == ("a", "href")]
    assert links == ["study/index.html"]
    whole = (folder / links[0]).read_text()
    assert "<title>Which fits? (simulated raters)</title>" in whole


def test_the_whole_study_lies_beside_the_page_without_its_secret(
    made: SimulatedStudy, study: Path, folder: Path
) -> None:
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    own = {name for name in files if name.startswith("study/")}
    assert {"study/index.html", "study/plan.json", "study/judgements.csv", "study/results.csv"} < own
    assert files["study/plan.json"] == made.plan
    assert len(pd.read_csv(folder / "study/judgements.csv")) == len(made.report.rows)
    secret = (study / "secret").read_text().strip()
    assert len(secret) == 64
    for name, content in files.items():
        assert secret.encode() not in content, name
        assert bytes.fromhex(secret) not in content, name
    assert not any("secret" in name or "sqlite" in name for name in files)


def test_another_secret_changes_no_byte(made: SimulatedStudy, study: Path, tmp_path: Path) -> None:
    again = _made(tmp_path / "study")
    assert (tmp_path / "study/secret").read_bytes() != (study / "secret").read_bytes()
    assert published(again) == published(made)


def test_why_there_is_no_study_is_said_and_escaped() -> None:
    section, files = published("the prompt <i> names nothing; ask people")
    assert "compared nothing: the prompt &lt;i&gt; names nothing; ask people." in section
    assert files == {}


def test_the_files_of_an_older_reports_study_are_removed(folder: Path, made: SimulatedStudy, tmp_path: Path) -> None:
    data = ReportData(
        title="Trial", evaluation=evaluation(6), pairs=[], pair_counts={}, curves=[], stages=[], recipe="", versions={},
        alpha=None, notes=[], fidelity=FIDELITY, preference=PREFERENCE, study=made,
    )  # fmt: skip
    write_report(data, tmp_path / "index.html")
    for path in (path for path in folder.rglob("*") if path.is_file()):
        assert (tmp_path / path.relative_to(folder)).read_bytes() == path.read_bytes(), "equal data, equal bytes"
    write_report(dataclasses.replace(data, study=None), tmp_path / "index.html")
    assert not [path for path in (tmp_path / "study").rglob("*") if path.is_file()]
    assert "simulated" not in (tmp_path / "index.html").read_text()


class Painter:
    """Paints what a text says, so that a run of stand-ins has images of the tiny world."""

    def render(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[Image.Image]:
        return [self._image(*each) for each in zip(prompts, seeds, strict=True)]

    def _image(self, prompt: str, seed: int) -> Image.Image:
        items = parse(prompt).items or (Thing("ball", "red", "large"),)
        scene = Scene(tuple(Thing(item.thing, item.color, "large") for item in items), "row", "desert", "day")
        return Image.fromarray(paint(scene, np.random.default_rng(content_seed(prompt, str(seed)))))


def _painter(config: object) -> Painter:
    return Painter()


def test_a_run_is_studied_twice_with_one_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stand_in_trainings: None
) -> None:
    (tmp_path / "asked.txt").write_text("\n".join(f"a {color} {thing}" for color, thing in example.ASKED))
    recipe = recipe_of(tmp_path, f"prompts.test_file={tmp_path}/asked.txt", "report.study=tiny")
    painting = dataclasses.replace(models(), renderer=_painter)
    run_without_report(recipe, tmp_path / "run", painting)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "elsewhere"))
    run = Run(tmp_path / "run", recipe, painting)
    before = sorted((tmp_path / "run").rglob("*"))
    study = report_data(flow(recipe), run).study
    assert isinstance(study, SimulatedStudy)
    assert (study.report.simulated, study.report.results.raters) == (True, 9)
    assert {(pair.question, pair.first, pair.second) for pair in study.report.results.pairs} == {
        ("match", "sem_dpo", "dpo"),
        ("prefer", "sem_dpo", "dpo"),
    }
    compared = set(study.report.prompts.values())
    assert compared < {f"a {color} {thing}" for color, thing in example.ASKED}
    assert f"The plan leaves out {6 - len(compared)} comparisons: equal images." in study.report.departures
    assert published(study) == published(report_data(flow(recipe), run).study or "")
    assert sorted((tmp_path / "run").rglob("*")) == before
    assert list((tmp_path / "elsewhere").iterdir()) == [], "the secret is gone"
    same = recipe.model_copy(update={"report": recipe.report.model_copy(update={"baseline": "sem_dpo"})})
    other = report_data(flow(same), Run(run.folder, same, painting)).study
    assert isinstance(other, SimulatedStudy)
    assert other.report.results.primary[0].second == "dpo", "the one that the report compares instead"


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["evaluate.renderer.model=stable-diffusion-v1-4"], "images of the tiny world only, and evaluate.renderer"),
        (["report.study=earth"], "'report.study' is 'earth'; it must be 'tiny'"),
    ],
)
def test_a_recipe_whose_images_they_cannot_judge_is_refused(overrides: list[str], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_recipe("tiny", overrides)
    assert said in str(caught.value)
    rest = [each for each in overrides if not each.startswith("report.study")]
    assert load_recipe("tiny", [*rest, "report.study=null", "atoms=null"]).report.study is None
