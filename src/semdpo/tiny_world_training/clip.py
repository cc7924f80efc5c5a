"""tiny:clip, the text encoder of the pipeline, and tiny:clip-b, a scorer that takes no part in training."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from semdpo.models.tiny_judge import FACTS
from semdpo.progress import Progress
from semdpo.tiny_world import wordings
from semdpo.tiny_world.grammar import STYLES
from semdpo.tiny_world_training import pool, tokenizers
from semdpo.tiny_world_training.distances import distance_quantiles
from semdpo.tiny_world_training.fit import Plan, autocast, fit

BATCH, GROUP = 128, 16
AUXILIARY = 0.3


@dataclass(frozen=True, slots=True)
class Shape:
    """The settings that differ between the two: sizes, activation, seed."""

    seed: int
    patch: int
    vision_width: int
    vision_layers: int
    text_width: int
    text_layers: int
    activation: str


CLIP = Shape(21, patch=16, vision_width=160, vision_layers=4, text_width=128, text_layers=3, activation="quick_gelu")
CLIP_B = Shape(22, patch=16, vision_width=192, vision_layers=4, text_width=128, text_layers=4, activation="gelu")
PLAN = Plan(steps=0, rate=1.2e-3, decay=0.05, warmup=80, hold=0.3, average=0.99)
PROJECTION = 128


def new_clip(shape: Shape, tokenizer: CLIPTokenizer) -> CLIPModel:
    """An untrained CLIPModel of a shape."""
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": shape.text_width,
        "intermediate_size": 4 * shape.text_width,
        "num_hidden_layers": shape.text_layers,
        "num_attention_heads": 4,
        "max_position_embeddings": tokenizers.CLIP_LENGTH,
        "hidden_act": shape.activation,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "projection_dim": PROJECTION,
    }
    vision = {
        "hidden_size": shape.vision_width,
        "intermediate_size": 4 * shape.vision_width,
        "num_hidden_layers": shape.vision_layers,
        "num_attention_heads": 4,
        "image_size": 64,
        "patch_size": shape.patch,
        "hidden_act": shape.activation,
        "projection_dim": PROJECTION,
    }
    torch.manual_seed(shape.seed)
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=PROJECTION))


def image_processor() -> CLIPImageProcessorPil:
    """The image processor of every tiny model: 64x64 pixels, bicubic, values in [-1, 1]."""
    return CLIPImageProcessorPil(
        size={"shortest_edge": 64},
        crop_size={"height": 64, "width": 64},
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )


class WithHeads(nn.Module):
    """A CLIP with linear heads on its embeddings, which predict facts during training.

    With contrast alone, so small a model learns only backgrounds; the heads, shared by text and image, teach it things.
    """

    def __init__(self, clip: CLIPModel) -> None:
        super().__init__()
        self.clip = clip
        facts = sum(len(values) for values in FACTS.values())
        self.heads = nn.Linear(PROJECTION, facts + len(STYLES))
        self.scale = nn.Parameter(torch.tensor(3.0))

    def read(self, embeddings: Tensor) -> Tensor:
        """The logits of all facts and styles from unit embeddings [n, dim], [n, values]."""
        logits: Tensor = self.heads(embeddings * self.scale.exp())
        return logits


def text_inputs(tokenizer: CLIPTokenizer, texts: list[str]) -> dict[str, Tensor]:
    """Token ids and mask, padded to the longest."""
    return dict(tokenizer(texts, padding=True, return_tensors="pt"))


def embed_texts(clip: CLIPModel, tokenizer: CLIPTokenizer, texts: list[str]) -> Tensor:
    """Unit text embeddings, [n, dim]."""
    return F.normalize(clip.get_text_features(**text_inputs(tokenizer, texts)).pooler_output, dim=-1)


def embed_images(clip: CLIPModel, pixels: Tensor) -> Tensor:
    """Unit image embeddings, [n, dim]."""
    return F.normalize(clip.get_image_features(pixel_values=pixels).pooler_output, dim=-1)


def roughen(pixels: Tensor) -> Tensor:
    """Adds noise, and blur to half of the images, which a diffusion model's images have and the painter's do not."""
    blurred = F.avg_pool2d(F.pad(pixels, (1, 1, 1, 1), mode="replicate"), 3, 1)
    share = 0.6 * torch.rand(len(pixels), 1, 1, 1) * (torch.rand(len(pixels), 1, 1, 1) < 0.5)
    return pixels * (1 - share) + blurred * share + 0.06 * torch.rand(len(pixels), 1, 1, 1) * torch.randn_like(pixels)


def build(shape: Shape, folder: Path, out: Path, pool_size: int, steps: int, progress: Progress) -> dict[str, float]:
    """Trains a CLIP, and saves it with tokenizer, image processor and the words it knows.

    Args:
        shape: The shape, `CLIP` or `CLIP_B`.
        folder: The build folder.
        out: The folder to write the model to.
        pool_size: The number of images in the pool.
        steps: The number of updates.
        progress: The progress callback.

    Returns:
        The held-out quality (see `quality`) and the distances of `median_distances`.
    """
    subjects, images = pool.training_pool(folder, pool_size)
    groups = pool.hard_groups(subjects, GROUP)
    tokenizer = tokenizers.clip_tokenizer()
    model = WithHeads(new_clip(shape, tokenizer))

    def loss(step: int) -> Tensor:
        rng = Random(f"{shape.seed}-{step}")
        index = pool.draw_hard_batch(groups, BATCH, GROUP, rng)
        full = [subjects[i] for i in index]
        captions = [wordings.caption(one, rng) for one in full]
        pixels = roughen(pool.to_pixels(images[index]))
        with autocast():
            seen = embed_images(model.clip, pixels).float()
            read = embed_texts(model.clip, tokenizer, [text for text, _ in captions]).float()
        logits = model.clip.logit_scale.clamp(max=4.0).exp() * seen @ read.T
        target = torch.arange(len(index))
        contrast = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        of_image, of_text = model.read(seen), model.read(read)
        auxiliary = pool.fact_loss(of_image, pool.fact_labels(full))
        auxiliary = auxiliary + pool.fact_loss(of_text, pool.fact_labels([said for _, said in captions]))
        styles = F.binary_cross_entropy_with_logits(of_image[:, -len(STYLES) :], pool.style_labels(full))
        return contrast + AUXILIARY * (auxiliary + styles)

    trained = fit(model, loss, replace(PLAN, steps=steps, seed=shape.seed), folder / f"{out.name}.fit.pt", progress)
    assert isinstance(trained, WithHeads)
    with torch.no_grad():
        trained.clip.logit_scale.clamp_(max=4.0)
    save(trained.clip, tokenizer, out)
    count = max(64, pool.held_out_count(960, pool_size) // 64 * 64)
    return quality(trained.clip, tokenizer, count) | median_distances(trained.clip, tokenizer)


def save(clip: CLIPModel, tokenizer: CLIPTokenizer, out: Path) -> None:
    """Writes a CLIP's folder."""
    clip.save_pretrained(out)
    tokenizer.save_pretrained(out)
    image_processor().save_pretrained(out)
    tokenizers.write_vocabulary(out)


@torch.no_grad()
def median_distances(clip: CLIPModel, tokenizer: CLIPTokenizer) -> dict[str, float]:
    """The median distance of prompt and rewrite, by what the rewrite changes (see `distances`)."""
    quantiles = distance_quantiles(lambda texts: embed_texts(clip, tokenizer, texts).numpy())
    return {f"distance_{kind.replace(' ', '_')}": middle for kind, (_, middle, _) in quantiles.items()}


@torch.no_grad()
def quality(clip: CLIPModel, tokenizer: CLIPTokenizer, count: int) -> dict[str, float]:
    """Retrieval accuracy among 64 held-out images and captions, both ways, and on held-out combinations.

    Args:
        clip: The model, in evaluation mode.
        tokenizer: The model's tokenizer.
        count: The number of held-out images, a multiple of 64.
    """
    figures = {}
    for name, held_out in (("", False), ("_held_out_combinations", True)):
        subjects = pool.scenes(count, pool.HELD_OUT_SEED, held_out=held_out)
        pixels = pool.to_pixels(pool.paint_all(subjects, pool.HELD_OUT_SEED))
        rng = Random(5)
        read = embed_texts(clip, tokenizer, [wordings.caption(one, rng)[0] for one in subjects])
        seen = torch.cat([embed_images(clip, part) for part in torch.split(pixels, 64)])
        to_text = to_image = 0.0
        for a, b in zip(torch.split(seen, 64), torch.split(read, 64), strict=True):
            similarity = a @ b.T
            target = torch.arange(len(a))
            to_text += (similarity.argmax(1) == target).sum().item()
            to_image += (similarity.argmax(0) == target).sum().item()
        figures["image_to_text" + name] = to_text / count
        figures["text_to_image" + name] = to_image / count
    return figures
