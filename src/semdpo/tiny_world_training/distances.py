"""The distance of prompt and rewrite under a text encoder, by what the rewrite changes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random

import numpy as np

from semdpo.analysis.semantics import cosine_distance
from semdpo.protocols import Float
from semdpo.tiny_world import grammar
from semdpo.tiny_world.grammar import COLORS, PLACES, STYLES, THINGS, Scene

Embed = Callable[[list[str]], Float]


def _other(value: str | None, values: tuple[str, ...], rng: Random) -> str:
    return rng.choice([one for one in values if one != value])


def _swap_first(said: Scene, **changes: str) -> Scene:
    return replace(said, items=(replace(said.items[0], **changes), *said.items[1:]))


def rewrites_by_kind(said: Scene, rng: Random) -> dict[str, str]:
    """One rewrite of each kind, from harmless to unrelated.

    Args:
        said: A request whose place is stated.
        rng: The random numbers; texts that differ in one fact are worded from the same state.

    Returns:
        The texts by kind; ``prompt`` is the request itself.
    """
    state = rng.getstate()

    def say(scene: Scene) -> str:
        rng.setstate(state)
        return grammar.wording(scene, rng)

    plain = say(said)
    changed = {
        "place swapped": say(replace(said, place=_other(said.place, PLACES, Random(plain)))),
        "color swapped": say(_swap_first(said, color=_other(said.items[0].color, COLORS, Random(plain)))),
        "thing swapped": say(_swap_first(said, thing=_other(said.items[0].thing, THINGS, Random(plain)))),
    }
    rng.setstate(state)
    rng.random()
    styles = rng.sample(STYLES, 3)
    return {
        "other wording": grammar.wording(said, rng),
        "empty word": grammar.decorate(plain, (), 1, rng),
        "one style": grammar.decorate(plain, tuple(styles[:1]), 0, rng),
        "three styles": grammar.decorate(plain, tuple(styles), 0, rng),
        **changed,
        "another prompt": grammar.wording(grammar.request(rng), rng),
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
        said = grammar.request(rng)
        if said.place is None:
            continue
        for kind, text in rewrites_by_kind(said, rng).items():
            texts.setdefault(kind, []).append(text)
    prompts = embed(texts.pop("prompt"))
    quantiles = {}
    for kind, rewrites in texts.items():
        low, middle, high = np.quantile(cosine_distance(prompts, embed(rewrites)), (0.1, 0.5, 0.9))
        quantiles[kind] = (float(low), float(middle), float(high))
    return quantiles
