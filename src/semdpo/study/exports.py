"""A study for two other programs: Potato, which serves annotations itself, and Rapidata, which has raters of its own.

Formats: Potato's configuration with its pairwise schema, batch assignment and instance display, as documented in
github.com/davidjurgens/potato; Rapidata's compare jobs, as documented for its Python client (docs.rapidata.ai).
All names are public ones: neither export says which method made an image.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from semdpo import disk
from semdpo.data.writers import encoded
from semdpo.errors import ConfigError, did_you_mean
from semdpo.study.blinding import SIDES, image_id, public_id, rater_id, sheet, trial_id, trials_of
from semdpo.study.design import Trial
from semdpo.study.images import images_of, served_images
from semdpo.study.judgements import methods_of_sides
from semdpo.study.plan import KEY, Study
from semdpo.study.public_folder import write_folder

Files = dict[str, bytes]
JOBS, COMPARISONS = "jobs.json", "comparisons.csv"


def export(study: Study, to: str, folder: Path) -> str:
    """Writes a study for another program, and into the study's folder what its public names stand for.

    Args:
        study: the study.
        to: ``potato`` or ``rapidata``.
        folder: the folder; one that semdpo made is replaced.

    Returns:
        What to do next, one sentence.

    Raises:
        ConfigError: there is no such program.
        DataError: an image is missing or damaged.
        StoreError: the folder holds files that semdpo did not make, or a folder cannot be written.
    """
    programs = {
        "potato": (
            _potato,
            "in that folder, run potato start config.yaml; raters log in with the names of data/*.jsonl",
        ),
        "rapidata": (_rapidata, f"give each job of {JOBS} to RapidataClient().job.create_compare_job_definition"),
    }
    if to not in programs:
        raise ConfigError(f"--to is '{to}'{did_you_mean(to, programs)}")
    make, hint = programs[to]
    disk.write_bytes(study.folder / KEY, _key(study))
    write_folder(folder, make(study))
    return f"{hint}; {study.folder / KEY} says what the names in the results stand for, and stays private"


def _key(study: Study) -> bytes:
    """What public names stand for, one row a trial: with the raters' choices, these are a table of judgements."""
    images = {image.name: image for image in study.plan.images}
    public = {trial.name: trial_id(study, trial) for trial in study.plan.trials}
    rows = []
    for trial in study.plan.trials:
        left_method, right_method = methods_of_sides(trial, images)
        row = {
            "trial": public[trial.name],
            "comparison": _comparison_id(study, trial),
            "rater": rater_id(study, trial.rater),
            "kind": trial.kind,
            "repeats": None if trial.repeats is None else public[trial.repeats],
            "prompt_id": trial.prompt_id,
            "left": image_id(study, trial, "left"),
            "right": image_id(study, trial, "right"),
            "left_method": left_method,
            "right_method": right_method,
        }
        rows.append(row)
    return encoded(".jsonl", {name: [row[name] for row in rows] for name in rows[0]})


# ------------------------------------------------------------------------------------------------------- Potato


def _potato(study: Study) -> Files:
    """One data file a rater, in the rater's order; every item says which image is on which side."""
    served, contents = served_images(study), Files()
    raters = {rater: rater_id(study, rater) for rater in range(study.plan.raters)}
    for rater, name in raters.items():
        lines = [_item(row, position) for position, row in enumerate(sheet(study, rater)["trials"])]
        contents[f"data/{name}.jsonl"] = "".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in lines).encode()
        for image, png in images_of(study, rater, served).items():
            contents[f"media/{image}.png"] = png
    config = _potato_config(study, list(raters.values()))
    contents["config.yaml"] = yaml.safe_dump(config, sort_keys=False, allow_unicode=True, width=100).encode()
    return contents


def _item(row: Mapping[str, str], position: int) -> dict[str, Any]:
    images = [f"/media/{row[side]}.png" for side in SIDES]
    shown = {"left": images[0], "right": images[1], "images": images}
    return {"id": row["id"], "text": row["prompt"], **shown, "position": position}


def _potato_config(study: Study, raters: list[str]) -> dict[str, Any]:
    plan = study.plan
    tie = {"allow_tie": False} if plan.tie is None else {"allow_tie": True, "tie_label": plan.tie}
    return {
        "annotation_task_name": plan.title,
        "task_dir": ".",
        "output_annotation_dir": "annotation_output",
        "output_annotation_format": "jsonl",
        "media_directory": "media",
        "data_files": [],
        "item_properties": {"id_key": "id", "text_key": "text"},
        "user_config": {"allow_all_users": False, "users": raters},
        "require_password": False,  # nobody guesses a rater's public name
        "assignment_strategy": "batch",
        "num_annotators_per_item": 1,
        "batch_assignment": {
            "groups": [{"name": name, "annotators": [name], "data_file": f"data/{name}.jsonl"} for name in raters]
        },
        "jumping_to_id_disabled": True,
        "instance_display": {
            "fields": [
                {"key": "text", "type": "text", "label": "What was asked for"},
                {"key": "left", "type": "image", "label": "Image 1", "display_options": {"zoomable": False}},
                {"key": "right", "type": "image", "label": "Image 2", "display_options": {"zoomable": False}},
            ],
            "layout": {"direction": "horizontal", "gap": "16px"},
        },
        "annotation_schemes": [
            {
                "annotation_type": "pairwise",
                "name": each["name"],
                "description": each["words"],
                "mode": "binary",
                "items_key": "images",
                "labels": ["Image 1", "Image 2"],
                **tie,
                "label_requirement": {"required": True},
            }
            for each in sheet(study, 0)["questions"]
        ],
    }


# ----------------------------------------------------------------------------------------------------- Rapidata


def _rapidata(study: Study) -> Files:
    """One compare job a question. Rapidata finds its raters, so that each comparison stands there once.

    Repeats and attention checks are left out: Rapidata checks its raters by means of its own.
    """
    served, contents, rows = served_images(study), Files(), list[dict[str, str]]()
    for trial in _comparisons(study):
        row = {"comparison": _comparison_id(study, trial), "prompt": study.plan.prompts[trial.prompt_id]}
        for side, name in zip(SIDES, (trial.left, trial.right), strict=True):
            row[side] = f"images/{image_id(study, trial, side)}.png"
            contents[row[side]] = served[name]
        rows.append(row)
    jobs = [_job(study, question, rows) for question in sheet(study, 0)["questions"]]
    contents[JOBS] = (json.dumps(jobs, indent=1, ensure_ascii=False) + "\n").encode()
    columns = ("comparison", "prompt", *SIDES)
    contents[COMPARISONS] = encoded(".csv", {name: [row[name] for row in rows] for name in columns})
    return contents


def _comparisons(study: Study) -> list[Trial]:
    """One trial of each comparison: of those that show the same images, the one whose public name comes first."""
    chosen: dict[tuple[str, ...], Trial] = {}
    trials = [trial for rater in range(study.plan.raters) for trial in trials_of(study, rater)]
    for trial in sorted(trials, key=lambda trial: public_id(study.secret, "trial", trial.name)):
        if trial.kind == "comparison":
            chosen.setdefault((trial.prompt_id, *sorted((trial.left, trial.right))), trial)
    return list(chosen.values())


def _comparison_id(study: Study, trial: Trial) -> str:
    return public_id(study.secret, "pair", ":".join([trial.prompt_id, *sorted((trial.left, trial.right))]))


def _job(study: Study, question: Mapping[str, str], rows: list[dict[str, str]]) -> dict[str, Any]:
    """The arguments of ``create_compare_job_definition``; ``settings`` has the names of Rapidata's classes."""
    votes = sum(trial.kind == "comparison" for trial in study.plan.trials)
    return {
        "name": f"{study.plan.title}: {question['name']}",
        "instruction": question["words"],
        "datapoints": [[row[side] for side in SIDES] for row in rows],
        "contexts": [row["prompt"] for row in rows],
        "responses_per_datapoint": max(1, round(votes / max(1, len(rows)))),
        "private_metadata": [{"comparison": row["comparison"]} for row in rows],
        "settings": [] if study.plan.tie is None else ["AllowNeitherBothSetting"],
    }
