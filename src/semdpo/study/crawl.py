"""Fetches everything that raters can fetch, from a running server or from folders of pages."""

from __future__ import annotations

import json
import random
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from semdpo.errors import DataError, EndpointError
from semdpo.study.blinding import SIDES, rater_id
from semdpo.study.image_form import form_of, pixels
from semdpo.study.page import IMAGES, INDEX, SCRIPTS, SHEET, STYLE
from semdpo.study.plan import KEY, PLAN, SEAL, SECRET, VOTES, Study

SECONDS = 60.0  # that an answer may take
LARGEST = 64 * 2**20  # bytes that are read of an answer
ROUNDS = 5  # how often the time of an image's answer is measured; the fastest counts
TIMED = 200  # images whose time is measured
_ASSETS = ("rater.js", "online.js", "style.css")
_HIDDEN = (PLAN, SEAL, SECRET, KEY, VOTES, f"{IMAGES}/", "r/0", "r/1", "o/", "static/offline.js", "")
EXPECTED = (INDEX, SHEET, STYLE, *SCRIPTS)  # a folder's files besides the images
_VARY = ("date",)  # headers that differ with the time alone


@dataclass(frozen=True, slots=True)
class Fetched:
    """Something that a rater can fetch.

    Attributes:
        name: where it is, for messages.
        data: its bytes.
        facts: what else comes with it: headers, or the time at which a file was changed.
    """

    name: str
    data: bytes
    facts: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class FetchedImage:
    """An image that a rater can fetch; its bytes are not kept, because all of them would not fit into memory.

    Attributes:
        name: where it is, for messages.
        facts: headers, or the time at which a file was changed.
        length: bytes.
        form: what the file is made of, as ``form_of`` says.
        pixels: the SHA-256 of its pixels; None where it is no image.
    """

    name: str
    facts: Mapping[str, str]
    length: int
    form: str
    pixels: str | None


@dataclass(frozen=True, slots=True)
class RaterPages:
    """All that one rater can fetch.

    Attributes:
        rater: the rater's number.
        sheet: the sheet that the page reads.
        images: the image's public name → the image, in the order of the sheet, left before right.
        files: everything else.
    """

    rater: int
    sheet: Mapping[str, Any]
    images: Mapping[str, FetchedImage]
    files: tuple[Fetched, ...]


@dataclass(frozen=True, slots=True)
class Crawl:
    """All that raters can fetch.

    Attributes:
        pages: what each rater gets.
        exposed: what anybody can fetch and nobody should.
        seconds: the image's public name → the fastest answer's time; empty for folders.
    """

    pages: tuple[RaterPages, ...]
    exposed: tuple[str, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)


def crawl(place: str, study: Study) -> Crawl:
    """Fetches everything.

    Args:
        place: a folder that ``write_pages`` wrote, or the address of a server of the study.
        study: the study, for the raters' links.

    Raises:
        DataError: the folder has no pages of this study, or a page cannot be read.
        EndpointError: the server does not answer as one of this study does.
    """
    if place.startswith(("http://", "https://")):
        return _from_server(place.rstrip("/"), study)
    return _from_folder(Path(place), study)


# ------------------------------------------------------------------------------------------------------ folders


def _from_folder(folder: Path, study: Study) -> Crawl:
    raters = {rater_id(study, rater): rater for rater in range(study.plan.raters)}
    places = {path.parent for path in folder.glob(f"**/{SHEET}")}
    pages, known = [], set[Path]()
    for place in sorted(places):
        sheet = _sheet_of(place / SHEET)
        if sheet.get("rater") not in raters:
            raise DataError(f"{place} is no page of this study; give --study the folder that it was made from")
        pages.append(_folder_pages(place, raters[sheet["rater"]], sheet))
        known |= {path for path in place.rglob("*") if path.is_file()}
    if not pages:
        raise DataError(f"{folder} has no pages of a study; write them with `semdpo study page`")
    others = [
        path for path in folder.rglob("*") if path.is_file() and path not in known and path.name != ".semdpo.json"
    ]
    return Crawl(tuple(pages), tuple(str(path) for path in others))


def _folder_pages(place: Path, rater: int, sheet: Mapping[str, Any]) -> RaterPages:
    images = {}
    for trial in sheet["trials"]:
        for side in SIDES:
            path = place / IMAGES / f"{trial[side]}.png"
            if not path.is_file():
                raise DataError(f"{path} is missing; write the pages again with `semdpo study page`")
            images[trial[side]] = _image(_file(path))
    shown = {place / IMAGES / f"{name}.png" for name in images}
    others = [_file(path) for path in sorted(place.rglob("*")) if path.is_file() and path not in shown]
    return RaterPages(rater, sheet, images, tuple(others))


def _image(file: Fetched) -> FetchedImage:
    return FetchedImage(file.name, file.facts, len(file.data), form_of(file.data), pixels(file.data))


def _file(path: Path) -> Fetched:
    return Fetched(str(path), path.read_bytes(), {"changed": str(path.stat().st_mtime_ns)})


def _sheet_of(path: Path) -> dict[str, Any]:
    text = path.read_text(encoding="utf-8", errors="replace")
    try:
        sheet = json.loads(text[text.index("{") : text.rindex("}") + 1])
        assert isinstance(sheet["trials"], list)
    except (ValueError, KeyError, AssertionError) as error:
        raise DataError(f"{path} is no sheet of a study; write the pages again") from error
    return dict(sheet)


# ------------------------------------------------------------------------------------------------------ servers


def _from_server(url: str, study: Study) -> Crawl:
    pages = tuple(_server_pages(url, rater_id(study, rater), rater) for rater in range(study.plan.raters))
    exposed = [path for path in _HIDDEN if _opens(f"{url}/{path}")]
    tokens = [rater_id(study, rater) for rater in range(study.plan.raters)]
    for page, other in zip(pages, tokens[1:], strict=False):
        name = next(iter(page.images))
        if _opens(f"{url}/i/{other}/{name}.png"):
            exposed.append("one rater's image behind another's link")
    return Crawl(pages, tuple(exposed), _times(url, pages, tokens))


def _server_pages(url: str, token: str, rater: int) -> RaterPages:
    sheet_file = _get(f"{url}/r/{token}/sheet")
    try:
        sheet = json.loads(sheet_file.data)
        names = [trial[side] for trial in sheet["trials"] for side in SIDES]
    except (ValueError, KeyError, TypeError) as error:
        raise EndpointError(f"{url} answers, but not as this study's server; check the address") from error
    images = {name: _image(_get(f"{url}/i/{token}/{name}.png")) for name in names}
    files = [_get(f"{url}/r/{token}"), sheet_file, *(_get(f"{url}/static/{name}") for name in _ASSETS)]
    return RaterPages(rater, sheet, images, tuple(files))


def _times(url: str, pages: tuple[RaterPages, ...], tokens: list[str]) -> dict[str, float]:
    """The fastest answer of each image, measured in a random order so that a busy moment meets all methods alike."""
    generator = random.Random(0)
    places = [(f"{url}/i/{tokens[page.rater]}/{name}.png", name) for page in pages for name in page.images]
    places = generator.sample(places, min(TIMED, len(places)))
    fastest: dict[str, float] = {}
    for _ in range(ROUNDS):
        for place, name in generator.sample(places, len(places)):
            began = time.perf_counter()
            _get(place)
            taken = time.perf_counter() - began
            fastest[name] = min(taken, fastest.get(name, taken))
    return fastest


def _opens(url: str) -> bool:
    try:
        _get(url)
    except EndpointError:
        return False
    return True


def _get(url: str) -> Fetched:
    request = urllib.request.Request(url, headers={"Accept-Encoding": "identity"})
    try:
        with urllib.request.urlopen(request, timeout=SECONDS) as answer:
            facts = {name.lower(): value for name, value in answer.headers.items() if name.lower() not in _VARY}
            return Fetched(urllib.parse.urlsplit(url).path, answer.read(LARGEST), facts)
    except urllib.error.HTTPError as error:
        error.close()
        raise EndpointError(f"{url} answers {error.code}; is this study served there?") from error
    except (OSError, ValueError) as error:
        raise EndpointError(f"{url} cannot be reached ({error}); check the address, and start the server") from error
