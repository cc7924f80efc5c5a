from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

from semdpo.tiny_world import grammar, wordings
from semdpo.tiny_world.grammar import Item, Scene
from semdpo.tiny_world_training.blip import falsify


def _facts(scene: Scene) -> list[str | None]:
    return [fact for item in scene.items for fact in (item.thing, item.color, item.size)] + [scene.place, scene.time]


def test_a_false_caption_has_one_fact_exchanged_and_states_no_more() -> None:
    rng = random.Random(61)
    kinds: Counter[str] = Counter()
    for _ in range(3000):
        _, said = wordings.caption(grammar.scene(rng), rng)
        false = falsify(said, rng)
        assert false != said
        assert false.layout == said.layout
        before, after = _facts(said), _facts(false)
        if false.items == said.items[::-1] and false.items != said.items:
            kinds["swap"] += 1
            continue
        changed = [(a, b) for a, b in zip(before, after, strict=True) if a != b]
        assert len(changed) == (false.styles == said.styles)
        assert all(a is not None and b is not None for a, b in changed)
        assert len(false.styles) == len(said.styles)
        kinds["style" if not changed else "fact"] += 1
    assert set(kinds) == {"swap", "style", "fact"}


def test_what_was_not_said_is_not_exchanged() -> None:
    rng = random.Random(62)
    bare = Scene((Item("ball", None, None),), "row", None, None)
    for _ in range(50):
        false = falsify(bare, rng)
        assert false.items[0].thing != "ball"
        assert replace(false, items=bare.items) == bare
