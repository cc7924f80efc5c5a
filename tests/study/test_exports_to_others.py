"""Exports for Potato and Rapidata: every trial in its order, every comparison once, and no private name anywhere."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest
import yaml
from PIL import Image

from semdpo.errors import ConfigError, StoreError
from semdpo.study.blinding import SIDES, image_id, rater_id, sheet, trial_id
from semdpo.study.design import MATCH, Vote
from semdpo.study.exports import export
from semdpo.study.judgements import judgements, read_judgements
from semdpo.study.plan import KEY, Study, refuse_started
from tests.study import example
from tests.study.studies import THREE, make


@pytest.fixture
def three(tmp_path: Path) -> Study:
    return make(tmp_path / "study", questions=THREE)


def _everything(folder: Path) -> str:
    files = [path for path in folder.rglob("*") if path.is_file()]
    texts = [path.read_text() for path in files if path.suffix != ".png"]
    return "\n".join([*texts, *(str(path.relative_to(folder)) for path in files)])


@pytest.mark.parametrize("to", ["potato", "rapidata"])
def test_no_private_name_is_exported(to: str, three: Study, tmp_path: Path) -> None:
    export(three, to, tmp_path / "out")
    said, plan = _everything(tmp_path / "out"), three.plan
    private = [*plan.methods, *plan.prompts, str(three.folder), *(trial.name for trial in plan.trials)]
    private += [each for image in plan.images for each in (image.name, image.sha256, image.rewrite)]
    assert [name for name in private if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", said)] == []
    sizes = {len(path.read_bytes()) for path in (tmp_path / "out").rglob("*.png")}
    assert len(sizes) == 1


def test_potato(three: Study, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert "potato start config.yaml" in export(three, "potato", out)
    config = yaml.safe_load((out / "config.yaml").read_text())
    assert {"annotation_task_name", "task_dir", "output_annotation_dir", "item_properties"} <= config.keys()
    assert {each["name"]: each["description"] for each in config["annotation_schemes"]} == THREE
    assert all(each["allow_tie"] and each["tie_label"] == "Cannot tell" for each in config["annotation_schemes"])
    groups = config["batch_assignment"]["groups"]
    assert [group["annotators"] for group in groups] == [[rater_id(three, rater)] for rater in range(3)]
    for rater, group in enumerate(groups):
        items = [json.loads(line) for line in (out / group["data_file"]).read_text().splitlines()]
        wanted = sheet(three, rater)["trials"]
        assert [(item["id"], item["text"], item["position"]) for item in items] == [
            (trial["id"], trial["prompt"], position) for position, trial in enumerate(wanted)
        ]
        for item, trial in zip(items, wanted, strict=True):
            assert item["images"] == [item["left"], item["right"]]
            for side in ("left", "right"):
                assert item[side] == f"/media/{trial[side]}.png"
                with Image.open(out / item[side].lstrip("/")) as image:
                    assert image.size == three.plan.size


def test_rapidata(three: Study, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export(three, "rapidata", out)
    jobs = json.loads((out / "jobs.json").read_text())
    assert {job["instruction"] for job in jobs} == set(THREE.values())
    with (out / "comparisons.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert sorted(row["prompt"] for row in rows) == sorted(three.plan.prompts.values())
    for job in jobs:
        assert job["datapoints"] == [[row["left"], row["right"]] for row in rows]
        assert job["contexts"] == [row["prompt"] for row in rows]
        assert job["private_metadata"] == [{"comparison": row["comparison"]} for row in rows]
        assert (job["responses_per_datapoint"], job["settings"]) == (3, ["AllowNeitherBothSetting"])
        assert all((out / name).is_file() for pair in job["datapoints"] for name in pair)


@pytest.mark.parametrize("to", ["potato", "rapidata"])
def test_results_of_other_programs_find_their_methods(to: str, tmp_path: Path) -> None:
    """The key and the raters' choices are a table of judgements: that of the same votes on the study's own page."""
    study = example.study(tmp_path / "study")
    export(study, to, tmp_path / "out")
    key = [json.loads(line) for line in (study.folder / KEY).read_text().splitlines()]
    assert [row["trial"] for row in key] == [trial_id(study, trial) for trial in study.plan.trials]
    assert {"comparison", "repeat", "attention"} == {row["kind"] for row in key}
    images = {image.name: image for image in study.plan.images}
    for row, trial in zip(key, study.plan.trials, strict=True):
        assert (row["left"], row["right"]) == tuple(image_id(study, trial, side) for side in SIDES)
        assert trial.kind == "attention" or row["left_method"] == images[trial.left].method
    if to == "rapidata":
        with (tmp_path / "out" / "comparisons.csv").open(newline="") as file:
            listed = {Path(row["left"]).stem for row in csv.DictReader(file)}
        assert listed < {row["left"] for row in key}
    table = tmp_path / "judgements.jsonl"
    table.write_text("".join(json.dumps(row | {"choice": "left"}) + "\n" for row in key))
    votes = [Vote(t.name, t.rater, MATCH, "left", t.left, t.right, 1.0, "") for t in study.plan.trials]
    wanted = judgements(study.plan, votes)
    found = read_judgements(table)
    assert [(row.prompt_id, row.kind, row.left_method, row.right_method) for row in found] == [
        (row.prompt_id, row.kind, row.left_method, row.right_method) for row in wanted
    ]
    refuse_started(study.folder)  # a new plan may replace it


def test_what_cannot_be_exported(three: Study, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--to is 'potatoe'; did you mean 'potato'"):
        export(three, "potatoe", tmp_path / "out")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").touch()
    with pytest.raises(StoreError, match="was not made by semdpo and would be lost"):
        export(three, "potato", tmp_path / "mine")
    export(three, "potato", tmp_path / "out")
    export(three, "rapidata", tmp_path / "out")  # its own is replaced
    assert not (tmp_path / "out" / "config.yaml").exists()
