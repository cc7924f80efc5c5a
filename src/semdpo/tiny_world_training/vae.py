"""tiny:sd's autoencoder: 64x64 pixels to 8x8 latents of 16 channels (diffusers' AutoencoderKL)."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from numpy.typing import NDArray
from torch import Tensor

from semdpo.progress import Progress
from semdpo.tiny_world_training import pool
from semdpo.tiny_world_training.fit import Plan, autocast, fit

PLAN = Plan(steps=2600, rate=3e-3, muon=0.02, warmup=100, hold=0.4, average=0.998, seed=11)
BATCH = 16


def new_vae() -> AutoencoderKL:
    """The untrained autoencoder, with 0.97M parameters."""
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(16, 32, 64, 64),
        layers_per_block=1,
        latent_channels=16,
        norm_num_groups=8,
        sample_size=64,
        mid_block_add_attention=False,
    )


def _edges(error: Tensor) -> Tensor:
    return error.diff(dim=-2).abs().mean() + error.diff(dim=-1).abs().mean()


@torch.no_grad()
def encode(vae: AutoencoderKL, images: NDArray[np.uint8], batch: int = 100) -> Tensor:
    """The scaled latents of images uint8 [n, 64, 64, 3], half precision [n, 16, 8, 8]."""
    parts = []
    for start in range(0, len(images), batch):
        mean = vae.encode(pool.to_pixels(images[start : start + batch])).latent_dist.mean
        parts.append((mean * vae.config.scaling_factor).half())
    return torch.cat(parts)


@torch.no_grad()
def _quality(vae: AutoencoderKL, count: int) -> dict[str, float]:
    pixels = pool.to_pixels(pool.paint_all(pool.scenes(count, pool.HELD_OUT_SEED), pool.HELD_OUT_SEED))
    again = torch.cat([vae.decode(vae.encode(part).latent_dist.mean).sample for part in torch.split(pixels, 64)])
    error = (again.clamp(-1, 1) - pixels).square().mean(dim=(1, 2, 3))
    return {"psnr_db": 10 * math.log10(4 / error.mean().item())}


def build(folder: Path, out: Path, pool_size: int, steps: int, progress: Progress) -> dict[str, float]:
    """Trains the autoencoder and saves it as ``out``.

    Args:
        folder: The build folder, with the shared pool of images.
        out: The folder to write the model to.
        pool_size: The number of images in the pool.
        steps: The number of updates.
        progress: The progress callback.

    Returns:
        The quality on held-out images: ``psnr_db`` of their reconstructions.
    """
    _, images = pool.training_pool(folder, pool_size)
    torch.manual_seed(PLAN.seed)
    vae = new_vae()

    def loss(step: int) -> Tensor:
        rng = np.random.default_rng([PLAN.seed, step])
        pixels = pool.to_pixels(images[np.sort(rng.integers(0, len(images), BATCH))])
        if rng.random() < 0.5:
            pixels = pixels.flip(3)
        with autocast():
            latents = vae.encode(pixels).latent_dist
            again = vae.decode(latents.sample()).sample
        error = pixels - again.float()
        divergence: Tensor = latents.kl().float().mean() / latents.mean[0].numel()
        total: Tensor = error.abs().mean() + error.square().mean() + _edges(error) + 1e-3 * divergence
        return total

    averaged = fit(vae, loss, replace(PLAN, steps=steps), folder / "vae.fit.pt", progress)
    assert isinstance(averaged, AutoencoderKL)
    # Stable Diffusion divides latents by their standard deviation, to match noise of variance 1.
    averaged.register_to_config(scaling_factor=1.0)
    deviation = encode(averaged, images[:2000]).float().std().item()
    averaged.register_to_config(scaling_factor=1 / deviation)
    averaged.save_pretrained(out)
    return _quality(averaged, pool.held_out_count(256, pool_size))
