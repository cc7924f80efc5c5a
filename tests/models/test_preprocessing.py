"""Images of odd sizes become the same numbers as upstream's formulas make."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from semdpo.models.loading import pixels, to_tensor
from semdpo.models.scorers.hps import fit_square
from semdpo.models.scorers.image_reward import shortest_side
from tests import tiny_models

SIZES = [(32, 32), (33, 32), (32, 33), (64, 20), (20, 64), (31, 47), (100, 37), (224, 225), (35, 32), (32, 37), (1, 9)]
MODES = ["RGB", "RGBA", "L", "P", "CMYK"]


def _torchvision_resize_and_crop(image: Image.Image, side: int) -> Image.Image:
    """torchvision's documented arithmetic: Resize(side) keeps the ratio by truncation, CenterCrop rounds its corner."""
    width, height = image.size
    upright = width <= height
    size = (side, int(side * height / width)) if upright else (int(side * width / height), side)
    if min(width, height) != side:
        image = image.resize(size, Image.Resampling.BICUBIC)
    width, height = image.size
    top, left = round((height - side) / 2.0), round((width - side) / 2.0)
    return image.crop((left, top, left + side, top + side))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("mode", MODES)
def test_imagereward_sees_what_torchvision_would_give_it(size: tuple[int, int], mode: str) -> None:
    image = tiny_models.image(1, *size).convert(mode)
    found = shortest_side(image, 32)
    assert (found.mode, found.size) == ("RGB", (32, 32))
    wanted = _torchvision_resize_and_crop(image.convert("RGB"), 32)
    np.testing.assert_array_equal(np.asarray(found), np.asarray(wanted))


def test_the_crop_is_not_transformers_when_three_rows_are_left_over() -> None:
    """(35 - 32) / 2 is rounded to 2 by torchvision and to 1 by transformers."""
    image = tiny_models.image(2, 32, 35)
    processor = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    mean, std = (torch.tensor(each).view(3, 1, 1) for each in (processor.image_mean, processor.image_std))
    theirs = pixels(processor, [image])[0] * std + mean
    assert (to_tensor(shortest_side(image, 32)) - theirs).abs().max() > 0.1
    torch.testing.assert_close(theirs, to_tensor(image)[:, 1:33], rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("mode", MODES)
def test_hps_fits_the_longest_side_and_pads_to_a_square(size: tuple[int, int], mode: str) -> None:
    image = tiny_models.image(3, *size).convert(mode)
    found = fit_square(image, 24)
    values = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1).float() / 255
    height, width = values.shape[1:]
    scale = 24 / float(max(height, width))
    new = [max(1, round(height * scale)), max(1, round(width * scale))]
    inner = torch.nn.functional.interpolate(values[None], new, mode="bicubic", antialias=True)[0]
    wanted = torch.zeros(3, 24, 24)
    top, left = (24 - new[0]) // 2, (24 - new[1]) // 2
    wanted[:, top : top + new[0], left : left + new[1]] = inner
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-6)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 90), st.integers(1, 90))
def test_any_size_fits(width: int, height: int) -> None:
    image = tiny_models.image(4, width, height)
    assert fit_square(image, 16).shape == (3, 16, 16)
    assert shortest_side(image, 16).size == (16, 16)
