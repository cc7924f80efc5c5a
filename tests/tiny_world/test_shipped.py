"""What ships is as good as asked: the card's figures, and a fresh small sample through the public adapters."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from semdpo.models import tiny_judge
from semdpo.models.renderer import load_renderer
from semdpo.models.scorers.registry import load_scorer
from semdpo.models.text_encoder import load_text_encoder
from semdpo.tiny_world import card, requests, wordings
from semdpo.tiny_world.people import LABELLERS, ask
from semdpo.tiny_world_training import build, distances, judge, pool

WEIGHTS = build.PACKAGE / "weights"


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_the_world_is_small() -> None:
    assert _size(WEIGHTS) < 40e6
    assert {path.name for path in WEIGHTS.iterdir()} == {model.name for model in build.MODELS if model.shipped}


def test_the_card_meets_what_was_asked() -> None:
    figures = {name: record["quality"] for name, record in card.read().items()}
    assert figures["clip"]["image_to_text"] >= 0.95
    assert figures["sd"]["one_by_judge"] >= 0.97
    assert figures["sd"]["one_by_clip_b"] >= 0.97
    assert figures["sd"]["two_by_judge"] >= 0.90
    assert figures["sd"]["two_by_clip_b"] >= 0.90
    assert figures["blip-itm"]["one_fact_exchanged"] >= 0.95
    for name in ("image-reward", "pickscore", "hps"):
        assert figures[name]["choices_share"] >= 0.90


def test_the_card_belongs_to_the_weights() -> None:
    import hashlib

    for name, record in card.read().items():
        if "sha256" in record:
            files = sorted((WEIGHTS / name).rglob("*.safetensors"))
            assert hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest() == record["sha256"], name


def test_clip_pools_at_the_end_token() -> None:
    """With id 2 transformers pools where the highest id stands, and styles after it would not count at all."""
    encoder = load_text_encoder("tiny:clip")
    plain, styled = encoder.encode(["a red ball at sea", "a red ball at sea, vintage"]).vectors
    assert float(plain @ styled) < 1 - 1e-4


def test_distances_tell_styles_from_changed_meaning() -> None:
    encoder = load_text_encoder("tiny:clip")
    medians = {
        kind: middle
        for kind, (_, middle, _) in distances.distance_quantiles(
            lambda t: encoder.encode(t).vectors, 150, seed=82
        ).items()
    }
    assert medians["other wording"] < 0.05
    assert medians["empty word"] < 0.05
    for kind in ("place swapped", "color swapped", "thing swapped"):
        assert medians[kind] > 1.5 * medians["one style"]
        assert medians[kind] > medians["three styles"]
    assert medians["another prompt"] > 0.7


@pytest.mark.parametrize(("items", "least"), [(1, 0.9), (2, 0.75)])
def test_tiny_sd_draws_what_is_asked(items: int, least: float) -> None:
    rng = random.Random(f"shipped-{items}")
    asked = [requests.request(rng, count=items) for _ in range(40)]
    asked = [one if one.place else replace(one, place="sea") for one in asked]
    renderer = load_renderer("tiny:sd", steps=20, guidance=3.5, batch_size=20)
    pictures = renderer.render([wordings.wording(one, rng) for one in asked], list(range(40)))
    pixels = pool.to_pixels(np.stack([np.asarray(picture) for picture in pictures]))
    right = judge.all_right(judge.facts_shown(tiny_judge.load(WEIGHTS / "judge"), pixels, asked))
    assert right.float().mean().item() >= least


def test_the_labeller_prefers_as_its_people_do() -> None:
    from PIL import Image

    choices = ask(LABELLERS, 150, seed=9)
    clear = abs(choices.utilities[:, 0] - choices.utilities[:, 1]) > 0.6
    scorer = load_scorer("tiny:image-reward")
    values = [
        scorer.score([Image.fromarray(pair[k]) for pair in choices.images], choices.prompts).values for k in (0, 1)
    ]
    agree = (np.stack(values).argmax(0) == choices.utilities.argmax(1))[clear]
    assert agree.mean() > 0.85


def test_fidelity_judges_prefer_the_true_caption() -> None:
    from PIL import Image

    subjects = pool.scenes(60, seed=83)
    pictures = [Image.fromarray(picture) for picture in pool.paint_all(subjects, 83)]
    rng = random.Random(1)
    true = [wordings.caption(one, rng)[0] for one in subjects]
    for name in ("clip", "clip-b", "blip-itm"):
        scorer = load_scorer(f"tiny:{name}")
        right = scorer.score(pictures, true).values > scorer.score(pictures, true[1:] + true[:1]).values
        assert right.mean() > 0.95, name
