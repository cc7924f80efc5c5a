"""Images as a study stores them: one size, one mode, one encoder, no metadata."""

from __future__ import annotations

import io
from collections.abc import Sequence

from PIL import Image

from semdpo.errors import DataError

RESIZED = "resized to the smallest image's size, Lanczos"


def same_size(images: Sequence[Image.Image]) -> tuple[list[Image.Image], bool]:
    """Images of one size: the smallest one's, if they differ.

    Args:
        images: RGB images, at least one.

    Returns:
        The images, and whether any was resized (by Lanczos' filter).

    Raises:
        DataError: their sides have different proportions, so that resizing would distort some of them.
    """
    sizes = sorted({image.size for image in images})
    small = min(sizes, key=lambda size: size[0] * size[1])
    for width, height in sizes:
        # A side is a whole number, so that sides of one proportion may be half a pixel off.
        if abs(width * small[1] - height * small[0]) > max(width, height) / 2:
            raise DataError(
                f"the methods' images have sides of different proportions ({small[0]} × {small[1]} and "
                f"{width} × {height} pixels), by which raters could tell them apart; render all methods at one size"
            )
    if len(sizes) == 1:
        return list(images), False
    resized = [image if image.size == small else image.resize(small, Image.Resampling.LANCZOS) for image in images]
    return resized, True


def png(image: Image.Image) -> bytes:
    """An RGB image as PNG, made from its pixels alone, so that nothing else of the image is kept."""
    buffer = io.BytesIO()
    Image.frombytes("RGB", image.size, image.tobytes()).save(buffer, "PNG", optimize=False, compress_level=6)
    return buffer.getvalue()
