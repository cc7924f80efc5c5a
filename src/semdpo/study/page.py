"""The rater's page, and the same page as a folder that opens from a disk or any static host.

The page of a folder keeps its answers in the browser and saves them as a file, which ``collect`` reads.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from string import Template

from semdpo.study.blinding import rater_id, sheet
from semdpo.study.images import images_of, served_images
from semdpo.study.plan import Study
from semdpo.study.public_folder import write_folder

STATIC = Path(str(files("semdpo.study"))) / "static"
SCRIPTS = ("offline.js", "rater.js")
IMAGES, SHEET, INDEX, STYLE = "images", "sheet.js", "index.html", "style.css"
# A page from a disk comes without headers, so that it says itself what the browser may do.
_SECURITY = (
    "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'\">"
)


def online_page() -> bytes:
    """The rater's page as the server sends it."""
    scripts = _scripts("../static/online.js", "../static/rater.js")
    return _filled(security="", style="../static/style.css", scripts=scripts)


def offline_page() -> bytes:
    """The rater's page in a folder."""
    return _filled(security=_SECURITY, style=STYLE, scripts=_scripts(SHEET, *SCRIPTS))


def _filled(**parts: str) -> bytes:
    return Template((STATIC / "rater.html").read_text(encoding="utf-8")).substitute(parts).encode()


def _scripts(*names: str) -> str:
    return "\n  ".join(f'<script src="{name}" defer></script>' for name in names)


def write_pages(study: Study, raters: Sequence[int], folder: Path) -> dict[int, Path]:
    """Writes a study as one folder a rater; the folders' names are the raters' public ones.

    Args:
        study: the study.
        raters: the numbers of the raters.
        folder: where the folders are written; a folder that semdpo made is replaced.

    Returns:
        The rater's number → the page's file.

    Raises:
        ConfigError: the study has no such rater.
        DataError: an image is missing or damaged.
        StoreError: the folder holds files that semdpo did not make, or cannot be written.
    """
    sheets = {rater_id(study, rater): (rater, sheet(study, rater)) for rater in raters}
    served = served_images(study)
    contents = dict[str, bytes]()
    for name, (rater, content) in sheets.items():
        for image, png in images_of(study, rater, served).items():
            contents[f"{name}/{IMAGES}/{image}.png"] = png
        contents[f"{name}/{SHEET}"] = f"const SHEET = {json.dumps(content, indent=1)};\n".encode()
        contents[f"{name}/{INDEX}"] = offline_page()
        for file in (STYLE, *SCRIPTS):
            contents[f"{name}/{file}"] = (STATIC / file).read_bytes()
    write_folder(folder, contents)
    return {rater: folder / rater_id(study, rater) / INDEX for rater in raters}
