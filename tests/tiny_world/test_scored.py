"""What style words and terse prompts cost under the fidelity scorers, on images of tiny:sd."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import numpy as np
import pytest

from semdpo.models.renderer import load_renderer
from semdpo.models.scorers.registry import load_scorer
from semdpo.tiny_world import requests, wordings
from semdpo.tiny_world.grammar import COLORS, STYLES, Scene

COUNT = 60


def _asked() -> list[Scene]:
    rng, found = Random("scored"), []
    while len(found) < COUNT:
        asked = requests.request(rng, count=1)
        if asked.items[0].color and asked.place:
            found.append(asked)
    return found


def _recoloured(asked: Scene, rng: Random) -> Scene:
    item = asked.items[0]
    return replace(asked, items=(replace(item, color=rng.choice([c for c in COLORS if c != item.color])),))


@pytest.fixture(scope="module")
def drawn() -> dict[str, list]:
    """Prompts as captions and as telegrams, and images: of the caption, with three styles, and in another colour."""
    rng, asked = Random(1), _asked()
    worded = [wordings.compose(one, rng) for one in asked]
    captions = [wording.text for wording in worded]
    styled = [wordings.decorate(text, rng.sample(STYLES, 3), 0, rng) for text in captions]
    recoloured = [wordings.wording(_recoloured(one, rng), rng) for one in asked]
    renderer = load_renderer("tiny:sd", steps=10, guidance=3.5, batch_size=30)
    images = [renderer.render(texts, list(range(COUNT))) for texts in (captions, styled, recoloured)]
    terse = [wordings.say(wording, "telegraphic", rng) for wording in worded]
    return dict(zip(("captions", "terse", "plain", "styled", "recoloured"), (captions, terse, *images), strict=True))


@pytest.mark.parametrize("name", ["clip-b", "blip-itm"])
def test_three_style_words_cost_less_than_a_third_of_a_wrong_colour(drawn: dict[str, list], name: str) -> None:
    scorer = load_scorer(f"tiny:{name}")
    scores = {
        kind: np.mean(scorer.score(drawn[kind], drawn["captions"]).values) for kind in ("plain", "styled", "recoloured")
    }
    assert scores["plain"] - scores["recoloured"] > 0.2
    assert scores["plain"] - scores["styled"] < (scores["plain"] - scores["recoloured"]) / 3


@pytest.mark.parametrize("name", ["clip-b", "blip-itm"])
def test_a_telegraphic_prompt_is_scored_as_its_caption(drawn: dict[str, list], name: str) -> None:
    scorer = load_scorer(f"tiny:{name}")
    caption, terse = (np.mean(scorer.score(drawn["plain"], drawn[kind]).values) for kind in ("captions", "terse"))
    assert abs(caption - terse) < 0.02
