"""`semdpo study check`: a clean study passes, and every leak that is planted is found by its own sentence."""

from __future__ import annotations

import asyncio
import io
import json
import os
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations, pairwise, product
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, PngImagePlugin
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from semdpo.errors import DataError, EndpointError
from semdpo.study import blinding, leaks
from semdpo.study.assignment import Check, Item, assign
from semdpo.study.blinding import SIDES, image_id, rater_id, trials_of
from semdpo.study.crawl import FetchedImage, RaterPages
from semdpo.study.design import StudyImage
from semdpo.study.page import write_pages
from semdpo.study.plan import Study
from tests.study.studies import make, served

Spoil = Callable[[Study, Path], None]


def _pages(study: Study, folder: Path) -> Path:
    write_pages(study, range(study.plan.raters), folder)
    return folder


def _images(study: Study, folder: Path, method: str = "dpo") -> list[Path]:
    """The files of the images of a method in all raters' folders."""
    methods = {image.name: image.method for image in study.plan.images}
    return [
        folder / rater_id(study, trial.rater) / "images" / f"{image_id(study, trial, side)}.png"
        for trial in study.plan.trials
        for side in SIDES
        if methods[trial.left if side == "left" else trial.right] == method
    ]


def _again(path: Path, kind: str = "PNG", **settings: Any) -> None:
    """Writes an image again with another encoder."""
    before = path.stat()
    image = Image.open(io.BytesIO(path.read_bytes()))
    out = io.BytesIO()
    image.save(out, kind, **settings)
    path.write_bytes(out.getvalue())
    os.utime(path, (before.st_atime, before.st_mtime))


def _metadata(study: Study, folder: Path) -> None:
    text = PngImagePlugin.PngInfo()
    text.add_text("parameters", "steps: 20")
    _again(_images(study, folder)[0], compress_level=0, pnginfo=text)


def _exif(study: Study, folder: Path) -> None:
    exif = Image.Exif()
    exif[0x0131] = "renderer 7"
    for path in _images(study, folder):
        _again(path, compress_level=0, exif=exif)


def _compressed(study: Study, folder: Path) -> None:
    for path in _images(study, folder, "sem_dpo"):
        _again(path, compress_level=9)


def _packed(study: Study, folder: Path) -> None:
    """Noise does not compress, so that the lengths stay the same."""
    lengths = {len(path.read_bytes()) for path in _images(study, folder)}
    for path in _images(study, folder, "dpo"):
        _again(path, compress_level=9)
    assert {len(path.read_bytes()) for path in _images(study, folder)} == lengths


def _jpeg(study: Study, folder: Path) -> None:
    for path in _images(study, folder):
        _again(path, "JPEG")


def _trailer(study: Study, folder: Path) -> None:
    path = _images(study, folder)[0]
    path.write_bytes(path.read_bytes() + b"dpo")


def _changed(study: Study, folder: Path) -> None:
    for path in _images(study, folder):
        os.utime(path, (1.6e9, 1.6e9))


def _sheet(change: Callable[[dict[str, Any], Study], None]) -> Spoil:
    """Changes the sheet of the first rater."""

    def spoil(study: Study, folder: Path) -> None:
        path = folder / rater_id(study, 0) / "sheet.js"
        text = path.read_text()
        sheet = json.loads(text[text.index("{") : text.rindex("}") + 1])
        change(sheet, study)
        path.write_text(f"const SHEET = {json.dumps(sheet)};\n")

    return spoil


def _rewrite(sheet: dict[str, Any], study: Study) -> None:
    sheet["trials"][0]["prompt"] = study.plan.images[0].rewrite


def _field(sheet: dict[str, Any], study: Study) -> None:
    sheet["trials"][0]["kind"] = "attention"


def _swap(sheet: dict[str, Any], study: Study) -> None:
    trial = sheet["trials"][0]
    trial["left"], trial["right"] = trial["right"], trial["left"]


def _consent(sheet: dict[str, Any], study: Study) -> None:
    sheet["consent"] += " We test DPO."


def _write(name: str, text: str) -> Spoil:
    return lambda study, folder: (folder / rater_id(study, 0) / name).write_text(text) and None


def _append(name: str, words: Callable[[Study], str]) -> Spoil:
    def spoil(study: Study, folder: Path) -> None:
        path = folder / rater_id(study, 0) / name
        path.write_text(path.read_text() + words(study))

    return spoil


PLANTED: dict[str, tuple[Spoil, str]] = {
    "metadata": (_metadata, "is no plain PNG"),
    "exif": (_exif, "is no plain PNG"),
    "compression": (_compressed, "images' length in bytes differs"),
    "compression of noise": (_packed, "images' kind of file differs"),
    "format": (_jpeg, "images' kind of file differs"),
    "after the end": (_trailer, "is no plain PNG"),
    "time of change": (_changed, "headers or time of change differs"),
    "rewrite": (_sheet(_rewrite), "trial 0 shows a text that is not the user's prompt"),
    "rewrite in a script": (_append("rater.js", lambda s: f"// {s.plan.images[0].rewrite}"), "names a rewrite"),
    "field": (_sheet(_field), "trial 0 has the field 'kind'"),
    "sides": (_sheet(_swap), "is not the image that the plan has on the left"),
    "consent": (_sheet(_consent), "sheet has another consent than the plan"),
    "method in a page": (_append("index.html", lambda s: "<!-- Sem-DPO -->"), "names the method sem_dpo"),
    "method in a script": (_append("rater.js", lambda s: "// dpo"), "names the method dpo"),
    "folder in a page": (_append("index.html", lambda s: str(s.folder.resolve())), "names a private folder"),
    "name in a style": (_append("style.css", lambda s: f"/* {s.plan.images[1].name} */"), "an image's name in the"),
    "hash": (_append("style.css", lambda s: f"/* {s.plan.images[1].sha256} */"), "names the hash of a file"),
    "prompt's id": (_append("style.css", lambda s: "/* p0001 */"), "names a prompt's id"),
    "plan": (_write("plan.json", "{}"), "plan.json is no part of a rater's page"),
    "name of a file": (_write("dpo.txt", ""), "names the method dpo"),
    "beside the pages": (lambda _, folder: (folder / "links.csv").write_text("x") and None, "can be fetched"),
}  # fmt: skip


def test_a_clean_folder_passes(study: Study, tmp_path: Path) -> None:
    found = leaks.check(str(_pages(study, tmp_path / "pages")), study)
    assert found == leaks.Checked((), raters=3, images=24, files=15)


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_leak_is_found(name: str, study: Study, tmp_path: Path) -> None:
    spoil, wanted = PLANTED[name]
    folder = _pages(study, tmp_path / "pages")
    spoil(study, folder)
    found = leaks.check(str(folder), study).leaks
    assert [leak for leak in found if wanted in leak], found


def test_words_of_the_plan_that_name_a_method(study: Study, tmp_path: Path) -> None:
    named = replace(study, plan=replace(study.plan, consent="We compare DPO with others."))
    found = leaks.check(str(_pages(named, tmp_path / "pages")), named).leaks
    assert found == ("the title, the consent, a question or the third answer names the method dpo",)


@pytest.mark.parametrize("share", [1.0, 0.85])
def test_sides_that_go_with_methods(share: float, tmp_path: Path) -> None:
    study = make(tmp_path / "study", raters=8, prompts=8, left=share)
    found = leaks.check(str(_pages(study, tmp_path / "pages")), study).leaks
    assert any(leak.startswith("dpo is on the left in") for leak in found), found


def _by_method(study: Study, name: str) -> str:
    """A public name that begins with its image's method."""
    trial, side = name.split(":")
    where = {each.name: each for each in study.plan.trials}[trial]
    methods = {image.name: image.method for image in study.plan.images}
    return methods[where.left if side == "left" else where.right]


@pytest.mark.parametrize("kind", ["sorted", "repeated", "last letter"])
def test_names_that_go_with_methods(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = make(tmp_path / "study", raters=6, prompts=6)
    whole = blinding.public_id

    def leaking(secret: bytes, of: Any, name: str) -> str:
        honest = whole(secret, of, name)
        if of != "image":
            return honest
        letter = _by_method(study, name)[0]
        return {
            "sorted": letter + honest[1:],
            "repeated": whole(secret, of, _by_method(study, name)),
            "last letter": honest[:-1] + letter,
        }[kind]

    monkeypatch.setattr(blinding, "public_id", leaking)
    folder = _pages(study, tmp_path / "pages")
    found = leaks.check(str(folder), study).leaks
    wanted = {"sorted": "alphabetical order", "repeated": "used more than once", "last letter": "the last letters"}[
        kind
    ]
    assert [leak for leak in found if wanted in leak], found


def _spoiled(study: Study, header: bool) -> Callable[[ASGIApp], ASGIApp]:
    """An application that gives the images of a method another header, or sends them later."""
    methods = {image.name: image.method for image in study.plan.images}
    late = {
        image_id(study, trial, side)
        for trial in study.plan.trials
        for side in SIDES
        if methods[trial.left if side == "left" else trial.right] == "dpo"
    }

    def around(app: ASGIApp) -> ASGIApp:
        async def spoil(scope: Scope, receive: Receive, send: Send) -> None:
            async def sent(message: Message) -> None:
                if header and message["type"] == "http.response.start":
                    MutableHeaders(scope=message)["X-Cache"] = "hit"
                await send(message)

            is_late = Path(scope.get("path", "")).stem in late
            if is_late and not header:
                await asyncio.sleep(0.02)
            await app(scope, receive, sent if is_late else send)

        return spoil

    return around


@pytest.mark.slow
def test_a_clean_server_passes(tmp_path: Path) -> None:
    study = make(tmp_path / "study", raters=4, prompts=6)
    with served(study) as server:
        found = leaks.check(server.url, study)
    assert found == leaks.Checked((), raters=4, images=48, files=20)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("header", "wanted"), [(True, "headers or time of change differs"), (False, "the time until an image is sent")]
)
def test_leaks_of_a_server(header: bool, wanted: str, tmp_path: Path) -> None:
    study = make(tmp_path / "study", raters=4, prompts=6)
    with served(study, _spoiled(study, header)) as server:
        found = leaks.check(server.url, study).leaks
    assert len(found) == 1, found
    assert wanted in found[0]


def test_what_is_no_study_of_this_plan(study: Study, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no pages of a study"):
        leaks.check(str(tmp_path / "nothing"), study)
    with pytest.raises(EndpointError, match="cannot be reached"):
        leaks.check("http://127.0.0.1:9", study)
    other = make(tmp_path / "other")
    with pytest.raises(DataError, match="is no page of this study"):
        leaks.check(str(_pages(other, tmp_path / "pages")), study)
    with served(other) as server, pytest.raises(EndpointError, match="answers 404; is this study served there"):
        leaks.check(server.url, study)


def test_every_trial_is_looked_at(study: Study, tmp_path: Path) -> None:
    """A sheet that leaves trials out would hide what they show."""
    folder = _pages(study, tmp_path / "pages")
    _sheet(lambda sheet, _: sheet["trials"].pop())(study, folder)
    found = leaks.check(str(folder), study).leaks
    assert any(f"has {len(trials_of(study, 0)) - 1} trials, and the plan 4" in leak for leak in found)


def _planned(study: Study, seed: int) -> Study:
    """A study of three methods with repeats and attention checks, as `semdpo study plan` assigns them."""
    methods, prompts = ("dpo", "human", "sem_dpo"), [f"p{index:04d}" for index in range(20)]
    names = {key: f"i{number:04d}" for number, key in enumerate(product(prompts, methods))}
    items = [
        Item(prompt, pair, (names[prompt, pair[0]], names[prompt, pair[1]]))
        for prompt in prompts
        for pair in combinations(methods, 2)
    ]
    checks = [Check(one, names[one, "human"], names[two, "human"]) for one, two in pairwise(prompts)]
    plan = replace(
        study.plan,
        methods=methods,
        prompts={prompt: f"prompt {prompt}" for prompt in prompts},
        images=tuple(StudyImage(name, key[1], key[0], 0, "", "0" * 64) for key, name in names.items()),
        trials=tuple(assign(items, checks, 6, 12, 0.1, 2, seed)),
        raters=6,
    )
    return replace(study, plan=plan, secret=seed.to_bytes(32, "big"))


def test_sixty_planned_studies_pass_the_statistics(study: Study) -> None:
    for seed in range(60):
        planned = _planned(study, seed)
        image = FetchedImage("", {}, 0, "", None)
        sheets = [(rater, blinding.sheet(planned, rater)) for rater in range(6)]
        shown = [
            each
            for rater, sheet in sheets
            for each in leaks._shown(
                RaterPages(rater, sheet, {row[side]: image for row in sheet["trials"] for side in SIDES}, ()), planned
            )
        ]
        assert len(shown) > 400
        assert [*leaks._names(shown), *leaks._balance(shown, planned)] == [], seed
