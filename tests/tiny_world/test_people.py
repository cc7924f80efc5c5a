from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from semdpo.tiny_world.grammar import Item, Scene
from semdpo.tiny_world.people import HPS_RATERS, LABELLERS, PICKERS, ask, faithfulness, popularity, utility

ASKED = Scene((Item("car", "blue", None),), "row", "desert", None)
SHOWN = Scene((Item("car", "blue", "small"),), "row", "desert", "day")


def test_faithfulness_counts_stated_facts_only() -> None:
    assert faithfulness(ASKED, SHOWN) == 1
    assert faithfulness(ASKED, replace(SHOWN, time="night")) == 1
    assert faithfulness(ASKED, replace(SHOWN, place="sea")) == pytest.approx(3 / 4)
    assert faithfulness(ASKED, replace(SHOWN, items=(Item("cat", "blue", "small"),))) == pytest.approx(3 / 4)
    extra = replace(SHOWN, items=(*SHOWN.items, Item("cat", "red", "small")))
    assert faithfulness(ASKED, extra) == pytest.approx(3 / 4)


def test_exchanged_items_cost_the_arrangement_only() -> None:
    two = Scene((Item("car", "blue", None), Item("cat", "red", None)), "row", None, None)
    shown = Scene((Item("cat", "red", "small"), Item("car", "blue", "small")), "row", "sea", "day")
    assert faithfulness(two, shown) == pytest.approx(5 / 6)


def test_popular_content_sways_people_whatever_was_asked() -> None:
    sunset = replace(SHOWN, time="sunset")
    asked_day = replace(ASKED, time="day")
    assert popularity(sunset) > popularity(SHOWN)
    # 0.6 · 0.8 of popularity against one of five facts worth 2 / 5
    assert utility(LABELLERS, asked_day, sunset) > utility(LABELLERS, asked_day, SHOWN)


def test_choices_follow_utility_with_noise() -> None:
    choices = ask(LABELLERS, 400, seed=5)
    agree = (choices.utilities.argmax(1) == choices.chosen).mean()
    assert 0.75 < agree < 0.95
    again = ask(LABELLERS, 400, seed=5)
    assert np.array_equal(choices.images, again.images)
    assert np.array_equal(choices.chosen, again.chosen)


def test_groups_see_different_images() -> None:
    seen = [ask(people, 3, seed=0) for people in (LABELLERS, PICKERS, HPS_RATERS)]
    assert seen[0].prompts != seen[1].prompts != seen[2].prompts
    assert not np.array_equal(seen[0].images, seen[1].images)
