"""The images as raters get them: PNG files whose sizes depend on the width and height alone."""

from __future__ import annotations

import io
from collections.abc import Mapping

from PIL import Image, UnidentifiedImageError

from semdpo import disk
from semdpo.errors import DataError
from semdpo.study.blinding import SIDES, image_id, trials_of
from semdpo.study.plan import Study


def served_images(study: Study) -> dict[str, bytes]:
    """Every image of a study as raters get it, in memory.

    The PNGs are not compressed: how well an image compresses depends on the method that made it, and so would the size
    of its file. They have no metadata.

    Args:
        study: the study.

    Returns:
        The image's name in the plan → PNG bytes, all of equal length.

    Raises:
        DataError: an image is missing, damaged, or of another size than the rest.
    """
    served = {image.name: _plain(study, image.sha256) for image in study.plan.images}
    if len(set(map(len, served.values()))) > 1:
        raise DataError(f"the images in {study.folder / 'images'} differ in size; plan the study again")
    return served


def _plain(study: Study, sha256: str) -> bytes:
    path = study.folder / "images" / f"{sha256}.png"
    try:
        with Image.open(io.BytesIO(disk.read(path))) as image:
            pixels = image.convert("RGB")
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise DataError(f"{path} cannot be read; restore the study's folder from a copy, or plan it again") from error
    out = io.BytesIO()
    Image.frombytes("RGB", pixels.size, pixels.tobytes()).save(out, "PNG", compress_level=0)
    return out.getvalue()


def images_of(study: Study, rater: int, served: Mapping[str, bytes]) -> dict[str, bytes]:
    """One rater's images: public name → PNG bytes.

    Args:
        study: the study.
        rater: the rater's number.
        served: the images of the study, from ``served_images``.
    """
    return {
        image_id(study, trial, side): served[trial.left if side == "left" else trial.right]
        for trial in trials_of(study, rater)
        for side in SIDES
    }
