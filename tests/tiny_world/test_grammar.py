from __future__ import annotations

import random
from dataclasses import replace

from semdpo.tiny_world import grammar, requests
from semdpo.tiny_world.grammar import Item, Scene


def test_equal_seeds_give_equal_scenes() -> None:
    def scenes(seed: int) -> list[Scene]:
        rng = random.Random(seed)
        return [grammar.forget(grammar.scene(rng), rng) for _ in range(50)]

    assert scenes(1) == scenes(1)
    assert scenes(1) != scenes(2)


def test_a_scene_states_every_fact() -> None:
    rng = random.Random(0)
    for count in (1, 2, None):
        for _ in range(200):
            scene = grammar.scene(rng, count=count)
            assert len(scene.items) == (count or len(scene.items))
            assert None not in (scene.place, scene.time)
            assert all(None not in (item.color, item.size) for item in scene.items)
            assert scene.layout == "row" or len(scene.items) == 2
            assert list(scene.styles) == sorted(set(scene.styles))


def test_held_out_combinations_never_come_up_unasked() -> None:
    rng = random.Random(0)
    for _ in range(3000):
        scene = grammar.scene(rng)
        assert grammar.allowed(scene)
        open_colors = replace(scene, items=tuple(replace(item, color=None) for item in scene.items))
        assert grammar.allowed(grammar.complete(open_colors, rng))


def test_held_out_combinations_come_up_when_asked() -> None:
    rng = random.Random(0)
    scenes = [grammar.scene(rng, held_out=True) for _ in range(200)]
    assert {(scene.items[0].thing, scene.items[0].color) for scene in scenes} == grammar.HELD_OUT
    assert not any(grammar.allowed(scene) for scene in scenes)
    assert all(grammar.allowed(replace(scene, items=scene.items[1:])) for scene in scenes)


def test_a_request_is_completed_without_changing_what_was_said() -> None:
    rng = random.Random(3)
    for k in range(1000):
        request = requests.request(rng, held_out=k % 3 == 0)
        full = grammar.complete(request, rng)
        assert full.place is not None
        assert full.time is not None
        assert request.place in (None, full.place)
        assert request.time in (None, full.time)
        assert (request.layout, request.styles) == (full.layout, full.styles)
        for said, shown in zip(request.items, full.items, strict=True):
            assert said.thing == shown.thing
            assert shown.color is not None
            assert shown.size is not None
            assert said.color in (None, shown.color)
            assert said.size in (None, shown.size)


def test_what_is_left_open_is_mostly_daylight_in_any_colour() -> None:
    rng = random.Random(4)
    ball = Scene((Item("ball", None, None),), "row", None, None)
    full = [grammar.complete(ball, rng) for _ in range(1000)]
    assert 0.65 < sum(scene.time == "day" for scene in full) / 1000 < 0.75
    assert {scene.items[0].color for scene in full} == set(grammar.COLORS) - {"white"}  # white balls are held out
    assert {scene.place for scene in full} == set(grammar.PLACES)


def test_a_caption_hardly_ever_forgets_a_colour() -> None:
    rng = random.Random(5)
    full = [grammar.scene(rng) for _ in range(3000)]
    said = [grammar.forget(scene, rng) for scene in full]
    items = [item for scene in said for item in scene.items]
    assert 0.93 < sum(item.color is not None for item in items) / len(items) < 0.97
    assert 0.47 < sum(item.size is not None for item in items) / len(items) < 0.53
    assert 0.88 < sum(scene.place is not None for scene in said) / 3000 < 0.92
    for scene, rest in zip(full, said, strict=True):
        assert rest.place in (None, scene.place)
        assert rest.time in (None, scene.time)
        assert [item.thing for item in rest.items] == [item.thing for item in scene.items]
