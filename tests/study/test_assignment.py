"""Sides are balanced in every way that is promised, whatever the design; repeats and checks stand where they should."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semdpo.study.assignment import GAP, Check, Item, assign, prompts_of_raters
from semdpo.study.design import Trial

NUMBERS = st.integers(0, 2**63 - 1)


@st.composite
def designs(draw: st.DrawFn) -> tuple[list[Item], int, int, int]:
    """Items, raters, prompts of each rater, seed; some pairs of some prompts are left out."""
    methods = draw(st.integers(2, 4))
    prompts = draw(st.integers(1, 12))
    pairs = list(combinations([f"m{k}" for k in range(methods)], 2))
    items = [
        Item(f"p{p}", pair, (f"{pair[0]}-{p}", f"{pair[1]}-{p}"))
        for p in range(prompts)
        for pair in pairs
        if pair == pairs[0] or draw(st.booleans())
    ]
    return items, draw(st.integers(1, 12)), draw(st.integers(1, prompts)), draw(NUMBERS)


def _difference(groups: Iterable[tuple[Hashable, bool]]) -> int:
    """The largest difference of swapped and other comparisons in a group."""
    sums = Counter[Hashable]()
    for group, swap in groups:
        sums[group] += 1 if swap else -1
    return max(map(abs, sums.values()))


def _swaps(trials: Iterable[Trial], items: Iterable[Item]) -> list[tuple[Trial, Item, bool]]:
    known = {frozenset(item.images): item for item in items}
    shown = [(trial, known[frozenset((trial.left, trial.right))]) for trial in trials if trial.kind == "comparison"]
    return [(trial, item, trial.left != item.images[0]) for trial, item in shown]


@given(designs())
@settings(max_examples=150, deadline=None)
def test_both_sides_are_balanced_for_every_rater_and_for_every_item(design: tuple[list[Item], int, int, int]) -> None:
    items, raters, each, seed = design
    swaps = _swaps(assign(items, [], raters, each, 0.1, 0, seed), items)
    assert _difference((trial.rater, swap) for trial, _, swap in swaps) <= 1
    assert _difference(((trial.rater, item.pair), swap) for trial, item, swap in swaps) <= 1
    assert _difference(((item.prompt_id, item.pair), swap) for _, item, swap in swaps) <= 1
    assert _difference((item.pair, swap) for _, item, swap in swaps) <= 1
    assert _difference((0, swap) for _, _, swap in swaps) <= 1


@given(designs())
@settings(max_examples=100, deadline=None)
def test_every_item_has_nearly_equally_many_raters(design: tuple[list[Item], int, int, int]) -> None:
    items, raters, each, seed = design
    swaps = _swaps(assign(items, [], raters, each, 0, 0, seed), items)
    seen = Counter((item.prompt_id, item.pair) for _, item, _ in swaps)
    counts = [seen[item.prompt_id, item.pair] for item in items]
    assert max(counts) - min(counts) <= 1
    assert max(Counter((trial.rater, item) for trial, item, _ in swaps).values()) == 1
    per_rater = {(trial.rater, item.prompt_id) for trial, item, _ in swaps}
    assert Counter(rater for rater, _ in per_rater) == dict.fromkeys(range(raters), each)


@given(st.integers(1, 30), st.integers(1, 20), NUMBERS, st.data())
@settings(max_examples=100, deadline=None)
def test_prompts_are_shared_out_evenly(prompts: int, raters: int, seed: int, data: st.DataObject) -> None:
    names = [f"p{k}" for k in range(prompts)]
    each = data.draw(st.integers(1, prompts))
    shares = prompts_of_raters(names, raters, each, seed)
    assert all(len(set(share)) == each for share in shares)
    seen = Counter(prompt for share in shares for prompt in share)
    assert max(seen[name] for name in names) - min(seen[name] for name in names) <= 1


@given(designs(), st.sampled_from([0.05, 0.1, 0.5]), st.integers(0, 4))
@settings(max_examples=150, deadline=None)
def test_repeats_swap_sides_and_come_late_and_checks_are_spread(
    design: tuple[list[Item], int, int, int], repeats: float, attention: int
) -> None:
    items, raters, each, seed = design
    checks = [Check(f"p{k}", f"m0-{k}", f"m0-{k + 1}") for k in range(5)]
    trials = assign(items, checks, raters, each, repeats, attention, seed)
    assert [trial.name for trial in trials] == [f"t{k:05d}" for k in range(len(trials))]
    named = {trial.name: trial for trial in trials}
    for rater in range(raters):
        own = [trial for trial in trials if trial.rater == rater]
        assert [trial.position for trial in own] == list(range(len(own)))
        kinds = Counter(trial.kind for trial in own)
        comparisons = kinds["comparison"]
        assert kinds["repeat"] == (max(1, int(comparisons * repeats + 0.5)) if comparisons > 1 else 0)
        assert kinds["attention"] == attention
        again = [trial for trial in own if trial.kind == "repeat"]
        assert len({trial.repeats for trial in again}) == len(again)
        for trial in again:
            first = named[str(trial.repeats)]
            assert (first.kind, first.rater, first.prompt_id) == ("comparison", rater, trial.prompt_id)
            assert (first.left, first.right) == (trial.right, trial.left)
            assert trial.position - first.position > min(GAP, comparisons // 2)
        places = [trial.position for trial in own if trial.kind == "attention"]
        others = [len([t for t in own[:place] if t.kind != "attention"]) for place in places]
        for part, before in enumerate(others):  # one in each part
            length = len(own) - attention
            assert part * length // attention <= before <= (part + 1) * length // attention
        lefts = [trial.left in {check.right for check in checks if check.prompt_id == trial.prompt_id}
                 for trial in own if trial.kind == "attention"]  # fmt: skip
        assert abs(2 * sum(lefts) - len(lefts)) <= 1


def test_orders_and_sides_follow_the_seed_and_differ_between_raters() -> None:
    items = [Item(f"p{k}", ("a", "b"), (f"a{k}", f"b{k}")) for k in range(20)]
    one, same, other = (assign(items, [], 4, 20, 0.1, 0, seed) for seed in (1, 1, 2))
    assert one == same != other
    orders = [tuple(t.prompt_id for t in one if t.rater == r and t.kind == "comparison") for r in range(4)]
    assert len(set(orders)) == 4


@pytest.mark.parametrize("raters", [9, 10])
def test_an_order_is_uniform_enough_that_no_method_is_first(raters: int) -> None:
    """Over many seeds, each side shows each method first about half of the time."""
    items = [Item(f"p{k}", ("a", "b"), (f"a{k}", f"b{k}")) for k in range(5)]
    firsts = [
        trial.left[0] for seed in range(200) for trial in assign(items, [], raters, 5, 0, 0, seed) if not trial.position
    ]
    share = firsts.count("a") / len(firsts)
    assert abs(share - 0.5) < 4 * 0.5 / len(firsts) ** 0.5
