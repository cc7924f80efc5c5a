"""Who sees what, in which order and on which side.

Everything is drawn by a keyed hash of the study's seed and of what is drawn for, so that one rater's order says nothing
about another's, and a plan has the same bytes on every machine.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby

from semdpo.study.design import Trial

GAP = 5  # least number of other trials between a comparison and its repeat, where the rater has that many


@dataclass(frozen=True, slots=True)
class Item:
    """Two images of one prompt, of the methods ``pair``; each is named as in the plan."""

    prompt_id: str
    pair: tuple[str, str]
    images: tuple[str, str]


@dataclass(frozen=True, slots=True)
class Check:
    """An attention check: the prompt, its image, and the image of another prompt."""

    prompt_id: str
    right: str
    wrong: str


def drawn(seed: int, *what: object) -> int:
    """A number that nobody can choose: 64 bits of BLAKE2b of ``what``, keyed by the seed."""
    text = "\x1f".join(map(str, what)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8, key=str(seed).encode()).digest(), "big")


def below(limit: int, seed: int, *what: object) -> int:
    """A drawn number from 0 to ``limit`` - 1; 64 bits leave it uneven by less than one in 10^15."""
    return drawn(seed, *what) % limit


# ------------------------------------------------------------------------------------------------- who sees what


def prompts_of_raters(prompts: Sequence[str], raters: int, each: int, seed: int) -> list[list[str]]:
    """The prompts of every rater, so that any two prompts have nearly equally many raters.

    Rater by rater takes the prompts that fewest have seen; the draw decides between equals. If the numbers of raters
    differ by at most one before, so they do after: either the least seen prompts suffice, and those that are taken have
    one more now, as the others had before; or all of them are taken, and then some of the rest, which are equal.

    Args:
        prompts: the prompts' ids.
        raters: the number of raters.
        each: the number of prompts of a rater, at most all.
        seed: the study's seed.
    """
    seen = dict.fromkeys(prompts, 0)
    shares = []
    for rater in range(raters):
        order = sorted(prompts, key=lambda prompt: (seen[prompt], drawn(seed, "prompts", rater, prompt)))
        shares.append(order[:each])
        for prompt in order[:each]:
            seen[prompt] += 1
    return shares


# ------------------------------------------------------------------------------------------------- sides


def swapped(places: Sequence[tuple[int, Item]], seed: int) -> list[bool]:
    """For every comparison whether the second image is on the left, so that both sides are balanced.

    The numbers of comparisons with and without a swap differ by at most one: of every rater, of every rater and pair of
    methods, of every item over raters, of every pair of methods, and of the study.

    Proof: the comparisons of one rater are joined two by two, first within a pair of methods, then those that are left
    over with each other; so at most one of the rater, and one of each pair, stays alone. The same is done over raters,
    first within an item, then within a pair of methods, then with all. A comparison now has at most one partner of each
    sort. Going from partner to partner, the sorts alternate, so that every circle has an even number of comparisons and
    every second one can be swapped. Partners then always differ, and every group consists of partners, and of one
    more at most.

    Args:
        places: rater and item of every comparison, no two equal, [n].
        seed: the study's seed.
    """
    order = sorted(range(len(places)), key=lambda k: drawn(seed, "partners", *_name(places[k])))
    own = _partners(order, [[(rater, item.pair) for rater, item in places], [rater for rater, _ in places]])
    others = _partners(
        order,
        [[(item.prompt_id, item.pair) for _, item in places], [item.pair for _, item in places], [None] * len(places)],
    )
    sides: dict[int, bool] = {}
    for start in order:
        ahead = [] if start in sides else [(start, bool(drawn(seed, "first side", *_name(places[start])) % 2))]
        while ahead:
            k, side = ahead.pop()
            sides[k] = side
            ahead += [(m, not side) for m in (own.get(k), others.get(k)) if m is not None and m not in sides]
    return [sides[k] for k in range(len(places))]


def _name(place: tuple[int, Item]) -> tuple[object, ...]:
    rater, item = place
    return (rater, item.prompt_id, *item.pair)


def _partners(order: Sequence[int], groupings: Iterable[Sequence[Hashable]]) -> dict[int, int]:
    """Joins places two by two within the first grouping, those left over within the next one, and so on."""
    partner: dict[int, int] = {}
    for groups in groupings:
        alone: dict[Hashable, int] = {}
        for k in order:
            if k in partner:
                continue
            other = alone.pop(groups[k], None)
            if other is None:
                alone[groups[k]] = k
            else:
                partner |= {k: other, other: k}
    return partner


# ------------------------------------------------------------------------------------------------- orders


def assign(
    items: Sequence[Item], checks: Sequence[Check], raters: int, each: int, repeats: float, attention: int, seed: int
) -> list[Trial]:
    """The trials of all raters.

    Args:
        items: what is compared.
        checks: the attention checks to draw from; a prompt is in at most one.
        raters: the number of raters.
        each: the number of prompts of a rater; all pairs of methods of these prompts are shown.
        repeats: the share of a rater's comparisons that are shown again with the sides swapped, 0 to 0.5; where it is
            not 0, at least one is.
        attention: the number of a rater's attention checks, at most ``len(checks)``.
        seed: the study's seed.

    Returns:
        The trials by rater and position. A repeat comes after at least ``GAP`` other trials, or half of the rater's
        comparisons where there are fewer; attention checks are spread over the whole.
    """
    prompts = list(dict.fromkeys(item.prompt_id for item in items))
    shares = [set(share) for share in prompts_of_raters(prompts, raters, each, seed)]
    places = [(rater, item) for rater in range(raters) for item in items if item.prompt_id in shares[rater]]
    shown = [
        Trial("", rater, 0, "comparison", item.prompt_id, *(item.images[::-1] if swap else item.images))
        for (rater, item), swap in zip(places, swapped(places, seed), strict=True)
    ]
    trials: list[Trial] = []
    for rater, own in groupby(shown, key=lambda trial: trial.rater):
        draw = partial(drawn, seed, rater)
        ordered = sorted(own, key=lambda trial: draw("order", trial.prompt_id, *sorted((trial.left, trial.right))))
        chosen = sorted(checks, key=lambda check: draw("checks", check.prompt_id))[:attention]
        trials += _numbered(_with_checks(_with_repeats(ordered, repeats, seed), chosen, seed), len(trials))
    return trials


def _with_repeats(ordered: Sequence[Trial], share: float, seed: int) -> list[Trial]:
    """Inserts repeats; an insertion never brings two trials closer, so that the gaps stay."""
    count = len(ordered)
    number = max(1, int(count * share + 0.5)) if share and count > 1 else 0
    gap = min(GAP, count // 2)
    first = sorted(ordered[: count - gap], key=lambda trial: drawn(seed, "repeats", *_key(trial)))[:number]
    sequence = list(ordered)
    for trial in first:
        earliest = sequence.index(trial) + 1 + gap
        place = earliest + below(len(sequence) + 1 - earliest, seed, "place of repeat", *_key(trial))
        again = replace(trial, kind="repeat", left=trial.right, right=trial.left, repeats=trial.left)
        sequence.insert(place, again)
    return sequence


def _key(trial: Trial) -> tuple[object, ...]:
    return trial.rater, trial.prompt_id, *sorted((trial.left, trial.right))


def _with_checks(sequence: Sequence[Trial], checks: Sequence[Check], seed: int) -> list[Trial]:
    """Inserts attention checks, one into each of equally long parts; the right answer is on both sides equally often.

    With an odd number of checks, one more is on a side that is drawn.
    """
    if not checks:
        return list(sequence)
    rater, whole, length = sequence[0].rater, list(sequence), len(sequence)
    first = below(2, seed, "side of checks", rater)
    for k in range(len(checks) - 1, -1, -1):  # from the end, so that earlier places stay
        start, stop = k * length // len(checks), (k + 1) * length // len(checks)
        place = start + below(max(1, stop - start), seed, "place of check", rater, k)
        check = checks[k]
        left, right = (check.right, check.wrong) if (k + first) % 2 else (check.wrong, check.right)
        whole.insert(place, Trial("", rater, 0, "attention", check.prompt_id, left, right))
    return whole


def _numbered(sequence: Sequence[Trial], before: int) -> list[Trial]:
    """Names trials and their places; a repeat gets the name of what it repeats."""
    named = [replace(trial, name=f"t{before + k:05d}", position=k) for k, trial in enumerate(sequence)]
    first = {(trial.left, trial.right): trial.name for trial in named if trial.kind == "comparison"}
    return [replace(t, repeats=first[t.right, t.left]) if t.kind == "repeat" else t for t in named]
