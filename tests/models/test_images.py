"""Every kind of image is scored as it is shown: upright, opaque, in eight bits, the same for every scorer."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from semdpo.errors import DataError
from semdpo.models.images import rgb
from semdpo.models.scorers.registry import load_scorer
from tests import tiny_models, tiny_multimodal

BUILDERS = {
    "clip-score": tiny_models.clip,
    "hpsv2.1": lambda folder: tiny_models.clip(folder, "hpsv2.1"),
    "pickscore": lambda folder: tiny_models.clip(folder, "pickscore"),
    "image-reward": tiny_models.image_reward,
    "blip-itm": tiny_models.blip_itm,
    "vqa-score": tiny_multimodal.llava,
    "jina": tiny_multimodal.jina,
}


def _through_file(image: Image.Image, kind: str, **more: object) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, kind, **more)
    return Image.open(io.BytesIO(buffer.getvalue()))


def _turned(image: Image.Image, orientation: int) -> Image.Image:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return _through_file(image, "PNG", exif=exif)


def _pixels(image: Image.Image) -> np.ndarray:
    assert image.mode == "RGB"
    return np.asarray(image, np.int16)


@pytest.mark.parametrize(
    ("orientation", "shown"),
    [
        (3, Image.Transpose.ROTATE_180),
        (6, Image.Transpose.ROTATE_270),
        (8, Image.Transpose.ROTATE_90),
        (2, Image.Transpose.FLIP_LEFT_RIGHT),
        (7, Image.Transpose.TRANSVERSE),
    ],
)
def test_images_are_turned_as_their_exif_says(orientation: int, shown: Image.Transpose) -> None:
    image = tiny_models.image(1, 24, 16)
    np.testing.assert_array_equal(_pixels(rgb(_turned(image, orientation))), _pixels(image.transpose(shown)))


def test_an_rgb_image_is_left_alone() -> None:
    image = tiny_models.image(1)
    assert rgb(image) is image


def test_transparent_pixels_show_white() -> None:
    colours = np.zeros((1, 4, 4), np.uint8)
    colours[0] = [[10, 20, 30, 255], [10, 20, 30, 0], [0, 0, 0, 0], [100, 100, 100, 127]]
    expected = [[10, 20, 30], [255] * 3, [255] * 3, [178] * 3]
    assert np.abs(_pixels(rgb(Image.fromarray(colours)))[0] - expected).max() <= 1


def test_palettes_and_grey_levels_with_alpha_show_white_too() -> None:
    palette = Image.new("P", (2, 1))
    palette.putpalette([200, 0, 0, 0, 200, 0])
    palette.putpixel((1, 0), 1)
    shown = _through_file(palette, "PNG", transparency=1)
    assert shown.mode == "P"
    assert _pixels(rgb(shown))[0].tolist() == [[200, 0, 0], [255, 255, 255]]
    grey = Image.merge("LA", (Image.new("L", (1, 1), 40), Image.new("L", (1, 1), 0)))
    assert _pixels(rgb(grey))[0].tolist() == [[255, 255, 255]]


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK", "YCbCr", "HSV", "RGBA", "RGBX"])
def test_opaque_modes_keep_their_colours(mode: str) -> None:
    image = tiny_models.image(2).convert(mode)
    np.testing.assert_array_equal(_pixels(rgb(image)), _pixels(image.convert("RGB")))


LEVELS = np.array([[0, 128, 200, 255]], np.uint8)


@pytest.mark.parametrize(
    "deep",
    [
        lambda: Image.fromarray(LEVELS.astype(np.uint16) * 257),
        lambda: _through_file(Image.fromarray(LEVELS.astype(np.uint16) * 257), "PNG"),
        lambda: _through_file(Image.fromarray(LEVELS.astype(np.uint16) * 257), "TIFF"),
        lambda: Image.fromarray(LEVELS.astype(">u2") * np.array(257, ">u2")),
        lambda: Image.fromarray(LEVELS.astype(np.int32) * 257),
        lambda: Image.fromarray(LEVELS.astype(np.int32)),
        lambda: Image.fromarray(LEVELS.astype(np.float32) / 255),
        lambda: Image.fromarray(LEVELS.astype(np.float32)),
    ],
    ids=["I;16", "PNG", "TIFF", "big-endian", "I of 16 bits", "I of 8 bits", "F to 1", "F to 255"],
)
def test_deep_images_are_scaled_not_clipped(deep: Callable[[], Image.Image]) -> None:
    image = deep()
    assert image.mode in ("I;16", "I;16B", "I", "F")
    np.testing.assert_array_equal(_pixels(rgb(image))[0], np.repeat(LEVELS[0, :, None], 3, 1))


def test_a_dark_16_bit_image_stays_dark() -> None:
    assert _pixels(rgb(Image.fromarray(np.full((1, 1), 255, np.uint16)))).max() == 1


@pytest.mark.parametrize("values", [[-1.0, 0.5], [0.5, float("nan")], [0.0, 1e6], [0.0, 300.0]])
def test_values_without_a_known_scale_are_refused(values: list[float]) -> None:
    with pytest.raises(DataError, match="scale"):
        rgb(Image.fromarray(np.array([values], np.float32)))


@pytest.mark.parametrize("name", BUILDERS)
def test_every_scorer_sees_it_as_it_is_shown(name: str, tmp_path: Path) -> None:
    folder = str(BUILDERS[name](tmp_path / "model"))
    scorer = load_scorer(folder, allow_remote_code=[folder])
    image = tiny_models.image(3, 48, 32)
    clear = image.convert("RGBA")
    clear.putalpha(Image.fromarray(np.tile(np.linspace(0, 255, 48).astype(np.uint8), (32, 1))))
    deep = Image.fromarray(np.asarray(image.convert("L"), np.uint16) * 257)
    white = Image.new("RGB", image.size, "white")
    white.paste(image, mask=clear.getchannel("A"))
    given = [_turned(image, 6), clear, deep]
    shown = [image.transpose(Image.Transpose.ROTATE_270), white, image.convert("L").convert("RGB")]
    scores = [scorer.score(images, ["a red ball"] * 3).values for images in (given, shown)]
    np.testing.assert_allclose(*scores, atol=2e-3 if name in ("image-reward", "jina") else 1e-3)
    np.testing.assert_allclose(scores[0][[0, 2]], scores[1][[0, 2]], atol=1e-6)
