"""The distance of prompt and rewrite under a text encoder, by what the rewrite changes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any

import numpy as np

from semdpo.analysis.semantics import cosine_distance
from semdpo.protocols import Float
from semdpo.tiny_world import requests, wordings
from semdpo.tiny_world.grammar import COLORS, PLACES, STYLES, THINGS, Scene

Embed = Callable[[list[str]], Float]


def _other(value: str | None, values: tuple[str, ...], rng: Random) -> str:
    return rng.choice([one for one in values if one != value])


def _swap_first(said: Scene, **changes: str) -> Scene:
    return replace(said, items=(replace(said.items[0], **changes), *said.items[1:]))


def _with_a_cat(said: Scene, rng: Random, state: tuple[Any, ...]) -> str:
    rng.setstate(state)
    wording = wordings.compose(said, rng)
    return replace(wording, items=(*wording.items, "a purple cat"), relation="and").text


def rewrites_by_kind(said: Scene, rng: Random) -> dict[str, str]:
    """One rewrite of each kind, from harmless to unrelated.

    Args:
        said: A request for one thing that states its colour and its place, but no time.
        rng: The random numbers; texts that differ in one fact are worded from the same state.

    Returns:
        The texts by kind; ``prompt`` is the request itself.
    """
    state = rng.getstate()

    def say(scene: Scene) -> str:
        rng.setstate(state)
        return wordings.wording(scene, rng)

    plain = say(said)
    changed = {
        "place swapped": say(replace(said, place=_other(said.place, PLACES, Random(plain)))),
        "color swapped": say(_swap_first(said, color=_other(said.items[0].color, COLORS, Random(plain)))),
        "thing swapped": say(_swap_first(said, thing=_other(said.items[0].thing, THINGS, Random(plain)))),
    }
    rng.setstate(state)
    telegraphic = wordings.say(wordings.compose(said, rng), "telegraphic", rng)
    rng.setstate(state)
    rng.random()
    styles = rng.sample(STYLES, 3)
    return {
        "other wording": wordings.wording(said, rng),
        "telegraphic": telegraphic,
        "empty word": wordings.decorate(plain, (), 1, rng),
        "one style": wordings.decorate(plain, styles[:1], 0, rng),
        "three styles": wordings.decorate(plain, styles, 0, rng),
        "sunset added": f"{plain} at sunset",
        "thing added": _with_a_cat(said, rng, state),
        **changed,
        "another prompt": wordings.wording(requests.request(rng), rng),
        "prompt": plain,
    }


def distance_quantiles(embed: Embed, count: int = 400, seed: int = 81) -> dict[str, tuple[float, float, float]]:
    """The 10%, 50% and 90% quantiles of the cosine distance between prompt and rewrite, by kind of rewrite.

    Args:
        embed: The encoder, which turns n texts into vectors [n, dim].
        count: The number of prompts.
        seed: The seed of the prompts; their texts take no part in any training.
    """
    rng = Random(seed)
    texts: dict[str, list[str]] = {}
    while len(texts.get("prompt", [])) < count:
        said = requests.request(rng, count=1)
        if said.place is None or said.time or said.items[0].color is None:
            continue
        for kind, text in rewrites_by_kind(said, rng).items():
            texts.setdefault(kind, []).append(text)
    prompts = embed(texts.pop("prompt"))
    quantiles = {}
    for kind, rewrites in texts.items():
        low, middle, high = np.quantile(cosine_distance(prompts, embed(rewrites)), (0.1, 0.5, 0.9))
        quantiles[kind] = (float(low), float(middle), float(high))
    return quantiles
