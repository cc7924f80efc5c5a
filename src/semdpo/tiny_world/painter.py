"""The painter: draws a complete scene as an image of 64x64 pixels with Pillow, at three times that size."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from semdpo.tiny_world.grammar import Item, Scene

SIZE = 64
_OVER = 3
_FULL = SIZE * _OVER
_INK = (24, 18, 26)

RGB = {
    "red": (226, 36, 36),
    "green": (38, 170, 60),
    "blue": (40, 84, 232),
    "yellow": (250, 222, 30),
    "purple": (152, 44, 200),
    "white": (248, 248, 248),
}

Points = list[tuple[float, float]]
# A part: its fill (a role), its kind (polygon or ellipse), and its corners or its box, in units of the thing's radius.
Part = tuple[str, str, Points]


def _ellipse(fill: str, x: float, y: float, rx: float, ry: float) -> Part:
    return fill, "ellipse", [(x - rx, y - ry), (x + rx, y + ry)]


def _polygon(fill: str, *points: tuple[float, float]) -> Part:
    return fill, "polygon", list(points)


def _star() -> Part:
    corners = []
    for k in range(10):
        radius = 1.08 if k % 2 == 0 else 0.46
        corners.append((radius * math.sin(k * math.pi / 5), -radius * math.cos(k * math.pi / 5) + 0.05))
    return "body", "polygon", corners


def _petals() -> list[Part]:
    around = [(0.46 * math.sin(k * 2 * math.pi / 5), -0.46 * math.cos(k * 2 * math.pi / 5) - 0.3) for k in range(5)]
    return [_ellipse("body", x, y, 0.34, 0.34) for x, y in around]


def _dome() -> Part:
    arc = [(math.cos(a), -0.8 * math.sin(a) + 0.1) for a in np.linspace(0, math.pi, 17)]
    scallops = [(x, 0.1 - 0.16 * abs(math.sin(1.5 * math.pi * (x + 1)))) for x in np.linspace(-1, 1, 17)]
    return "body", "polygon", [*arc, *scallops]


def _cap() -> Part:
    return "body", "polygon", [(math.cos(a), -0.98 * math.sin(a) + 0.15) for a in np.linspace(0, math.pi, 17)]


# "pale" is light grey on a white thing, on which white parts would vanish; "shade" is a darker tone of the body.
SHAPES: dict[str, list[Part]] = {
    "ball": [_ellipse("body", 0, 0, 0.95, 0.95), _ellipse("gloss", -0.35, -0.38, 0.22, 0.17)],
    "house": [
        _polygon("body", (-0.75, -0.1), (0.75, -0.1), (0.75, 0.95), (-0.75, 0.95)),
        _polygon("shade", (-1.05, -0.05), (0, -1.05), (1.05, -0.05)),
        _polygon("dark", (-0.18, 0.35), (0.22, 0.35), (0.22, 0.95), (-0.18, 0.95)),
        _polygon("glass", (-0.6, 0.15), (-0.3, 0.15), (-0.3, 0.5), (-0.6, 0.5)),
    ],
    "tree": [
        _polygon("wood", (-0.15, 0.2), (0.15, 0.2), (0.2, 1.05), (-0.2, 1.05)),
        _ellipse("body", 0, -0.35, 0.62, 0.68),
        _ellipse("body", -0.42, 0.05, 0.45, 0.42),
        _ellipse("body", 0.42, 0.05, 0.45, 0.42),
        _ellipse("fill", 0, -0.1, 0.5, 0.45),
    ],
    "car": [
        _polygon(
            "body",
            (-0.55, -0.5),
            (0.35, -0.5),
            (0.65, 0),
            (1.1, 0.1),
            (1.1, 0.5),
            (-1.1, 0.5),
            (-1.1, 0),
            (-0.8, 0),
        ),
        _polygon("glass", (-0.45, -0.36), (-0.08, -0.36), (-0.08, 0), (-0.62, 0)),
        _polygon("glass", (0.06, -0.36), (0.28, -0.36), (0.48, 0), (0.06, 0)),
        _ellipse("dark", -0.58, 0.52, 0.28, 0.28),
        _ellipse("dark", 0.58, 0.52, 0.28, 0.28),
    ],
    "boat": [
        _polygon("wood", (-0.07, -1), (0.05, -1), (0.05, 0.4), (-0.07, 0.4)),
        _polygon("pale", (0.1, -0.95), (0.85, 0.2), (0.1, 0.2)),
        _polygon("pale", (-0.12, -0.7), (-0.12, 0.2), (-0.7, 0.2)),
        _polygon("body", (-1.1, 0.35), (1.1, 0.35), (0.7, 0.95), (-0.75, 0.95)),
    ],
    "fish": [
        _polygon("shade", (0.5, 0), (1.15, -0.6), (1.0, 0), (1.15, 0.6)),
        _polygon("shade", (-0.2, -0.45), (0.25, -0.85), (0.35, -0.35)),
        _ellipse("body", -0.2, 0, 0.88, 0.55),
        _ellipse("pale", -0.65, -0.12, 0.16, 0.16),
        _ellipse("dark", -0.67, -0.12, 0.08, 0.08),
    ],
    "cat": [
        _polygon("body", (-0.85, -0.95), (-0.1, -0.5), (-0.75, 0.1)),
        _polygon("body", (0.85, -0.95), (0.1, -0.5), (0.75, 0.1)),
        _ellipse("body", 0, 0.15, 0.92, 0.78),
        _ellipse("dark", -0.38, 0.02, 0.13, 0.19),
        _ellipse("dark", 0.38, 0.02, 0.13, 0.19),
        _polygon("nose", (-0.13, 0.33), (0.13, 0.33), (0, 0.5)),
    ],
    "bird": [
        _polygon("beak", (-0.85, -0.55), (-1.25, -0.3), (-0.8, -0.22)),
        _polygon("shade", (0.5, 0.1), (1.2, -0.25), (1.1, 0.35), (0.6, 0.5)),
        _ellipse("body", 0.05, 0.2, 0.78, 0.58),
        _ellipse("body", -0.55, -0.4, 0.42, 0.4),
        _ellipse("fill", -0.3, -0.05, 0.4, 0.4),
        _polygon("shade", (-0.15, 0.05), (0.65, 0.05), (0.25, 0.55)),
        _ellipse("dark", -0.65, -0.46, 0.1, 0.1),
        _polygon("beak", (-0.08, 0.75), (0.06, 0.75), (0.06, 1.08), (-0.08, 1.08)),
    ],
    "flower": [
        _polygon("leaf", (-0.08, 0.1), (0.08, 0.1), (0.08, 1.1), (-0.08, 1.1)),
        _polygon("leaf", (0.05, 0.85), (0.6, 0.4), (0.5, 0.8)),
        *_petals(),
        _ellipse("center", 0, -0.3, 0.27, 0.27),
    ],
    "mushroom": [
        _polygon("pale", (-0.3, 0.1), (0.3, 0.1), (0.38, 0.98), (-0.38, 0.98)),
        _cap(),
        _ellipse("spot", -0.45, -0.2, 0.17, 0.17),
        _ellipse("spot", 0.15, -0.48, 0.18, 0.18),
        _ellipse("spot", 0.55, -0.08, 0.14, 0.14),
    ],
    "umbrella": [
        _polygon("wood", (-0.06, -0.1), (0.06, -0.1), (0.06, 0.85), (-0.06, 0.85)),
        _polygon(
            "wood",
            (-0.06, 0.85),
            (0.06, 0.7),
            (0.06, 1.0),
            (-0.35, 1.0),
            (-0.35, 0.8),
            (-0.25, 0.8),
            (-0.22, 0.9),
        ),
        _dome(),
        _polygon("shade", (0, -0.7), (0.3, 0), (-0.3, 0)),
    ],
    "star": [_star()],
}


def _fill(role: str, color: str) -> tuple[int, int, int]:
    r, g, b = RGB[color]
    if role in ("body", "fill"):
        return r, g, b
    if role == "shade":
        return int(r * 0.72), int(g * 0.72), int(b * 0.72)
    if role == "gloss":
        return (255, 255, 255) if color != "white" else (225, 225, 232)
    if role == "pale":
        return (250, 248, 240) if color != "white" else (214, 216, 224)
    if role == "spot":
        return (250, 250, 250) if color != "white" else (170, 172, 182)
    fixed = {
        "dark": (30, 26, 34),
        "glass": (176, 222, 245),
        "wood": (122, 78, 42),
        "leaf": (44, 130, 46),
        "center": (250, 190, 40) if color != "yellow" else (150, 90, 30),
        "nose": (240, 130, 150),
        "beak": (246, 160, 30),
    }
    return fixed[role]


def _draw_thing(canvas: ImageDraw.ImageDraw, item: Item, x: float, y: float, radius: float) -> None:
    """Draws the outlines of all parts first, so that no outline crosses another part."""

    def place(points: Points) -> Points:
        return [(x + px * radius, y + py * radius) for px, py in points]

    ink, color = 1.6 * _OVER, item.color or ""
    for role, kind, points in SHAPES[item.thing]:
        if role in ("gloss", "dark", "glass", "spot", "nose", "fill"):
            continue
        where = place(points)
        if kind == "ellipse":
            (x0, y0), (x1, y1) = where
            canvas.ellipse((x0 - ink, y0 - ink, x1 + ink, y1 + ink), fill=_INK)
        else:
            canvas.line([*where, where[0], where[1]], fill=_INK, width=int(2 * ink), joint="curve")
    for role, kind, points in SHAPES[item.thing]:
        where = place(points)
        if kind == "ellipse":
            canvas.ellipse((*where[0], *where[1]), fill=_fill(role, color))
        else:
            canvas.polygon(where, fill=_fill(role, color))


_U = (np.arange(_FULL, dtype=np.float32) + 0.5) / _FULL

SKY = {
    "day": ((96, 164, 240), (206, 232, 252)),
    "sunset": ((120, 60, 130), (252, 150, 60)),
    "night": ((6, 8, 36), (30, 34, 84)),
}
GROUND = {
    "meadow": ((126, 198, 84), (66, 140, 44)),
    "desert": ((240, 206, 134), (204, 154, 84)),
    "forest": ((42, 92, 42), (26, 62, 28)),
    "sea": ((38, 110, 178), (16, 62, 130)),
    "snow": ((246, 250, 255), (206, 218, 236)),
    "city": ((132, 132, 140), (92, 92, 100)),
}
# The light's factors for the red, green and blue of the ground.
LIGHT = {"day": (1.0, 1.0, 1.0), "sunset": (0.92, 0.7, 0.6), "night": (0.34, 0.38, 0.56)}


def _gradient(
    top: tuple[int, int, int], bottom: tuple[int, int, int], share: NDArray[np.float32]
) -> NDArray[np.float32]:
    t = np.clip(share, 0, 1)[..., None]
    return np.asarray(top, np.float32) * (1 - t) + np.asarray(bottom, np.float32) * t


def _lit(color: tuple[int, int, int], time: str) -> tuple[int, int, int]:
    r, g, b = (int(c * f) for c, f in zip(color, LIGHT[time], strict=True))
    return r, g, b


def _draw_sky(canvas: ImageDraw.ImageDraw, time: str, horizon: float, rng: np.random.Generator) -> None:
    n = _FULL
    if time == "day":
        for _ in range(2):
            cx, cy = rng.uniform(0.1, 0.9) * n, rng.uniform(0.08, 0.22) * n
            for dx, r in ((-0.07, 0.045), (0, 0.065), (0.07, 0.045)):
                canvas.ellipse(
                    (cx + (dx - r) * n, cy - r * n * 0.7, cx + (dx + r) * n, cy + r * n * 0.7),
                    fill=(250, 252, 255),
                )
    elif time == "sunset":
        cx = rng.choice((0.15, 0.85)) * n
        canvas.ellipse((cx - 0.15 * n, (horizon - 0.15) * n, cx + 0.15 * n, (horizon + 0.15) * n), fill=(255, 224, 110))
    else:
        for _ in range(16):
            cx, cy = rng.uniform(0, 1) * n, rng.uniform(0, horizon) * n
            canvas.ellipse((cx - 2.5, cy - 2.5, cx + 2.5, cy + 2.5), fill=(240, 240, 255))
        cx, cy = rng.choice((0.13, 0.87)) * n, 0.13 * n
        canvas.ellipse((cx - 0.08 * n, cy - 0.08 * n, cx + 0.08 * n, cy + 0.08 * n), fill=(244, 240, 210))


def _draw_ground(image: Image.Image, place: str, time: str, horizon: float, rng: np.random.Generator) -> None:
    n, phase = _FULL, rng.uniform(0, 2 * math.pi)
    waves = {"meadow": (0.035, 6.0), "desert": (0.055, 9.0), "snow": (0.03, 5.0), "sea": (0.0, 1.0)}
    height, frequency = waves.get(place, (0.0, 1.0))
    line = horizon + height * np.sin(_U * frequency + phase)
    canvas = ImageDraw.Draw(image)
    if place == "city":
        left = 0.0
        while left < 1:
            width, top = rng.uniform(0.1, 0.17), horizon - rng.uniform(0.12, 0.36)
            canvas.rectangle((left * n, top * n, (left + width) * n - 3, horizon * n), fill=_lit((96, 104, 124), time))
            window = (255, 226, 120) if time != "day" else (190, 214, 230)
            for wx in np.arange(left + 0.025, left + width - 0.035, 0.045):
                for wy in np.arange(top + 0.03, horizon - 0.04, 0.07):
                    canvas.rectangle((wx * n, wy * n, wx * n + 4, wy * n + 6), fill=window)
            left += width
    elif place == "forest":
        for left in np.arange(-0.05, 1.0, 0.16) + rng.uniform(-0.03, 0.03):
            top = horizon - rng.uniform(0.28, 0.42)
            for step in (0.0, 0.12):
                canvas.polygon(
                    [
                        ((left + 0.1) * n, (top + step) * n),
                        ((left - 0.03) * n, (horizon + 0.04) * n),
                        ((left + 0.23) * n, (horizon + 0.04) * n),
                    ],
                    fill=_lit((22 + int(200 * step), 82 + int(120 * step), 40), time),
                )
    rows = _U[:, None]
    inside = rows > line[None, :]
    share = (rows - horizon) / (1 - horizon) * np.ones((1, n), np.float32)
    if place == "sea":
        share = 0.5 + 0.5 * np.sin(rows * 58 + 3 * np.sin(_U[None, :] * 8 + phase))
    elif place == "desert":
        share = share + 0.25 * np.sin(rows * 26 + 2 * np.sin(_U[None, :] * 7 + phase))
    ground = _gradient(GROUND[place][0], GROUND[place][1], share.astype(np.float32)) * np.asarray(
        LIGHT[time], np.float32
    )
    mask = Image.fromarray((inside * 255).astype(np.uint8))
    image.paste(Image.fromarray(np.clip(ground, 0, 255).astype(np.uint8)), (0, 0), mask)
    if place == "snow":
        for _ in range(26):
            cx, cy = rng.uniform(0, n, 2)
            canvas.ellipse((cx - 3, cy - 3, cx + 3, cy + 3), fill=(255, 255, 255))


def _background(place: str, time: str, rng: np.random.Generator) -> Image.Image:
    horizon = 0.58 + rng.uniform(-0.03, 0.03)
    sky = _gradient(*SKY[time], (_U[:, None] / horizon * np.ones((1, _FULL), np.float32)).astype(np.float32))
    image = Image.fromarray(sky.astype(np.uint8))
    _draw_sky(ImageDraw.Draw(image), time, horizon, rng)
    _draw_ground(image, place, time, horizon, rng)
    return image


def _spots(scene: Scene) -> list[tuple[float, float, float]]:
    """The centre (x, y) and radius of each item, in image widths."""
    if len(scene.items) == 1:
        return [(0.5, 0.54, 0.31 if scene.items[0].size == "large" else 0.19)]
    centres = [(0.26, 0.56), (0.74, 0.56)] if scene.layout == "row" else [(0.5, 0.29), (0.5, 0.75)]
    return [(x, y, 0.2 if item.size == "large" else 0.135) for (x, y), item in zip(centres, scene.items, strict=True)]


_V, _H = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32) / SIZE


def _apply_styles(
    pixels: NDArray[np.float32], styles: tuple[str, ...], rng: np.random.Generator
) -> NDArray[np.float32]:
    """Applies the styles, which are all easy to see, in a fixed order, whatever their order in the scene."""
    x = pixels
    if "soft light" in styles:
        blurred = Image.fromarray((x * 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(0.8))
        x = np.asarray(blurred, np.float32) / 255 * 0.74 + 0.26 * np.asarray((1, 0.97, 0.92), np.float32)
    if "vivid colors" in styles:
        grey = x.mean(-1, keepdims=True)
        x = np.clip((grey + (x - grey) * 1.7 - 0.5) * 1.3 + 0.5, 0, 1)
    if "watercolor" in styles:
        grain = Image.fromarray((rng.random((SIZE // 4, SIZE // 4)) * 255).astype(np.uint8)).resize(
            (SIZE, SIZE), Image.Resampling.BICUBIC
        )
        wash = (np.asarray(grain, np.float32)[..., None] / 255 - 0.5) * 0.16
        grey = x.mean(-1, keepdims=True)
        edge = np.minimum(np.minimum(_H, 1 - _H), np.minimum(_V, 1 - _V))[..., None]
        paper = np.clip(1 - edge / 0.09 + wash * 4, 0, 1)
        x = np.clip((grey + (x - grey) * 0.8 + wash) * 0.82 + 0.16, 0, 1) * (1 - paper) + paper * np.asarray(
            (0.97, 0.95, 0.9), np.float32
        )
    if "vintage" in styles:
        grey = x.mean(-1, keepdims=True)
        x = np.clip((grey + (x - grey) * 0.62) * np.asarray((1.06, 0.95, 0.76), np.float32) + 0.05, 0, 1)
    if "dramatic lighting" in styles:
        distance = np.sqrt((_H - 0.5) ** 2 + (_V - 0.5) ** 2)[..., None]
        x = x * np.clip(1.3 - 1.9 * distance, 0.06, 1.12)
    x = np.clip(x, 0, 1)
    if "cinematic" in styles:
        x = x.copy()
        x[:7] = x[-7:] = 0
    return x


def paint(scene: Scene, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Paints a scene.

    Args:
        scene: A complete scene: no fact is None (see `grammar.complete`).
        rng: The random numbers for the details that differ between images of one scene: clouds, hills, small shifts.

    Returns:
        The RGB image, uint8 [64, 64, 3].

    Raises:
        ValueError: A fact is None.
    """
    if scene.place is None or scene.time is None or any(None in (item.color, item.size) for item in scene.items):
        raise ValueError("the painter needs a complete scene; fill it with `grammar.complete`")
    image = _background(scene.place, scene.time, rng)
    canvas = ImageDraw.Draw(image)
    for item, (x, y, radius) in zip(scene.items, _spots(scene), strict=True):
        dx, dy = rng.uniform(-0.02, 0.02, 2)
        _draw_thing(canvas, item, (x + dx) * _FULL, (y + dy) * _FULL, radius * _FULL)
    small = image.reduce(_OVER)
    styled = _apply_styles(np.asarray(small, np.float32) / np.float32(255), scene.styles, rng)
    return (styled * 255).round().astype(np.uint8)
