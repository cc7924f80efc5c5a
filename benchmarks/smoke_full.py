"""Runs full-size models with random weights through the code for the published models, on a CPU.

    make smoke-full

Writes Stable Diffusion v1.4's configuration as a diffusers folder, and ImageReward and HPSv2.1 as upstream publishes
them (by the names and shapes of their checkpoints), loads all three by name, renders one image of 512x512 pixels in two
steps and scores it. Needs 14 GB of disk and 16 GB of memory. The last line is one JSON object.
"""

from __future__ import annotations

import json
import os
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tokenizers.pre_tokenizers import ByteLevel
from transformers import BertTokenizer, CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from semdpo.models.loading import quiet
from semdpo.models.renderer import load_renderer
from semdpo.models.scorers.registry import load_scorer
from semdpo.progress import quiet_libraries

GOLDEN = Path(__file__).resolve().parents[1] / "tests" / "golden"
PROMPT = "a castle on a hill, oil painting"
WORDS = 49408  # CLIP's


def write_stable_diffusion(folder: Path) -> None:
    from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel

    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=64,
        layers_per_block=2,
        block_out_channels=(320, 640, 1280, 1280),
        down_block_types=(*("CrossAttnDownBlock2D",) * 3, "DownBlock2D"),
        up_block_types=("UpBlock2D", *("CrossAttnUpBlock2D",) * 3),
        cross_attention_dim=768,
        attention_head_dim=8,
    )
    vae = AutoencoderKL(
        block_out_channels=(128, 256, 512, 512),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        latent_channels=4,
        sample_size=512,
    )
    text = CLIPTextConfig(
        vocab_size=WORDS, hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12,
        projection_dim=768, bos_token_id=WORDS - 2, eos_token_id=WORDS - 1, pad_token_id=WORDS - 1,
    )  # fmt: skip
    scheduler = PNDMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True, steps_offset=1
    )
    StableDiffusionPipeline(
        vae=vae, text_encoder=CLIPTextModel(text), tokenizer=clip_tokenizer(), unet=unet, scheduler=scheduler,
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    ).save_pretrained(folder)  # fmt: skip


def clip_tokenizer() -> CLIPTokenizer:
    """A tokenizer of CLIP's size, whose begin and end tokens have CLIP's ids; most other tokens are unused."""
    letters = sorted(ByteLevel.alphabet())
    used = [*letters, *(letter + "</w>" for letter in letters)]
    words = [*used, *(f"<unused{i}>" for i in range(WORDS - 2 - len(used))), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={word: i for i, word in enumerate(words)}, merges=[], model_max_length=77)


def bert_tokenizer() -> BertTokenizer:
    letters = "abcdefghijklmnopqrstuvwxyz0123456789,"
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *("##" + letter for letter in letters)]
    return BertTokenizer(vocab={word: i for i, word in enumerate(words)}, model_max_length=512)


def random_state(keys: Path) -> dict[str, torch.Tensor]:
    """Random weights with upstream's names and shapes, small enough for finite scores."""
    torch.manual_seed(1)
    state = {name: torch.randn(shape) * 0.02 for name, shape in json.loads(keys.read_text()).items()}
    ones = {name for name in state if name.endswith("weight") and state[name].dim() == 1}  # of the layer norms
    return state | {name: torch.ones_like(state[name]) for name in ones}


def write_scorers(models: Path) -> None:
    for name, file, golden in (
        ("image-reward", "ImageReward.pt", "imagereward"),
        ("hpsv2.1", "HPS_v2.1_compressed.pt", "hpsv2"),
    ):
        (models / name).mkdir(parents=True)
        state = random_state(GOLDEN / golden / "full_keys.json")
        torch.save(state if golden == "imagereward" else {"state_dict": state}, models / name / file)
    bert_tokenizer().save_pretrained(models / "google-bert/bert-base-uncased")
    clip_tokenizer().save_pretrained(models / "laion/CLIP-ViT-H-14-laion2B-s32B-b79K")


def main() -> None:
    quiet_libraries()
    results: dict[str, float] = {}

    def timed(name: str, work: Callable[[], Any]) -> Any:
        begun = time.monotonic()
        with quiet():
            result = work()
        results[f"{name}_s"] = round(time.monotonic() - begun, 1)
        results[f"{name}_peak_gib"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2)
        print(f"{name}: {results[f'{name}_s']} s, peak so far {results[f'{name}_peak_gib']} GiB", flush=True)
        return result

    with tempfile.TemporaryDirectory(prefix="semdpo-smoke-") as folder:
        models = Path(folder)
        os.environ["SEMDPO_MODELS"], os.environ["HF_HUB_OFFLINE"] = folder, "1"
        timed("write_renderer", lambda: write_stable_diffusion(models / "stable-diffusion-v1-4"))
        timed("write_scorers", lambda: write_scorers(models))
        renderer = timed(
            "load_renderer", lambda: load_renderer("stable-diffusion-v1-4", steps=2, batch_size=1, scheduler="ddim")
        )
        image = timed("draw", lambda: renderer.render([PROMPT], [0]))[0]
        if image.size != (512, 512):
            raise SystemExit(f"the image has {image.size} pixels, not 512x512")
        for name in ("image-reward", "hpsv2.1"):
            scorer = timed(f"load_{name}", lambda name=name: load_scorer(name))  # type: ignore[misc]
            score = timed(f"score_{name}", lambda scorer=scorer: scorer.score([image], [PROMPT]))  # type: ignore[misc]
            print(f"{name}: {score.values[0]:.6f}")
    print(json.dumps(results))


if __name__ == "__main__":
    main()
