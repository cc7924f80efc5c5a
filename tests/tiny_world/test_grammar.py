from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from semdpo.data.tables import DATA
from semdpo.tiny_world import grammar
from semdpo.tiny_world_training import texts as data


def test_equal_seeds_give_equal_texts() -> None:
    def texts(seed: int) -> list[str]:
        rng = random.Random(seed)
        return [grammar.caption(grammar.scene(rng), rng)[0] for _ in range(50)]

    assert texts(1) == texts(1)
    assert texts(1) != texts(2)


def test_held_out_combinations_never_come_up_unasked() -> None:
    rng = random.Random(0)
    for _ in range(3000):
        request = grammar.request(rng)
        scenes = [grammar.scene(rng), request, grammar.drift(request, rng)]
        for scene in scenes:
            assert not {(item.thing, item.color) for item in scene.items} & grammar.HELD_OUT


def test_held_out_combinations_come_up_when_asked() -> None:
    rng = random.Random(0)
    first = {
        (scene.items[0].thing, scene.items[0].color)
        for scene in (grammar.scene(rng, held_out=True) for _ in range(200))
    }
    assert first == grammar.HELD_OUT


def test_a_request_is_completed_without_changing_what_was_said() -> None:
    rng = random.Random(3)
    for _ in range(500):
        request = grammar.request(rng)
        full = grammar.complete(request, rng)
        assert full.place is not None
        assert full.time is not None
        assert request.place in (None, full.place)
        assert request.time in (None, full.time)
        for said, shown in zip(request.items, full.items, strict=True):
            assert (said.thing, said.color) == (shown.thing, shown.color)
            assert shown.size is not None
            assert said.size in (None, shown.size)


def test_wording_names_every_stated_fact() -> None:
    rng = random.Random(4)
    for _ in range(300):
        request = grammar.request(rng)
        text = grammar.wording(request, rng)
        for item in request.items:
            assert item.color in text
            assert any(word in text for word in grammar.THING_WORDS.get(item.thing, (item.thing,)))
        if request.place:
            assert any(words in text for words in grammar.PLACE_WORDS[request.place])
        if request.time:
            assert any(words in text for words in grammar.TIME_WORDS[request.time])


def test_left_and_right_say_the_same_scene() -> None:
    row = grammar.Scene((grammar.Item("cat", "red", None), grammar.Item("car", "blue", None)), "row", None, None)
    texts = {grammar.wording(row, random.Random(k)).removeprefix("a photo of ") for k in range(200)}
    assert any("a red cat to the left of a blue" in text for text in texts)
    assert any("to the right of a red" in text for text in texts)
    assert not any(text.endswith("to the right of a blue car") for text in texts)


def test_rewrites_add_styles_and_some_drift() -> None:
    rng = random.Random(5)
    kept = styled = 0
    for _ in range(1000):
        request = grammar.request(rng)
        prompt = grammar.wording(request, rng)
        rewrite = grammar.rewrite(request, prompt, rng)
        kept += rewrite.startswith(prompt)
        styled += any(style in rewrite for style in grammar.STYLES)
    assert 350 < kept < 500  # 0.6 faithful × 0.7 in the same words
    assert styled > 800


def test_shipped_prompts_do_not_overlap_and_stay_clear_of_held_out_combinations(tmp_path: Path) -> None:
    data.write(tmp_path)
    words_of = grammar.THING_WORDS
    forbidden = [f"{color} {word}" for thing, color in grammar.HELD_OUT for word in words_of.get(thing, (thing,))]
    seen: set[str] = set()
    for file in sorted(tmp_path.iterdir()):
        assert file.read_bytes() == (DATA / file.name).read_bytes(), f"{file.name} is not what is shipped"
        prompts = [json.loads(line)["prompt"] for line in file.read_text().splitlines()]
        assert len(prompts) == len(set(prompts))
        assert not seen & set(prompts), f"{file.name} shares prompts with another file"
        seen |= set(prompts)
        unseen = [prompt for prompt in prompts if any(words in prompt for words in forbidden)]
        assert len(unseen) == (len(prompts) if file.name == "unseen.jsonl" else 0)
    assert len(seen) == 6600


@pytest.mark.parametrize("empty", [0, 1, 2])
def test_decoration_follows_the_text(empty: int) -> None:
    text = grammar.decorate("a red ball", ("vintage",), empty, random.Random(1))
    assert text.startswith("a red ball, ")
    assert len(text.split(", ")) == 2 + empty
