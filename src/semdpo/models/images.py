"""Images as every scorer sees them: upright, opaque, RGB with eight bits a channel, from any that Pillow opens."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np

from semdpo.errors import DataError

if TYPE_CHECKING:
    from PIL import Image

ORIENTATION = 0x0112  # EXIF's tag
UPRIGHT = 1
PAPER = (255, 255, 255)  # what shows through transparent pixels


def rgb(image: Image.Image) -> Image.Image:
    """The image as it looks on a white page.

    It is rotated by its EXIF orientation. Transparent pixels become white. Palettes and CMYK become RGB. 16-bit images
    (modes ``I;16`` and ``I``) are scaled from 0 … 65,535, and floating-point images (``F``) from 0 … 1. An ``I`` or
    ``F`` image whose largest value is at most 255 is not scaled: Pillow makes such images from eight bits.

    Args:
        image: An image of any size and mode.

    Returns:
        The RGB image; the same object if nothing had to change.

    Raises:
        DataError: A 32-bit or floating-point image has values outside these ranges.
    """
    from PIL import Image, ImageOps  # imported here, because only users with images need Pillow

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


def lossless(image: Image.Image) -> bytes:
    """The image, as scorers see it, as a lossless WebP file."""
    # WebP's fastest setting: its files are a third larger than those of the slowest, which takes ten times as long.
    buffer = io.BytesIO()
    rgb(image).save(buffer, "WEBP", lossless=True, quality=0, method=0)
    return buffer.getvalue()


def decode(data: bytes) -> Image.Image:
    """The RGB image in the bytes of an image file.

    Raises:
        OSError: The bytes are damaged or no image.
    """
    from PIL import Image

    with Image.open(io.BytesIO(data)) as image_file:
        return rgb(image_file)


def _eight_bits(image: Image.Image) -> Image.Image:
    """The image scaled to grey levels from 0 to 255; Pillow's own conversion would clip it instead."""
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
