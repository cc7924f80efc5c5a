"""A small study of painted images: one method paints what was asked, the other one something else."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
from PIL import Image

from semdpo.engine.store import digest
from semdpo.study.assignment import Check, Item, assign
from semdpo.study.design import MATCH, QUESTIONS, Analysis, Exclusion, Plan, StudyImage
from semdpo.study.encoding import png
from semdpo.study.plan import Study, read_study, write_study
from semdpo.tiny_world.grammar import Item as Thing
from semdpo.tiny_world.grammar import Scene
from semdpo.tiny_world.painter import paint

ASKED = [("red", "ball"), ("blue", "car"), ("green", "tree"), ("white", "cat"), ("yellow", "fish"), ("purple", "boat")]


def _image(color: str, thing: str, place: str, seed: int) -> bytes:
    scene = Scene((Thing(thing, color, "large"),), "row", place, "day")
    return png(Image.fromarray(paint(scene, np.random.default_rng(seed))))


def images() -> dict[tuple[str, str], bytes]:
    """Prompt's id and method → PNG."""
    shown = {}
    for k, (color, thing) in enumerate(ASKED):
        other_color, other_thing = ASKED[(k + 3) % len(ASKED)]
        shown[f"p{k}", "good"] = _image(color, thing, "desert", k)
        shown[f"p{k}", "bad"] = _image(other_color, other_thing, "snow", 50 + k)
    return shown


def plan(raters: int = 4, tie: str | None = "cannot tell", *, questions: tuple[str, ...] = (MATCH, "prefer")) -> Plan:
    """The plan of the study."""
    shown = images()
    names = {key: f"i{k:04d}" for k, key in enumerate(shown)}
    prompts = {f"p{k}": f"a {color} {thing} in the desert" for k, (color, thing) in enumerate(ASKED)}
    items = [Item(p, ("good", "bad"), (names[p, "good"], names[p, "bad"])) for p in prompts]
    last = len(ASKED)
    checks = [Check(f"p{k}", names[f"p{k}", "good"], names[f"p{(k + 1) % last}", "good"]) for k in range(last)]
    return Plan(
        title="Which fits?",
        seed=3,
        methods=("good", "bad"),
        questions={name: QUESTIONS[name] for name in questions},
        tie=tie,
        prompts=prompts,
        images=tuple(
            StudyImage(names[p, m], m, p, 0, digest(data), f"{prompts[p]}, {m} style") for (p, m), data in shown.items()
        ),
        trials=tuple(assign(items, checks, raters, len(ASKED), 0.3, 2, 3)),
        raters=raters,
        exclusion=Exclusion(),
        analysis=Analysis(),
        consent="I agree.",
        inputs={},
        size=(64, 64),
        simulated=True,
    )


def study(folder: Path, **changed: object) -> Study:
    """The study in a folder."""
    made = dataclasses.replace(plan(), **changed)  # type: ignore[arg-type]
    write_study(folder, made, {digest(data): data for data in images().values()})
    return read_study(folder)
