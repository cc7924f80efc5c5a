"""Reward models trained on simulated people's choices: one that labels, and two that take no part in labelling."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPModel, CLIPTokenizer

from semdpo.models.scorers.image_reward import ImageRewardModel
from semdpo.progress import Progress
from semdpo.tiny_world.people import HPS_RATERS, LABELLERS, PICKERS, Choices, People, ask
from semdpo.tiny_world_training import blip as blips
from semdpo.tiny_world_training import clip as clips
from semdpo.tiny_world_training import pool, tokenizers
from semdpo.tiny_world_training.fit import Plan, autocast, fit

PLAN = Plan(steps=0, rate=5e-4, decay=0.02, warmup=40, hold=0.0, average=0.99)
BATCH = 48
TRAIN, HELD_OUT = 0, 1  # seeds of the choices
HEAD_SIZES = (blips.WIDTH, 128, 64, 32, 16, 1)

Score = Callable[[list[str], Tensor], Tensor]


def _train(
    model: nn.Module,
    score: Score,
    people: People,
    pairs: int,
    plan: Plan,
    checkpoint: Path,
    progress: Progress,
) -> nn.Module:
    """Trains on a group's choices with the Bradley–Terry loss, −log σ(score of chosen − score of the other)."""
    choices = ask(people, pairs, TRAIN)
    order = np.random.default_rng(people.seed).permutation(pairs)

    def loss(step: int) -> Tensor:
        index = np.take(order, np.arange(step * BATCH, (step + 1) * BATCH), mode="wrap")
        pixels = clips.roughen(pool.to_pixels(choices.images[index].reshape(-1, 64, 64, 3)))
        texts = [choices.prompts[i] for i in index for _ in (0, 1)]
        with autocast():
            scores = score(texts, pixels).float().view(-1, 2)
        return F.cross_entropy(scores, torch.from_numpy(choices.chosen[index]))

    return fit(model, loss, plan, checkpoint, progress)


@torch.no_grad()
def quality(score: Score, people: People, pairs: int) -> dict[str, float]:
    """Accuracy on a group's held-out choices, the best that their noise allows, the ratio, and accuracy without noise.

    Args:
        score: The function that scores texts and pixels.
        people: The group of raters.
        pairs: The number of held-out pairs.
    """
    choices = ask(people, pairs, HELD_OUT)
    values = _score_choices(score, choices)
    preferred = values.argmax(1)
    truth = choices.utilities.argmax(1)
    accuracy, possible = float((preferred == choices.chosen).mean()), float((truth == choices.chosen).mean())
    return {
        "choices": accuracy,
        "choices_possible": possible,
        "choices_share": accuracy / possible,
        "true_order": float((preferred == truth).mean()),
    }


@torch.no_grad()
def _score_choices(score: Score, choices: Choices) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    parts = []
    for start in range(0, len(choices.prompts), 100):
        pixels = pool.to_pixels(choices.images[start : start + 100].reshape(-1, 64, 64, 3))
        texts = [text for text in choices.prompts[start : start + 100] for _ in (0, 1)]
        parts.append(score(texts, pixels).float().view(-1, 2))
    return torch.cat(parts).numpy()


def build_image_reward(folder: Path, out: Path, pool_size: int, steps: int, progress: Progress) -> dict[str, float]:
    """Trains tiny:image-reward: first its own BLIP towers on the pool, then the model on the labellers' choices.

    Args:
        folder: The build folder.
        out: The folder to write the model to.
        pool_size: The number of images in the pool. There are twice as many choices, because a model that sees a choice
            twice learns its noise.
        steps: The number of updates of the towers, and again of the model on choices.
        progress: The progress callback.

    Returns:
        The held-out quality (see `quality`).
    """
    pairs = pool_size * 2
    towers = blips.train_towers(folder, "image-reward-towers", blips.REWARD_TOWERS_SEED, pool_size, steps, progress)
    tokenizer = tokenizers.bert_tokenizer()
    torch.manual_seed(LABELLERS.seed)
    model = ImageRewardModel(towers.config.vision_config, towers.config.text_config, HEAD_SIZES)
    model.vision_model.load_state_dict(towers.vision_model.state_dict())
    model.text_encoder.load_state_dict(towers.text_encoder.state_dict())

    def score_with(network: nn.Module) -> Score:
        return lambda texts, pixels: network(pixels, **blips.encode_texts(tokenizer, texts))

    plan = replace(PLAN, steps=steps, seed=LABELLERS.seed)
    trained = _train(model, score_with(model), LABELLERS, pairs, plan, folder / "image-reward.fit.pt", progress)
    assert isinstance(trained, ImageRewardModel)
    # As upstream's, the scores get mean 0 and standard deviation 1 over ordinary images.
    scores = _score_choices(score_with(trained), ask(LABELLERS, min(pairs, 500), TRAIN))
    trained.mean, trained.std = float(scores.mean()), float(scores.std()) or 1.0
    trained.save_pretrained(out)
    blips.save_processors(tokenizer, out, "image-reward")
    return quality(score_with(trained), LABELLERS, min(2000, pairs // 6))


def _build_clip_scorer(
    people: People, kind: str, folder: Path, out: Path, pairs: int, steps: int, progress: Progress
) -> dict[str, float]:
    tokenizer = CLIPTokenizer.from_pretrained(folder / "clip-b")
    model = CLIPModel.from_pretrained(folder / "clip-b", dtype=torch.float32)
    with torch.no_grad():
        model.logit_scale.fill_(2.5)

    def score_with(clip: CLIPModel) -> Score:
        def score(texts: list[str], pixels: Tensor) -> Tensor:
            cosine = (clips.embed_images(clip, pixels) * clips.embed_texts(clip, tokenizer, texts)).sum(-1)
            scaled: Tensor = clip.logit_scale.clamp(max=4.0).exp() * cosine
            return scaled

        return score

    plan = replace(PLAN, steps=steps, seed=people.seed)
    trained = _train(model, score_with(model), people, pairs, plan, folder / f"{out.name}.fit.pt", progress)
    assert isinstance(trained, CLIPModel)
    with torch.no_grad():
        trained.logit_scale.clamp_(max=4.0)
    clips.save(trained, tokenizer, out)
    (out / "scorer.json").write_text(json.dumps({"kind": kind}) + "\n")
    return quality(score_with(trained), people, min(2000, pairs // 6))


def build_pickscore(folder: Path, out: Path, pool_size: int, steps: int, progress: Progress) -> dict[str, float]:
    """Trains tiny:pickscore from tiny:clip-b on the pickers' choices; arguments as in `build_image_reward`."""
    return _build_clip_scorer(PICKERS, "pickscore", folder, out, pool_size * 2 // 5, steps, progress)


def build_hps(folder: Path, out: Path, pool_size: int, steps: int, progress: Progress) -> dict[str, float]:
    """Trains tiny:hps from tiny:clip-b on the HPS raters' choices; arguments as in `build_image_reward`."""
    return _build_clip_scorer(HPS_RATERS, "hpsv2.1", folder, out, pool_size * 2 // 5, steps, progress)
