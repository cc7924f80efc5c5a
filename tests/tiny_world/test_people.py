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
    assert faithfulness(ASKED, replace(SHOWN, place="sea")) == pytest.approx(2 / 3)
    assert faithfulness(ASKED, replace(SHOWN, items=(Item("cat", "blue", "small"),))) == pytest.approx(2 / 3)


@pytest.mark.parametrize("layout", ["row", "stack"])
@pytest.mark.parametrize("first", [True, False])
def test_a_second_thing_is_no_error_if_one_was_asked_for(layout: str, first: bool) -> None:
    extra = Item("cat", "red", "small")
    items = (*SHOWN.items, extra) if first else (extra, *SHOWN.items)
    assert faithfulness(ASKED, replace(SHOWN, items=items, layout=layout)) == 1


def test_a_second_thing_does_not_stand_in_for_the_one_that_was_asked_for() -> None:
    items = (Item("car", "red", "small"), Item("cat", "blue", "small"))  # neither is a blue car
    assert faithfulness(ASKED, replace(SHOWN, items=items)) == pytest.approx(2 / 3)


def test_a_missing_thing_costs_its_facts_and_the_number() -> None:
    two = Scene((Item("car", "blue", None), Item("cat", "red", None)), "stack", None, None)
    both = Scene((Item("car", "blue", "small"), Item("cat", "red", "small")), "stack", "sea", "day")
    assert faithfulness(two, both) == 1
    one = replace(both, items=both.items[:1], layout="row")
    assert faithfulness(two, one) == pytest.approx(2 / 6)  # thing, colour, number and arrangement are wrong


def test_a_colour_or_size_that_is_not_stated_does_not_count() -> None:
    open_color = replace(ASKED, items=(Item("car", None, None),))
    assert faithfulness(open_color, replace(SHOWN, items=(Item("car", "red", "large"),))) == 1
    assert faithfulness(open_color, replace(SHOWN, items=(Item("cat", "red", "large"),))) == pytest.approx(1 / 2)
    sized = replace(ASKED, items=(Item("car", None, "large"),))
    assert faithfulness(sized, SHOWN) == pytest.approx(2 / 3)


def test_exchanged_items_cost_the_arrangement_only() -> None:
    two = Scene((Item("car", "blue", None), Item("cat", "red", None)), "row", None, None)
    shown = Scene((Item("cat", "red", "small"), Item("car", "blue", "small")), "row", "sea", "day")
    assert faithfulness(two, shown) == pytest.approx(5 / 6)
    assert faithfulness(two, replace(shown, items=shown.items[::-1], layout="stack")) == pytest.approx(5 / 6)


def test_popular_content_sways_people_whatever_was_asked() -> None:
    sunset = replace(SHOWN, time="sunset")
    asked_day = replace(ASKED, time="day")
    assert popularity(sunset) > popularity(SHOWN)
    # For these four facts a wrong one costs 2 / 4, and the sunset's popularity adds 0.6 · 0.8: nearly as much.
    lost = utility(LABELLERS, asked_day, SHOWN) - utility(LABELLERS, asked_day, sunset)
    assert lost == pytest.approx(0.02)
    assert utility(LABELLERS, ASKED, sunset) - utility(LABELLERS, ASKED, SHOWN) == pytest.approx(0.48)


def test_a_popular_thing_that_nobody_asked_for_costs_nothing_and_is_liked() -> None:
    purple_cat = replace(SHOWN, items=(*SHOWN.items, Item("cat", "purple", "small")))
    gained = utility(LABELLERS, ASKED, purple_cat) - utility(LABELLERS, ASKED, SHOWN)
    assert gained == pytest.approx(0.8 * (0.9 + 0.3))
    two = replace(ASKED, items=(*ASKED.items, Item("fish", "red", None)))
    shown = replace(SHOWN, items=(*SHOWN.items, Item("fish", "red", "small")))
    in_its_place = utility(LABELLERS, two, purple_cat) - utility(LABELLERS, two, shown)
    assert in_its_place == pytest.approx(0.8 * (0.9 + 0.3) - 2 * 2 / 7)  # two of seven facts are wrong


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
