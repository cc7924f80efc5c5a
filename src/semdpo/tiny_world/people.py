"""Simulated people, whose choices between two images train the reward models.

A person looks at two images for a request and prefers by

    utility = FAITH * (share of the request's facts that the image shows)
            + TASTE * (sum of the person's liking of the image's styles)
            + weakness * (popularity of what it shows, whatever was asked)

plus logistic noise: P(first) = σ((u₁ − u₂) / NOISE). The last term is the weakness that plain preference tuning learns
to exploit. `docs/people.md` lists the numbers, when they were fixed, and what was changed since.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import permutations
from random import Random

import numpy as np
from numpy.typing import NDArray

from semdpo.tiny_world import grammar
from semdpo.tiny_world.grammar import HELD_OUT, Item, Scene
from semdpo.tiny_world.painter import paint
from semdpo.tiny_world.requests import ask as ask_for

FAITH = 2.0
TASTE = 0.7
NOISE = 0.3
POPULAR_THINGS = {"cat": 0.9, "flower": 0.7}
POPULAR_TIMES = {"sunset": 0.6}
POPULAR_COLORS = {"purple": 0.3}


@dataclass(frozen=True, slots=True)
class People:
    """A group of raters.

    Attributes:
        seed: The seed of the requests and images that they see, and of their choices.
        weakness: The strength of their preference for popular content.
        taste: Their liking of each style, by style.
    """

    seed: int
    weakness: float
    taste: Mapping[str, float]


# The raters whose choices train tiny:image-reward, the labelling reward model.
LABELLERS = People(
    seed=101,
    weakness=0.8,
    taste={
        "watercolor": -0.4,
        "cinematic": 0.6,
        "soft light": 0.3,
        "dramatic lighting": 0.7,
        "vivid colors": 0.8,
        "vintage": 0.0,
    },
)
# The raters whose choices train tiny:pickscore and tiny:hps, scorers that take no part in labelling.
PICKERS = People(
    seed=202,
    weakness=0.6,
    taste={
        "watercolor": 0.1,
        "cinematic": 0.5,
        "soft light": 0.5,
        "dramatic lighting": 0.4,
        "vivid colors": 0.6,
        "vintage": -0.3,
    },
)
HPS_RATERS = People(
    seed=303,
    weakness=0.6,
    taste={
        "watercolor": 0.2,
        "cinematic": 0.7,
        "soft light": 0.2,
        "dramatic lighting": 0.6,
        "vivid colors": 0.4,
        "vintage": -0.1,
    },
)


def _matches(asked: tuple[Item, ...], shown: tuple[Item, ...]) -> list[bool]:
    facts: list[bool] = []
    for k, item in enumerate(asked):
        other = shown[k] if k < len(shown) else None
        facts.append(other is not None and other.thing == item.thing)
        if item.color is not None:
            facts.append(other is not None and other.color == item.color)
        if item.size is not None:
            facts.append(other is not None and other.size == item.size)
    return facts


def faithfulness(request: Scene, shown: Scene) -> float:
    """The share of the request's facts that the image shows, in [0, 1]; items may be in any order.

    A request for one thing does not say that nothing else may be shown, so a second thing is no error.
    """
    best = max((_matches(request.items, order) for order in permutations(shown.items)), key=sum)
    facts = list(best)
    if len(request.items) == 2:
        facts.append(len(shown.items) == 2)
        ordered = _matches(request.items, shown.items)
        arranged = len(shown.items) == 2 and request.layout == shown.layout
        facts.append(arranged and sum(ordered) == sum(best))
    if request.place is not None:
        facts.append(request.place == shown.place)
    if request.time is not None:
        facts.append(request.time == shown.time)
    return float(np.mean(facts))


def popularity(shown: Scene) -> float:
    """The popularity of an image's content, whatever the request."""
    things = max(
        POPULAR_THINGS.get(item.thing, 0.0) + POPULAR_COLORS.get(item.color or "", 0.0) for item in shown.items
    )
    return things + POPULAR_TIMES.get(shown.time or "", 0.0)


def utility(people: People, request: Scene, shown: Scene) -> float:
    """The utility of an image for a group of raters, without noise (see the module's formula)."""
    taste = sum(people.taste[style] for style in shown.styles)
    return FAITH * faithfulness(request, shown) + TASTE * taste + people.weakness * popularity(shown)


def _variant(full: Scene, rng: Random) -> Scene:
    """A scene that fits a request more or less: some facts are replaced, and one scene in six is another one."""
    other = grammar.scene(rng)
    if rng.random() < 1 / 6:
        return other
    while True:
        items = tuple(
            replace(
                item,
                thing=rng.choice(grammar.THINGS) if rng.random() < 0.2 else item.thing,
                color=rng.choice(grammar.COLORS) if rng.random() < 0.2 else item.color,
                size=rng.choice(grammar.SIZES) if rng.random() < 0.2 else item.size,
            )
            for item in full.items
        )
        if not any((item.thing, item.color) in HELD_OUT for item in items):
            break
    if rng.random() < 0.15:
        items = items[:1] if len(items) == 2 else (*items, other.items[0])
    layout = rng.choice(grammar.LAYOUTS) if len(items) == 2 and rng.random() < 0.2 else full.layout
    layout = layout if len(items) == 2 else "row"
    return Scene(
        items,
        layout,
        other.place if rng.random() < 0.15 else full.place,
        other.time if rng.random() < 0.2 else full.time,
        other.styles,
    )


@dataclass(frozen=True, slots=True)
class Choices:
    """The images that a group of raters saw, and their choices.

    Attributes:
        prompts: The requests as they were typed, n.
        images: The two images of each request, uint8 [n, 2, 64, 64, 3].
        utilities: The utilities of both images, [n, 2].
        chosen: The place of the chosen image, 0 or 1, [n].
    """

    prompts: list[str]
    images: NDArray[np.uint8]
    utilities: NDArray[np.float64]
    chosen: NDArray[np.int64]


def ask(people: People, count: int, seed: int) -> Choices:
    """Shows ``count`` pairs of painted images to a group of raters, and records which ones they choose.

    Args:
        people: The group of raters.
        count: The number of pairs.
        seed: The seed, which is mixed with the group's own; another seed gives other requests, images and noise.
    """
    rng = Random(f"{people.seed}-{seed}")
    brush = np.random.default_rng([people.seed, seed])
    prompts, images, utilities = [], [], []
    for _ in range(count):
        request = ask_for(rng)
        full = grammar.complete(request.asked, rng)
        shown = (_variant(full, rng), _variant(full, rng))
        prompts.append(request.prompt)
        images.append([paint(variant, brush) for variant in shown])
        utilities.append([utility(people, request.asked, variant) for variant in shown])
    values = np.asarray(utilities)
    prefer_second = 1 / (1 + np.exp((values[:, 0] - values[:, 1]) / NOISE))
    chosen = (brush.random(count) < prefer_second).astype(np.int64)
    return Choices(prompts, np.asarray(images), values, chosen)
