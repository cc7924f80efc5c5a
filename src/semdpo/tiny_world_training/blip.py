"""Models of BLIP's structure: tiny:blip-itm, which matches images and texts, and the towers of tiny:image-reward.

At this size, training on matching alone stays at chance. Contrast and fact heads first, and matching later, works.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import BertTokenizer, BlipConfig, BlipForImageTextRetrieval

from semdpo.models.tiny_judge import FACTS
from semdpo.progress import Progress
from semdpo.tiny_world import wordings
from semdpo.tiny_world.grammar import COLORS, PLACES, SIZES, STYLES, THINGS, TIMES, Scene, allowed
from semdpo.tiny_world_training import pool, tokenizers
from semdpo.tiny_world_training.clip import image_processor, roughen
from semdpo.tiny_world_training.fit import Plan, autocast, fit

WIDTH = 128
# Muon at 0.02 leaves matching worse (0.91 instead of 0.99 of exchanged facts found), or even at chance.
PLAN = Plan(steps=0, rate=1.5e-3, muon=0.012, warmup=30, hold=0.45, average=0.99)
ITM_SEED, REWARD_TOWERS_SEED = 51, 52
BATCH, GROUP = 64, 16
# The shares of the training after which matching is added, and after which contrast and facts weigh less.
MATCHING_FROM, FACTS_LESS_FROM = 0.4, 0.7
# These models find a terse prompt harder than CLIPs do, so they read a few more of them.
CAPTIONS = replace(wordings.WEB, casual=0.3)


def new_blip(tokenizer: BertTokenizer, seed: int) -> BlipForImageTextRetrieval:
    """An untrained model with 1.75M parameters; it sets every default of transformers that would score wrong."""
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": WIDTH,
        "encoder_hidden_size": WIDTH,
        "intermediate_size": 4 * WIDTH,
        "projection_dim": WIDTH,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "max_position_embeddings": 64,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "bos_token_id": tokenizer.cls_token_id,
        "eos_token_id": tokenizer.sep_token_id,
        "sep_token_id": tokenizer.sep_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "is_decoder": True,  # builds the cross-attention; the forward pass stays bidirectional
        "layer_norm_eps": 1e-12,
    }
    vision = {
        "hidden_size": WIDTH,
        "intermediate_size": 4 * WIDTH,
        "projection_dim": WIDTH,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "image_size": 64,
        "patch_size": 8,
        "layer_norm_eps": 1e-6,
        "initializer_range": 0.02,  # the default is 1e-10
    }
    torch.manual_seed(seed)
    return BlipForImageTextRetrieval(BlipConfig(text_config=text, vision_config=vision, image_text_hidden_size=WIDTH))


class WithHeads(nn.Module):
    """A BLIP with linear heads on both towers, which predict facts during training."""

    def __init__(self, blip: BlipForImageTextRetrieval) -> None:
        super().__init__()
        self.blip = blip
        facts = sum(len(values) for values in FACTS.values())
        self.image_head = nn.Linear(WIDTH, facts + len(STYLES))
        self.text_head = nn.Linear(WIDTH, facts)
        self.scale = nn.Parameter(torch.tensor(2.7))


def encode_texts(tokenizer: BertTokenizer, texts: Sequence[str]) -> dict[str, Tensor]:
    """Token ids and mask, padded to the longest text; nothing is truncated, because the world's captions fit."""
    tokens = tokenizer(list(texts), padding=True, return_tensors="pt")
    return {"input_ids": tokens.input_ids, "attention_mask": tokens.attention_mask}


def match_logits(blip: BlipForImageTextRetrieval, image: Tensor, tokens: dict[str, Tensor]) -> Tensor:
    """The matching head's [no, yes] logits of image features [n, patches, width] with texts, [n, 2]."""
    everywhere = torch.ones(image.shape[:2], dtype=torch.long)
    joint = blip.text_encoder(**tokens, encoder_hidden_states=image, encoder_attention_mask=everywhere)
    logits: Tensor = blip.itm_head(joint.last_hidden_state[:, 0])
    return logits


def _other(value: str, values: tuple[str, ...], rng: Random) -> str:
    return rng.choice([one for one in values if one != value])


def falsify(said: Scene, rng: Random) -> Scene:
    """A scene with one stated fact exchanged: thing, colour, place, time, size, style or the two items' places.

    Combinations that are held out are not written here either: the model would learn that they never match.
    """
    while not allowed(false := _falsify(said, rng)):
        pass
    return false


def _falsify(said: Scene, rng: Random) -> Scene:
    ways = ["thing", "thing"]
    ways += ["color", "color"] if any(item.color for item in said.items) else []
    ways += ["place", "place"] if said.place else []
    ways += ["time", "time"] if said.time else []
    ways += ["style"] if said.styles else []
    ways += ["size"] if any(item.size for item in said.items) else []
    ways += ["swap", "swap"] if len(said.items) == 2 and said.items[0] != said.items[1] else []
    way = rng.choice(ways)
    if way == "place":
        return replace(said, place=_other(said.place or "", PLACES, rng))
    if way == "time":
        return replace(said, time=_other(said.time or "", TIMES, rng))
    if way == "swap":
        return replace(said, items=said.items[::-1])
    if way == "style":
        fresh = rng.choice([style for style in STYLES if style not in said.styles])
        return replace(said, styles=(*said.styles[1:], fresh))
    k = rng.choice([k for k, item in enumerate(said.items) if getattr(item, way)])
    item = said.items[k]
    if way == "thing":
        item = replace(item, thing=_other(item.thing, THINGS, rng))
    elif way == "color":
        item = replace(item, color=_other(item.color or "", COLORS, rng))
    else:
        item = replace(item, size=_other(item.size or "", SIZES, rng))
    return replace(said, items=tuple(item if j == k else one for j, one in enumerate(said.items)))


def _words(said: Scene, rng: Random) -> str:
    text = wordings.written(wordings.compose(said, rng), CAPTIONS.casual, rng)
    return wordings.decorate(text, said.styles, 0, rng)


def train_towers(
    folder: Path, name: str, seed: int, pool_size: int, steps: int, progress: Progress
) -> BlipForImageTextRetrieval:
    """Trains a BLIP on the shared pool.

    Args:
        folder: The build folder.
        name: The name of the checkpoint.
        seed: The seed of weights and batches.
        pool_size: The number of images in the pool.
        steps: The number of updates.
        progress: The progress callback.
    """
    subjects, images = pool.training_pool(folder, pool_size)
    groups = pool.hard_groups(subjects, GROUP)
    tokenizer = tokenizers.bert_tokenizer()
    model = WithHeads(new_blip(tokenizer, seed))
    blip = model.blip
    no_yes = torch.tensor([1.0, 2.5])  # three of four texts do not match

    def matching(image: Tensor, texts: list[str], said: list[Scene], rng: Random) -> Tensor:
        neighbours = [texts[k // GROUP * GROUP + (k + rng.randrange(1, GROUP)) % GROUP] for k in range(len(texts))]
        shown = texts + [_words(falsify(one, rng), rng) for _ in range(2) for one in said] + neighbours
        with autocast():
            logits = match_logits(blip, image.repeat(4, 1, 1), encode_texts(tokenizer, shown)).float()
        target = torch.zeros(len(shown), dtype=torch.long)
        target[: len(texts)] = 1
        return F.cross_entropy(logits, target, weight=no_yes)

    def loss(step: int) -> Tensor:
        rng = Random(f"{seed}-{step}")
        index = pool.draw_hard_batch(groups, BATCH, GROUP, rng)
        full = [subjects[i] for i in index]
        captions = [wordings.caption(one, rng, CAPTIONS) for one in full]
        texts, said = [text for text, _ in captions], [facts for _, facts in captions]
        with autocast():
            image = blip.vision_model(pixel_values=roughen(pool.to_pixels(images[index]))).last_hidden_state
            text = blip.text_encoder(**encode_texts(tokenizer, texts)).last_hidden_state[:, 0].float()
            seen = F.normalize(blip.vision_proj(image[:, 0]).float(), dim=-1)
            read = F.normalize(blip.text_proj(text).float(), dim=-1)
        logits = model.scale.clamp(max=4.0).exp() * seen @ read.T
        target = torch.arange(BATCH)
        contrast = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        of_image = model.image_head(image[:, 0].float())
        facts = pool.fact_loss(of_image, pool.fact_labels(full)) + pool.fact_loss(
            model.text_head(text), pool.fact_labels(said)
        )
        facts = facts + F.binary_cross_entropy_with_logits(of_image[:, -len(STYLES) :], pool.style_labels(full))
        total = contrast + 0.3 * facts
        if step >= MATCHING_FROM * steps:
            less = 0.3 if step >= FACTS_LESS_FROM * steps else 1.0
            total = less * total + matching(image, texts, said, rng)
        return total

    trained = fit(model, loss, replace(PLAN, steps=steps, seed=seed), folder / f"{name}.fit.pt", progress)
    assert isinstance(trained, WithHeads)
    return trained.blip


def save_processors(tokenizer: BertTokenizer, out: Path, kind: str) -> None:
    """Writes a scorer's other files next to its weights: tokenizer, image processor, ``scorer.json``."""
    tokenizer.save_pretrained(out)
    image_processor().save_pretrained(out)
    (out / "scorer.json").write_text(json.dumps({"kind": kind}) + "\n")


def build(folder: Path, out: Path, pool_size: int, steps: int, progress: Progress) -> dict[str, float]:
    """Trains tiny:blip-itm and saves it as ``out``; arguments as in `vae.build`.

    Returns:
        Forced-choice accuracy on held-out painted images: the true caption against a caption with one fact changed,
        and against the caption of another scene.
    """
    blip = train_towers(folder, "blip-itm", ITM_SEED, pool_size, steps, progress).eval()
    tokenizer = tokenizers.bert_tokenizer()
    blip.save_pretrained(out)
    save_processors(tokenizer, out, "blip-itm")
    return quality(blip, tokenizer, pool.held_out_count(512, pool_size))


@torch.no_grad()
def quality(blip: BlipForImageTextRetrieval, tokenizer: BertTokenizer, count: int) -> dict[str, float]:
    """The share of held-out images whose true caption matches better than a false one."""
    subjects = pool.scenes(count, pool.HELD_OUT_SEED)
    pixels = pool.to_pixels(pool.paint_all(subjects, pool.HELD_OUT_SEED))
    rng = Random(5)
    captions = [wordings.caption(one, rng) for one in subjects]
    true = [text for text, _ in captions]
    near = [_words(falsify(said, rng), rng) for _, said in captions]
    image = torch.cat([blip.vision_model(pixel_values=part).last_hidden_state for part in torch.split(pixels, 64)])

    def matches(texts: list[str]) -> Tensor:
        tokens = encode_texts(tokenizer, texts)
        return match_logits(blip, image, tokens).softmax(-1)[:, 1]

    right, wrong, far = matches(true), matches(near), matches(true[1:] + true[:1])
    return {
        "one_fact_exchanged": (right > wrong).float().mean().item(),
        "another_scene": (right > far).float().mean().item(),
    }
