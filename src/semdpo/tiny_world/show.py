"""A contact sheet: the painter's and tiny:sd's images for the same captions."""

from __future__ import annotations

import io
from random import Random

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from semdpo.protocols import Renderer
from semdpo.tiny_world import grammar, requests, wordings
from semdpo.tiny_world.painter import paint

SHOWN = 96  # pixels of one image on the sheet
MARGIN = 6
LINE = 13


def _wrapped(text: str, width: int) -> list[str]:
    lines, line = [], ""
    for word in text.split():
        if len(line) + len(word) + 1 > width and line:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}".strip()
    return [*lines, line]


def contact_sheet(renderer: Renderer, *, count: int = 24, columns: int = 6, seed: int = 7) -> bytes:
    """Draws a sheet of pairs of images, painter left and renderer right, each with its caption below.

    Args:
        renderer: The renderer, usually tiny:sd.
        count: The number of captions; half have two objects, a sixth a combination held out of training.
        columns: The number of pairs in a row.
        seed: The seed of captions and images.

    Returns:
        The bytes of a PNG file.
    """
    rng = Random(seed)
    asked = [requests.request(rng, count=1 + k % 2, held_out=k % 6 == 5) for k in range(count)]
    complete = [grammar.complete(request, rng) for request in asked]
    texts = [wordings.wording(request, rng) for request in asked]
    rendered = renderer.render(texts, [seed * 1000 + k for k in range(count)])
    cell_width, cell_height = 2 * SHOWN + 2 + MARGIN * 2, SHOWN + 4 * LINE + MARGIN * 2
    rows = -(-count // columns)
    sheet = Image.new("RGB", (cell_width * columns, cell_height * rows + 2 * LINE), "white")
    canvas, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=11)
    canvas.text(
        (MARGIN, 4),
        "left: the painter · right: tiny:sd · *: a combination never seen in training",
        "black",
        font,
    )
    for k, (scene, text, image) in enumerate(zip(complete, texts, rendered, strict=True)):
        x, y = k % columns * cell_width + MARGIN, k // columns * cell_height + 2 * LINE
        painted = Image.fromarray(paint(scene, np.random.default_rng([seed, k])))
        sheet.paste(painted.resize((SHOWN, SHOWN), Image.Resampling.NEAREST), (x, y))
        sheet.paste(image.resize((SHOWN, SHOWN), Image.Resampling.NEAREST), (x + SHOWN + 2, y))
        for number, line in enumerate(_wrapped(("* " if k % 6 == 5 else "") + text, 33)):
            canvas.text((x, y + SHOWN + 2 + number * LINE), line, "black", font)
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    return buffer.getvalue()
