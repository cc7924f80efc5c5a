"""Folders of tiny random models of today's preference scorers, in the formats in which they are published."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import save_file
from transformers import (
    AutoModelForImageTextToText,
    CLIPConfig,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2VLConfig,
    Qwen3VLConfig,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from semdpo.models.qwen_vl import load_reader
from semdpo.models.scorers import aesthetic, hpsv3, mps, unified_reward
from tests import tiny_models
from tests.tiny_models import BYTES

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>")
SPECIAL = (*SPECIAL, "<|video_pad|>")  # Qwen-VL's control tokens
# Ordinary tokens: those with which a tiny model answers, and the long instructions, so that tests are fast.
ANSWER = ("Final Score:", " 2", " 4.5")
LONG = (hpsv3.INSTRUCTION, unified_reward.INSTRUCTION.removesuffix("{}]"))
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def laion(folder: Path, file: str = aesthetic.SECOND[0], seed: int = 0) -> Path:
    """A small CLIP with a published predictor's file beside it."""
    tiny_models.clip(folder, seed=seed)
    torch.manual_seed(seed)
    head = torch.nn.Linear(16, 1) if file in aesthetic.FIRST else aesthetic.second_head(16)
    before = "" if file in aesthetic.FIRST else "layers."
    torch.save({before + name: weight for name, weight in head.state_dict().items()}, folder / file)
    return folder


def mps_names(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights of ``MPSModel`` by the authors' names."""
    names = {"clip.": "model.", ".reads_words.": ".0.fn.", ".reads_image.": ".1.fn."}
    renamed = {}
    for name, value in state.items():
        if name.startswith("layers."):
            name = f"cross_model.{name}"
        for ours, theirs in names.items():
            name = name.replace(ours, theirs, 1)
        renamed[name] = value
    return renamed


def mps_folder(folder: Path) -> Path:
    """MPS in the published file of safetensors, with CLIP's tokenizer and image processor beside it."""
    tiny_models.clip(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "model.safetensors").unlink()
    sizes: dict[str, Any] = {"layers": 2, "heads": 2, "head_size": 8}
    torch.manual_seed(1)
    model = mps.MPSModel(CLIPConfig(**config), **sizes)
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.3) if weight.ndim > 1 else None
    state = {name: value.contiguous() for name, value in mps_names(model.state_dict()).items()}
    (folder / mps.CHECKPOINTS[0]).parent.mkdir()
    save_file(state, folder / mps.CHECKPOINTS[0])
    (folder / "config.json").write_text(json.dumps({"clip": config, **sizes}))
    return folder


# --------------------------------------------------------------------------------------------------------- Qwen-VL


def qwen_tokenizer() -> PreTrainedTokenizerFast:
    """One token a byte, Qwen-VL's control tokens and template."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    bpe = Tokenizer(models.BPE(vocab={word: i for i, word in enumerate([*SPECIAL, *BYTES])}, merges=[]))
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    bpe.add_tokens([AddedToken(word, normalized=False) for word in (*ANSWER, *LONG)])
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, eos_token="<|im_end|>", pad_token="<|endoftext|>", chat_template=TEMPLATE,
        additional_special_tokens=list(SPECIAL),
    )  # fmt: skip


def _ids(tokenizer: PreTrainedTokenizerFast) -> dict[str, int]:
    names = ("image", "video")
    ids = {f"{name}_token_id": tokenizer.convert_tokens_to_ids(f"<|{name}_pad|>") for name in names}
    ends = ("start", "end")
    return ids | {f"vision_{end}_token_id": tokenizer.convert_tokens_to_ids(f"<|vision_{end}|>") for end in ends}


def _text(words: int, sections: list[int]) -> dict[str, Any]:
    return {
        "vocab_size": words, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 4096, "bos_token_id": 0,
        "eos_token_id": 2, "pad_token_id": 0, "initializer_range": 0.3,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": sections},
    }  # fmt: skip


def _reader(folder: Path, patch: int) -> PreTrainedTokenizerFast:
    tokenizer = qwen_tokenizer()
    tokenizer.save_pretrained(folder)
    Qwen2VLImageProcessorPil(
        size={"shortest_edge": 4 * patch * patch, "longest_edge": 64 * patch * patch}, patch_size=patch
    ).save_pretrained(folder)
    return tokenizer


def hpsv3_folder(folder: Path) -> Path:
    """HPSv3 in its published file, with the names of old transformers, and Qwen2-VL's tokenizer beside it."""
    tokenizer = _reader(folder, patch=14)
    vision = {"depth": 1, "embed_dim": 32, "hidden_size": 32, "num_heads": 2, "mlp_ratio": 2, "initializer_range": 0.1}
    config = Qwen2VLConfig(text_config=_text(len(tokenizer) + 1, [1, 1, 2]), vision_config=vision, **_ids(tokenizer))
    torch.manual_seed(2)
    model = hpsv3.HPSv3Model(config, reward_token=len(tokenizer))
    state = {
        name.replace("model.visual.", "visual.").replace("model.language_model.", "model."): value.contiguous()
        for name, value in model.state_dict().items()
    }
    state["lm_head.weight"] = torch.zeros(len(tokenizer) + 1, 32)
    save_file(state, folder / hpsv3.CHECKPOINT)
    config.save_pretrained(folder)
    return folder


def unified(folder: Path, family: str = "qwen2_5_vl", answers: bool = True) -> Path:
    """A Qwen-VL that answers "Final Score: 2" or "Final Score: 4.5", as the image decides.

    The last token decides what follows it, whatever the layers read; but which of the scores follows depends on what
    they read, so that noise and a white image get different ones.

    Args:
        folder: to be made.
        family: ``qwen2_5_vl`` or ``qwen3_vl``.
        answers: whether it answers; if not, its answer has no score.
    """
    new = family == "qwen3_vl"
    tokenizer = _reader(folder, patch=16 if new else 14)
    vision: dict[str, Any] = {"depth": 2, "num_heads": 2, "out_hidden_size": 32, "hidden_size": 32}
    vision |= {"intermediate_size": 48, "initializer_range": 0.3}
    if new:
        vision |= {"deepstack_visual_indexes": [0], "num_position_embeddings": 64, "patch_size": 16}
        text = _text(len(tokenizer), [2, 1, 1]) | {"head_dim": 8}
        config: Any = Qwen3VLConfig(text_config=text, vision_config=vision, **_ids(tokenizer))
    else:
        vision |= {"patch_size": 14, "fullatt_block_indexes": [1], "window_size": 112}
        text = _text(len(tokenizer), [1, 1, 2])
        config = Qwen2_5_VLConfig(text_config=text, vision_config=vision, **_ids(tokenizer))
    torch.manual_seed(4)
    model = AutoModelForImageTextToText.from_config(config).eval()
    start, low, high = (tokenizer.convert_tokens_to_ids(word) for word in ANSWER)
    newline = tokenizer("\n", add_special_tokens=False)["input_ids"][0]
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    with torch.no_grad():
        words, outputs = model.model.language_model.embed_tokens.weight, model.lm_head.weight
        outputs.zero_()
        for place, (token, after) in enumerate(((newline, start), (start, low), (low, end), (high, end))):
            words[token] = 0.0
            words[token, place] = 100.0  # far more than the layers add
            outputs[after, place] += 50.0 if answers or after == end else 0.0
        if answers:
            one, other = (_before_score(model, folder, image, start) for image in unlike())
            apart, middle = one - other, (one + other) / 2
            turn = 4 * apart / (apart @ apart)
            turn[1] -= (turn @ middle) / middle[1]  # so that neither score is likelier in the middle
            outputs[high] = outputs[low] + turn
    model.generation_config.eos_token_id = end
    model.save_pretrained(folder)
    (folder / "scorer.json").write_text(json.dumps({"kind": "unified-reward"}))
    return folder


def unlike() -> tuple[Image.Image, Image.Image]:
    """The two images that get different scores from ``unified``."""
    return tiny_models.image(3, 64, 64), Image.new("RGB", (64, 64), "white")


def _before_score(model: Any, folder: Path, image: Image.Image, start: int) -> torch.Tensor:
    """The model's last vector behind "Final Score:"."""
    inputs = load_reader(folder, "tiny").read([image], [unified_reward.INSTRUCTION.format("a cat")])
    inputs["input_ids"] = torch.cat([inputs["input_ids"], torch.tensor([[start]])], 1)
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    inputs["mm_token_type_ids"] = torch.cat([inputs["mm_token_type_ids"], torch.tensor([[0]])], 1)
    last: torch.Tensor = model.model(**inputs).last_hidden_state[0, -1]
    return last
