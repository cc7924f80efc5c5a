"""Any image that Pillow opens, as every scorer sees it: upright, opaque, eight bits a channel, RGB."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from semdpo.errors import DataError

if TYPE_CHECKING:
    from PIL import Image

ORIENTATION = 0x0112  # EXIF's tag
UPRIGHT = 1
PAPER = (255, 255, 255)  # what shows through transparent pixels


def rgb(image: Image.Image) -> Image.Image:
    """The image as it is shown on a white page.

    It is turned by its EXIF orientation. Transparent pixels show white. Palettes and CMYK become RGB. Images of
    16 bits (modes ``I;16`` and ``I``) are scaled from 0 … 65,535, floating-point ones (``F``) from 0 … 1; an ``I`` or
    ``F`` image that goes to 255 at most, as Pillow makes it of eight bits, is taken as it is.

    Args:
        image: any size and mode.

    Returns:
        An RGB image; the same object where nothing had to change.

    Raises:
        DataError: a 32-bit or floating-point image has values outside these ranges.
    """
    from PIL import Image, ImageOps  # here, since nobody who brings images is without it

    if image.getexif().get(ORIENTATION, UPRIGHT) != UPRIGHT:
        image = ImageOps.exif_transpose(image)
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I") or image.mode == "F":
        return _eight_bits(image).convert("RGB")
    if image.has_transparency_data:
        seen = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", seen.size, (*PAPER, 255)), seen).convert("RGB")
    return image.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """Grey levels from 0 to 255, where Pillow's own conversion would clip them there."""
    from PIL import Image

    values = np.asarray(image).astype(np.float64)
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
    if not (low >= 0 and high <= 65_535):  # written so that a NaN is refused, too
        raise DataError(
            f"an image of mode {image.mode} has values from {low:g} to {high:g}; scale them to 0 … 1 (floats) or "
            "0 … 65,535 (integers)"
        )
    if image.mode.startswith("I;16"):
        scale = 257.0
    elif image.mode == "F" and high <= 1:
        scale = 1 / 255
    elif high <= 255:
        scale = 1.0
    elif image.mode == "I":
        scale = 257.0
    else:
        raise DataError(f"a floating-point image goes up to {high:g}; scale it to 0 … 1")
    return Image.fromarray((values / scale).round().astype(np.uint8))
