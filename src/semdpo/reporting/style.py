"""The style of all figures, and their conversion to SVG and PNG: no global state; equal data give equal bytes."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import matplotlib as mpl
from matplotlib.figure import Figure

# Okabe and Ito's palette, which remains distinguishable under the common kinds of colour blindness.
COLOURS = {"human": "#6b7280", "sft": "#009E73", "dpo": "#D55E00", "sem_dpo": "#0072B2"}
SPARE = ("#CC79A7", "#E69F00", "#56B4E9", "#8C6BB1", "#332288", "#999933")
MARKERS = ("s", "^", "o", "D", "v", "P", "X", "<", ">", "*")
TIE, INK, FAINT = "#d9dde3", "#1f2430", "#e7eaef"
STYLE = {
    "svg.fonttype": "none",  # text stays text: small files, readable by screen readers
    "text.parse_math": False,  # a method may have a name such as "$x$"
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#9aa1ac",
    "axes.labelcolor": INK,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "xtick.color": "#555c68",
    "ytick.color": "#555c68",
    "legend.frameon": False,
    "figure.facecolor": "white",
    "figure.constrained_layout.use": True,
    "figure.constrained_layout.h_pad": 0.09,
}


def colours(methods: Sequence[str]) -> dict[str, str]:
    """One colour per method, the same in every plot."""
    unknown = [name for name in methods if name not in COLOURS]
    return {**COLOURS, **{name: SPARE[i % len(SPARE)] for i, name in enumerate(unknown)}}


@contextmanager
def style() -> Iterator[None]:
    """Applies the style of all figures inside the context only."""
    with mpl.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # characters that the font lacks are shown as boxes
        yield


def to_svg(figure: Figure, name: str) -> str:
    """The figure as an ``<svg>`` element without a date; its ids start with ``name``, so a page can have several."""
    buffer = io.StringIO()
    with style(), mpl.rc_context({"svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'href="#', f'href="#{name}-', text)
    return re.sub(r"url\(#", f"url(#{name}-", text)


def to_svg_and_png(figure: Figure, name: str) -> tuple[str, bytes]:
    """The figure as an ``<svg>`` element (see `to_svg`) and as PNG bytes, 144 dots per inch, without a date."""
    svg, buffer = to_svg(figure, name), io.BytesIO()
    figure.set_layout_engine("none")  # everything stands where the SVG has it; looking for the places takes as long
    with style():
        figure.savefig(buffer, format="png", dpi=144, metadata={"Software": None})
    return svg, buffer.getvalue()
