"""tiny:sd, a small Stable Diffusion: tiny:clip's text tower, a UNet and an autoencoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from transformers import CLIPModel, CLIPTextModel, CLIPTokenizer

from semdpo.engine import fingerprint
from semdpo.models import tiny_judge
from semdpo.progress import Progress
from semdpo.tiny_world import requests, wordings
from semdpo.tiny_world.grammar import COLORS, PLACES, THINGS, Scene
from semdpo.tiny_world_training import clip as clips
from semdpo.tiny_world_training import judge as judges
from semdpo.tiny_world_training import pool, vae
from semdpo.tiny_world_training.fit import Plan, fit

PLAN = Plan(steps=0, rate=1.5e-3, muon=0.02, decay=0.01, warmup=50, hold=0.5, average=0.998, seed=41)
BATCH = 64
TWO_ITEM_SHARE = 0.7  # of each batch: which colour belongs to which thing is hardest to learn
EMPTY_SHARE = 0.1  # captions replaced by "", for classifier-free guidance (Ho & Salimans 2022)
STEPS, GUIDANCE = 10, 3.5


def new_unet() -> UNet2DConditionModel:
    """The untrained UNet, with 2.5M parameters."""
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=16,
        out_channels=16,
        down_block_types=("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2,
        block_out_channels=(48, 96),
        layers_per_block=1,
        cross_attention_dim=clips.CLIP.text_width,
        attention_head_dim=4,  # diffusers' name for the number of heads
        norm_num_groups=16,
    )


def new_scheduler() -> DDIMScheduler:
    """Stable Diffusion's noise schedule, with v-prediction (Salimans & Ho 2022)."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        num_train_timesteps=1000,
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type="v_prediction",
    )


def text_tower(clip_folder: Path) -> CLIPTextModel:
    """The text tower of a CLIP folder, frozen, as Stable Diffusion takes it."""
    whole = CLIPModel.from_pretrained(clip_folder, dtype=torch.float32)
    tower = CLIPTextModel(whole.config.text_config)
    state = whole.text_model.state_dict()
    own = tower.state_dict()
    tower.load_state_dict(
        state if set(state) == set(own) else {"text_model." + key: value for key, value in state.items()}
    )
    return tower.eval().requires_grad_(False)


def assemble(clip_folder: Path, autoencoder: AutoencoderKL, unet: UNet2DConditionModel) -> StableDiffusionPipeline:
    """The pipeline of the parts, without a safety checker: this world has nothing unsafe."""
    pipeline = StableDiffusionPipeline(
        vae=autoencoder,
        text_encoder=text_tower(clip_folder),
        tokenizer=CLIPTokenizer.from_pretrained(clip_folder),
        unet=unet,
        scheduler=new_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _latents(folder: Path, autoencoder: AutoencoderKL, images: NDArray[np.uint8]) -> Tensor:
    """The images' latents, computed once for each version of the autoencoder."""
    path = folder / f"latents-{len(images)}-{fingerprint.folder(folder / 'vae', ('*.safetensors',))[:16]}.npy"
    if not path.exists():
        unfinished = path.with_name(path.stem + ".partial.npy")
        np.save(unfinished, vae.encode(autoencoder, images).numpy())
        unfinished.replace(path)
    return torch.from_numpy(np.load(path))


def build(folder: Path, out: Path, pool_size: int, steps: int, progress: Progress) -> dict[str, float]:
    """Trains the UNet on the autoencoder's latents and tiny:clip's texts, and saves the whole pipeline as ``out``.

    Needs ``vae``, ``clip``, ``clip-b`` and ``judge`` in the build folder; arguments as in `vae.build`.

    Returns:
        The share of held-out captions whose images have number, things, colours and place all right, according to
        tiny:judge and to tiny:clip-b, for one and two objects and for held-out combinations.
    """
    subjects, images = pool.training_pool(folder, pool_size)
    autoencoder = AutoencoderKL.from_pretrained(folder / "vae").eval()
    latents = _latents(folder, autoencoder, images)
    tower, tokenizer = text_tower(folder / "clip"), CLIPTokenizer.from_pretrained(folder / "clip")
    cumulative = new_scheduler().alphas_cumprod
    by_count = [[i for i, one in enumerate(subjects) if len(one.items) == count] for count in (1, 2)]
    torch.manual_seed(PLAN.seed)
    unet = new_unet()

    def loss(step: int) -> Tensor:
        rng = Random(f"{PLAN.seed}-{step}")
        index = [rng.choice(by_count[rng.random() < TWO_ITEM_SHARE]) for _ in range(BATCH)]
        texts = [
            "" if rng.random() < EMPTY_SHARE else wordings.caption(subjects[i], rng, wordings.DESCRIPTIVE)[0]
            for i in index
        ]
        # Stable Diffusion pads to full length without a mask, so the UNet is trained with that padding.
        tokens = tokenizer(texts, padding="max_length", return_tensors="pt").input_ids
        with torch.no_grad():
            condition = tower(tokens).last_hidden_state
        clean = latents[index].float()
        noise = torch.randn_like(clean)
        times = torch.randint(0, 1000, (BATCH,))
        signal = cumulative[times].view(-1, 1, 1, 1)
        noisy = signal.sqrt() * clean + (1 - signal).sqrt() * noise
        velocity = signal.sqrt() * noise - (1 - signal).sqrt() * clean
        return F.mse_loss(unet(noisy, times, condition).sample, velocity)

    averaged = fit(unet, loss, replace(PLAN, steps=steps), folder / "sd.fit.pt", progress)
    assert isinstance(averaged, UNet2DConditionModel)
    pipeline = assemble(folder / "clip", autoencoder, averaged)
    pipeline.save_pretrained(out)
    return quality(pipeline, folder, min(192, pool_size // 100))


@torch.no_grad()
def render(pipeline: StableDiffusionPipeline, texts: Sequence[str], seed: int, batch: int = 64) -> Tensor:
    """Renders texts as images in [-1, 1], [n, 3, 64, 64], each with its own random generator."""
    parts = []
    for start in range(0, len(texts), batch):
        now = list(texts[start : start + batch])
        generators = [torch.Generator().manual_seed(seed + start + k) for k in range(len(now))]
        output = pipeline(
            now, num_inference_steps=STEPS, guidance_scale=GUIDANCE, generator=generators, output_type="pt"
        )
        parts.append(output.images.float() * 2 - 1)
    return torch.cat(parts)


def _rivals(said: Scene) -> list[Scene]:
    """All scenes that differ from this one in one thing, colour or place."""
    others = [replace(said, place=place) for place in PLACES if place != said.place]
    for k, item in enumerate(said.items):
        for changed in (
            *(replace(item, thing=thing) for thing in THINGS if thing != item.thing),
            *(replace(item, color=color) for color in COLORS if item.color and color != item.color),
        ):
            items = list(said.items)
            items[k] = changed
            others.append(replace(said, items=tuple(items)))
    return others


@torch.no_grad()
def identified(clip: CLIPModel, tokenizer: CLIPTokenizer, pixels: Tensor, subjects: Sequence[Scene]) -> float:
    """The share of images nearer to their caption than to any caption with another thing, colour or place."""
    right = 0
    for one, pixel in zip(subjects, pixels, strict=True):
        texts = [wordings.wording(scene, Random(3)) for scene in (one, *_rivals(one))]
        similarity = clips.embed_texts(clip, tokenizer, texts) @ clips.embed_images(clip, pixel[None])[0]
        right += int(similarity.argmax().item() == 0)
    return right / len(subjects)


def quality(pipeline: StableDiffusionPipeline, folder: Path, count: int) -> dict[str, float]:
    """Renders ``count`` held-out captions of each kind, and checks the images with tiny:judge and tiny:clip-b."""
    outside = CLIPModel.from_pretrained(folder / "clip-b", dtype=torch.float32).eval()
    tokenizer = CLIPTokenizer.from_pretrained(folder / "clip-b")
    judge = tiny_judge.load(folder / "judge")
    figures = {}
    for items, held_out in ((1, False), (2, False), (1, True), (2, True)):
        rng = Random(f"sd-{items}-{held_out}")
        subjects = [requests.request(rng, held_out=held_out, count=items) for _ in range(count)]
        subjects = [one if one.place else replace(one, place=rng.choice(PLACES)) for one in subjects]
        worded = [wordings.compose(one, rng) for one in subjects]
        pixels = render(pipeline, [wording.text for wording in worded], seed=1)
        name = ("one" if items == 1 else "two") + ("_held_out_combinations" if held_out else "")
        shown = judges.facts_shown(judge, pixels, subjects)
        figures[f"{name}_by_judge"] = judges.all_right(shown).float().mean().item()
        if not held_out:
            terse = render(pipeline, [wordings.say(wording, "telegraphic", rng) for wording in worded], seed=1)
            shown = judges.facts_shown(judge, terse, subjects)
            figures[f"{name}_telegraphic_by_judge"] = judges.all_right(shown).float().mean().item()
        figures[f"{name}_by_clip_b"] = identified(outside, tokenizer, pixels, subjects)
    return figures
