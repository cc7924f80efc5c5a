"""The image strip for a README: the user's prompts and the rewrites of two methods, with their images."""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import cache

import matplotlib as mpl
from PIL import Image, ImageDraw, ImageFont

from semdpo.data.records import EvaluationRow
from semdpo.models.images import rgb
from semdpo.reporting import facts
from semdpo.reporting.compute import Tables
from semdpo.reporting.data import ReportData
from semdpo.reporting.labels import method_label
from semdpo.reporting.style import INK, colours
from semdpo.reporting.words import Word, word_marks

SIDE, CELL, GAP, TOP = 256, 620, 24, 60
SIZE, SMALL, LEADING = 24, 20, 31
ADDED = "#9a5b00"
LOST = "#9aa1ac"
MARKS = {"wrong": "#b3261e", "added": ADDED, "right": "#1a6b3a"}


@cache
def _font(bold: bool, size: int) -> ImageFont.FreeTypeFont:
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(f"{mpl.get_data_path()}/fonts/ttf/{name}", size)


def strip(data: ReportData, tables: Tables, rows: int = 4) -> bytes | None:
    """A PNG with one row per prompt: image and text of the user's prompt, the baseline and the subject.

    Where the report shows two or three methods side by side, these take their place.

    Where facts are read, lines beside an image say what its text gets wrong and what it adds.

    Args:
        data: the data of the report.
        tables: the numbers computed from ``data``.
        rows: largest number of rows; they show the first prompts on which the methods' rewrites differ.

    Returns:
        PNG bytes; None where there is no such prompt with kept images.
    """
    if not tables.subject or not tables.baseline:
        return None
    shown = [name for name in data.shown_methods if name in tables.methods]
    columns = shown if len(shown) in (2, 3) else _usual(tables)
    lines = _lines(data, columns)[:rows]
    if not lines:
        return None
    width = len(columns) * (CELL + GAP) + GAP
    canvas = Image.new("RGB", (width, TOP + len(lines) * (SIDE + GAP)), "white")
    draw = ImageDraw.Draw(canvas)
    palette = colours(tables.methods)
    for column, method in enumerate(columns):
        x = GAP + column * (CELL + GAP)
        draw.text((x, 16), method_label(method), font=_font(True, SIZE), fill=palette[method])
        for number, line in enumerate(lines):
            row = line[method]
            marks = facts.marks(row) if data.facts else []
            _cell(canvas, draw, (x, TOP + number * (SIDE + GAP)), row, palette[method], marks)
    buffer = io.BytesIO()
    canvas.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _usual(tables: Tables) -> list[str]:
    names = ("human" if "human" in tables.methods else None, tables.baseline, tables.subject)
    return [name for name in dict.fromkeys(names) if name]


def _lines(data: ReportData, columns: Sequence[str]) -> list[dict[str, EvaluationRow]]:
    kept: dict[tuple[str, int], dict[str, EvaluationRow]] = {}
    for row in data.evaluation:
        if row.image is not None and row.method in columns:
            kept.setdefault((row.prompt_id, row.image_seed), {})[row.method] = row
    lines: dict[str, dict[str, EvaluationRow]] = {}
    for (prompt_id, _), by_method in kept.items():
        rewrites = [row.rewrite for method, row in by_method.items() if method != "human"]
        if len(by_method) == len(columns) and (len(rewrites) == 1 or len(set(rewrites)) > 1):
            lines.setdefault(prompt_id, by_method)
    return list(lines.values())


def _cell(
    canvas: Image.Image,
    draw: ImageDraw.ImageDraw,
    at: tuple[int, int],
    row: EvaluationRow,
    colour: str,
    marks: Sequence[facts.Mark],
) -> None:
    """Draws an image, and beside it the text with its marked words, the marks of its facts, and its drift."""
    x, y = at
    with Image.open(io.BytesIO(row.image or b"")) as opened:
        image = rgb(opened).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    canvas.paste(image, (x, y))
    draw.rectangle((x, y + SIDE, x + SIDE - 1, y + SIDE + 5), fill=colour)
    lines = [(mark.text, MARKS[mark.kind]) for mark in marks]
    lines += [(f"drift {row.distance:.2f}", "#6b7280")] if row.method != "human" else []
    room = LEADING * (SIDE // LEADING - max(len(lines), 1))
    _words(draw, (x + SIDE + 16, y), word_marks(row.prompt, row.rewrite), room)
    for place, (text, fill) in enumerate(reversed(lines), start=1):
        _line(draw, (x + SIDE + 16, y + SIDE - place * LEADING), text, fill)


def _line(draw: ImageDraw.ImageDraw, at: tuple[int, int], text: str, fill: str) -> None:
    """Draws one small line; an ellipsis replaces what does not fit into the cell."""
    font, room = _font(False, SMALL), CELL - SIDE - 16
    if font.getlength(text) > room:
        while font.getlength(f"{text}…") > room:
            text = text[:-1]
        text += "…"
    draw.text(at, text, font=font, fill=fill)


def _words(draw: ImageDraw.ImageDraw, at: tuple[int, int], words: Sequence[Word], room: int) -> None:
    """Draws words wrapped to the cell; an ellipsis replaces those that do not fit."""
    left, top = at
    right, x, y = left + CELL - SIDE - 16, left, top
    end = at
    space = _font(False, SIZE).getlength(" ")
    for word in words:
        font = _font(word.kind == "added", SIZE)
        length = font.getlength(word.text)
        if x > left and x + length > right:
            x, y = left, y + LEADING
        if y + LEADING > top + room:
            draw.text(end, "…", font=font, fill=INK)
            return
        fill = {"added": ADDED, "lost": LOST}.get(word.kind, INK)
        draw.text((x, y), word.text, font=font, fill=fill)
        if word.kind == "lost":
            draw.line((x, y + SIZE * 0.62, x + length, y + SIZE * 0.62), fill=LOST, width=2)
        end = (x + int(length), y)
        x += int(length + space)
