from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from semdpo.tiny_world import grammar
from semdpo.tiny_world.painter import RGB, SHAPES, paint

BALL = grammar.Scene((grammar.Item("ball", "red", "large"),), "row", "snow", "day")


def _paint(scene: grammar.Scene, seed: int = 0) -> np.ndarray:
    return paint(scene, np.random.default_rng(seed))


def test_every_word_can_be_painted() -> None:
    assert set(SHAPES) == set(grammar.THINGS)
    assert set(RGB) == set(grammar.COLORS)
    for place in grammar.PLACES:
        for time in grammar.TIMES:
            picture = _paint(replace(BALL, place=place, time=time))
            assert picture.shape == (64, 64, 3)
            assert picture.dtype == np.uint8


def test_the_same_brush_paints_the_same_picture() -> None:
    assert np.array_equal(_paint(BALL, 3), _paint(BALL, 3))
    assert not np.array_equal(_paint(BALL, 3), _paint(BALL, 4))


@pytest.mark.parametrize("color", grammar.COLORS)
def test_a_ball_has_its_colour_in_the_middle(color: str) -> None:
    picture = _paint(replace(BALL, items=(grammar.Item("ball", color, "large"),)))
    middle = picture[36:44, 28:36].reshape(-1, 3).astype(float).mean(0)
    nearest = min(RGB, key=lambda name: float(np.abs(middle - RGB[name]).sum()))
    assert nearest == color


def test_large_covers_more_than_small() -> None:
    red = [
        (
            np.abs(_paint(replace(BALL, items=(grammar.Item("ball", "red", size),))).astype(int) - RGB["red"]).sum(-1)
            < 60
        ).sum()
        for size in ("small", "large")
    ]
    assert red[1] > 2 * red[0]


@pytest.mark.parametrize("style", grammar.STYLES)
def test_every_style_is_visible(style: str) -> None:
    plain, styled = _paint(BALL).astype(int), _paint(replace(BALL, styles=(style,))).astype(int)
    assert np.abs(plain - styled).mean() > 6


def test_the_first_of_a_stack_is_on_top_and_of_a_row_on_the_left() -> None:
    items = (grammar.Item("ball", "red", "large"), grammar.Item("ball", "blue", "large"))
    for layout, axis in (("row", 1), ("stack", 0)):
        picture = _paint(replace(BALL, items=items, layout=layout)).astype(int)
        where = [np.argwhere(np.abs(picture - RGB[color]).sum(-1) < 60)[:, axis].mean() for color in ("red", "blue")]
        assert where[0] + 15 < where[1]


def test_an_open_scene_is_refused() -> None:
    with pytest.raises(ValueError, match="complete"):
        _paint(replace(BALL, place=None))
