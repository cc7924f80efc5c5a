"""Folders of tiny random models of the real classes. Each builder writes one folder and returns it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    BertTokenizer,
    BlipConfig,
    BlipForImageTextRetrieval,
    BlipTextConfig,
    BlipVisionConfig,
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    GPT2Tokenizer,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

SIDE = 32
CLIP_LENGTH = 40
BYTES = sorted(ByteLevel.alphabet())
TEMPLATE = "{prompt} Rephrase:"


def image(seed: int, width: int = SIDE, height: int = SIDE) -> Image.Image:
    """An image of noise."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def _say(folder: Path, kind: str | None) -> Path:
    if kind is not None:
        (folder / "scorer.json").write_text(json.dumps({"kind": kind}))
    return folder


def image_processor() -> CLIPImageProcessorPil:
    return CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})


# ------------------------------------------------------------------------------------------------------- rewriters


def gpt2(folder: Path, seed: int = 0, positions: int = 128) -> Path:
    """GPT-2 with a tokenizer of bytes; padding is the end token, as in the published one."""
    tokenizer = GPT2Tokenizer(vocab={"<|endoftext|>": 0, **{byte: i + 1 for i, byte in enumerate(BYTES)}}, merges=[])
    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=positions,
        n_embd=32,
        n_layer=2,
        n_head=2,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
    )
    GPT2LMHeadModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "semdpo.json").write_text(json.dumps({"template": TEMPLATE}))
    return folder


# ------------------------------------------------------------------------------------------------------------ CLIP


def clip_tokenizer(says: int = CLIP_LENGTH) -> CLIPTokenizer:
    """One token a byte. The end token is id 3, for 2 would switch on transformers' legacy pooling.

    ``says`` is the number of tokens that it says its model reads.
    """
    words = ["<|pad|>", "<|startoftext|>", "<|unk|>", "<|endoftext|>", *BYTES, *(byte + "</w>" for byte in BYTES)]
    return CLIPTokenizer(
        vocab={word: i for i, word in enumerate(words)},
        merges=[],
        pad_token="<|pad|>",
        unk_token="<|endoftext|>",
        model_max_length=says,
    )


def _clip_text(vocabulary: int, end: int, positions: int = CLIP_LENGTH) -> dict[str, object]:
    return {
        "vocab_size": vocabulary,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": positions,
        "projection_dim": 16,
        "bos_token_id": 1,
        "eos_token_id": end,
        "pad_token_id": 0,
    }


def clip(
    folder: Path,
    kind: str | None = None,
    seed: int = 0,
    end: int | None = None,
    half: bool = False,
    positions: int = CLIP_LENGTH,
    says: int = CLIP_LENGTH,
) -> Path:
    """A CLIPModel whose end token is not the largest id, so that pooling at the wrong place shows."""
    tokenizer = clip_tokenizer(says)
    torch.manual_seed(seed)
    vision = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": SIDE,
        "patch_size": 8,
        "projection_dim": 16,
    }
    text = _clip_text(len(tokenizer), tokenizer.eos_token_id if end is None else end, positions)
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=16))
    (model.half() if half else model).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    image_processor().save_pretrained(folder)
    return _say(folder, kind)


# ------------------------------------------------------------------------------------------------------------ BLIP


def bert_tokenizer(length: int = 40) -> BertTokenizer:
    """One token a character."""
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *("##" + letter for letter in letters)]
    return BertTokenizer(vocab={word: i for i, word in enumerate(words)}, model_max_length=length)


def _blip_vision() -> BlipVisionConfig:
    return BlipVisionConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=SIDE,
        patch_size=8,
        layer_norm_eps=1e-6,
        initializer_range=0.02,
    )


def _blip_text() -> BlipTextConfig:
    return BlipTextConfig(
        vocab_size=len(bert_tokenizer()),
        hidden_size=32,
        encoder_hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        projection_dim=16,
        max_position_embeddings=40,
        bos_token_id=2,
        sep_token_id=3,
        eos_token_id=3,
        is_decoder=True,
        initializer_range=0.2,
    )


def image_reward(folder: Path, seed: int = 0) -> Path:
    """ImageReward's structure."""
    from semdpo.models.scorers.image_reward import ImageRewardModel

    torch.manual_seed(seed)
    model = ImageRewardModel(_blip_vision(), _blip_text(), (32, 24, 16, 8, 4, 1), mean=0.1, std=0.5)
    model.save_pretrained(folder)
    bert_tokenizer().save_pretrained(folder)
    image_processor().save_pretrained(folder)
    return _say(folder, "image-reward")


def blip_itm(folder: Path, seed: int = 0) -> Path:
    """BLIP's matching model."""
    torch.manual_seed(seed)
    config = BlipConfig(
        text_config=_blip_text().to_dict(), vision_config=_blip_vision().to_dict(), image_text_hidden_size=16
    )
    BlipForImageTextRetrieval(config).save_pretrained(folder)
    bert_tokenizer().save_pretrained(folder)
    image_processor().save_pretrained(folder)
    return folder


# ------------------------------------------------------------------------------------------------ Stable Diffusion


def _strict_checker() -> object:
    from diffusers.pipelines.stable_diffusion import StableDiffusionSafetyChecker

    sizes = {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2,
        "image_size": SIDE, "patch_size": 8,
    }  # fmt: skip
    checker = StableDiffusionSafetyChecker(CLIPConfig(vision_config=sizes, projection_dim=16))
    with torch.no_grad():
        checker.concept_embeds_weights.fill_(-2.0)  # thresholds that every cosine exceeds
    return checker


def stable_diffusion(folder: Path, seed: int = 0, strict_checker: bool = False) -> Path:
    """A StableDiffusionPipeline that draws 16x16 images; its scheduler is PNDM, as the published one's.

    A strict checker refuses every image.
    """
    from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel

    torch.manual_seed(seed)
    tokenizer = clip_tokenizer()
    unet = UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        layers_per_block=1,
        block_out_channels=(16, 16),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=32,
        attention_head_dim=2,
        norm_num_groups=4,
    )
    vae = AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=16,
    )
    pipeline = StableDiffusionPipeline(
        vae=vae,
        text_encoder=CLIPTextModel(CLIPTextConfig(**_clip_text(len(tokenizer), tokenizer.eos_token_id))),
        tokenizer=tokenizer,
        unet=unet,
        scheduler=PNDMScheduler(beta_schedule="scaled_linear", skip_prk_steps=True, steps_offset=1),
        safety_checker=_strict_checker() if strict_checker else None,
        feature_extractor=image_processor() if strict_checker else None,
        requires_safety_checker=strict_checker,
    )
    pipeline.save_pretrained(folder)
    return folder


# ------------------------------------------------------------------------------------------ other rewriters' classes


# Positions of which a text gets 24: those of RoBERTa's kind begin behind that of padding, MPNet's at the third.
TABLES = {"bert": 24, "roberta": 25, "xlm-roberta": 25, "mpnet": 26, "modernbert": 24}


def sentence(folder: Path, reads: int = 24, kind: str = "bert", half: bool = False) -> Path:
    """A sentence-transformers model: a small network of a kind in ``TABLES``, and the mean of its tokens.

    ``reads`` is the number of tokens that it says that it reads.
    """
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from transformers import AutoConfig, AutoModel

    tokenizer = bert_tokenizer(reads)
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        kind,
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=TABLES[kind],
        pad_token_id=0,
    )
    bert = folder.with_name(f"{folder.name}-bert")
    network = AutoModel.from_config(config)
    (network.half() if half else network).save_pretrained(bert)
    tokenizer.save_pretrained(bert)
    words = Transformer(str(bert), max_seq_length=reads)
    SentenceTransformer(modules=[words, Pooling(32)], device="cpu").save(str(folder), create_model_card=False)
    shutil.rmtree(bert)
    return folder


def causal(folder: Path, kind: str, seed: int = 0, words: tuple[str, ...] = (), **more: int) -> Path:
    """Qwen2 (Qwen1.5's class), Llama, Qwen3 or BLOOM, with a tokenizer of bytes; ``words`` are tokens of their own.

    ``more`` are other settings of the configuration.
    """
    from transformers import AutoModelForCausalLM, BloomConfig, LlamaConfig, Qwen2Config, Qwen3Config

    known = {"<|endoftext|>": 0, **{byte: i + 1 for i, byte in enumerate(BYTES)}}
    tokenizer = GPT2Tokenizer(vocab=known, merges=[])
    tokenizer.add_tokens(list(words))
    ends = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0, "vocab_size": len(tokenizer)}
    sizes = {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "max_position_embeddings": 256, "initializer_range": 0.2,
    }  # fmt: skip
    configs = {
        "qwen2": lambda: Qwen2Config(**sizes, **ends),
        "llama": lambda: LlamaConfig(**sizes, **ends),
        "qwen3": lambda: Qwen3Config(**sizes, **ends, head_dim=8),
        "bloom": lambda: BloomConfig(hidden_size=32, n_layer=2, n_head=4, initializer_range=0.2, **ends),
    }
    torch.manual_seed(seed)
    settings = configs[kind]()
    settings.update(more)
    AutoModelForCausalLM.from_config(settings).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
