"""What an image file is made of, besides what it shows."""

from __future__ import annotations

import hashlib
import io

from PIL import Image, UnidentifiedImageError

PLAIN = "PNG RGB, IHDR IDAT IEND, "  # how the form of a PNG without metadata begins


def pixels(data: bytes) -> str | None:
    """The SHA-256 of an image's RGB pixels; None where the file is no image."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            return hashlib.sha256(image.convert("RGB").tobytes()).hexdigest()
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError):
        return None


def form_of(data: bytes) -> str:
    """Format, mode, size, kinds of chunks and compression of an image file; what follows its end is named, too."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            kind, mode = image.format, image.mode
            size = " × ".join(map(str, image.size))
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError):
        return "no image"
    if kind != "PNG":
        return f"{kind} {mode}, {size}"
    kinds, packing, at = list[str](), "", 8
    while at + 12 <= len(data):
        length, chunk = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8].decode("latin-1")
        if kinds[-1:] != [chunk]:  # an image's data may come in many chunks
            kinds.append(chunk)
            packing += data[at + 8 : at + 10].hex() if chunk == "IDAT" else ""  # zlib's header: how it was compressed
        at += length + 12
        if chunk == "IEND":
            break
    rest = "" if at == len(data) else f" and {len(data) - at} bytes"
    return f"{kind} {mode}, {' '.join(kinds)}{rest}, {size}, zlib {packing}"
