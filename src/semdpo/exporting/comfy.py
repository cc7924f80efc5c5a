"""The export to ComfyUI: one file for its folder ``models/text_encoders``, from which its TextGenerate node writes.

ComfyUI recognizes a model by its weights. It knows the sizes, the tokenizer and the text around a prompt by itself, and
reads none of them from the file. So a rewriter must be Qwen3 of a size that ComfyUI knows, with Qwen3's own tokenizer.

Source:
    ComfyUI's ``comfy/sd.py`` (detection), ``comfy/text_encoders/llama.py`` (sizes; the classes that can generate),
    ``anima.py`` (0.6B: the prompt as it is) and ``flux.py`` (4B and 8B: Qwen3's chat template without reasoning).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from semdpo.errors import ModelError
from semdpo.exporting.files import MADE, renamed_at_the_end
from semdpo.exporting.source import Source, edges, refuse_overflow

READABLE = "ComfyUI generates text with Qwen3-0.6B, 4B and 8B"


@dataclass(frozen=True, slots=True)
class Size:
    """A Qwen3 that ComfyUI generates text with.

    Attributes:
        layers: The number of layers.
        inner: The width of the feed-forward layers.
        heads: The number of heads of queries; there are 8 of keys and values, each of size 128.
        tied: Whether embeddings and head are one matrix.
        template: The text that ComfyUI puts around a prompt, with ``{prompt}`` in it; None is none.
    """

    layers: int
    inner: int
    heads: int
    tied: bool
    template: str | None


_CHAT = "<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
SIZES = {  # by the width of the hidden state
    1024: Size(28, 3072, 16, True, None),
    2560: Size(36, 9728, 32, True, _CHAT),
    4096: Size(36, 12288, 32, False, _CHAT),
}
SHARED = {
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 151936,
    "rms_norm_eps": 1e-6,
    "attention_bias": False,
    "hidden_act": "silu",
}
ROTATION = ("default", 1_000_000.0)
TOKENS = {"<|endoftext|>": 151643, "<|im_start|>": 151644, "<|im_end|>": 151645, "<think>": 151667, "</think>": 151668}
STOPS = {151643, 151645}


def write(source: Source, output: Path, weights: torch.dtype) -> str:
    """Writes the file.

    Args:
        source: The rewriter.
        output: The file to write.
        weights: The type of the weights.

    Returns:
        The text to type into the node's field, with ``{prompt}`` in it.

    Raises:
        ModelError: ComfyUI cannot read the rewriter, or float16 cannot hold a weight.
        StoreError: Something else exists there, or the file cannot be written.
    """
    model, tokenizer = source.load()
    typed = _refuse_unreadable(source, model, tokenizer)
    for name, weight in model.state_dict().items():
        refuse_overflow(name, weight, weights)
    tensors = {
        # ComfyUI keeps the head inside the model
        ("model.lm_head.weight" if name == "lm_head.weight" else name): weight.to(weights).contiguous()
        for name, weight in model.state_dict().items()
        if name != "lm_head.weight" or not model.config.tie_word_embeddings
    }
    made = {"format": "pt", MADE: json.dumps({"template": typed, "max_new_tokens": source.form.max_new_tokens})}
    with renamed_at_the_end(output) as path:
        save_file(tensors, path, made)
    return typed


def _refuse_unreadable(source: Source, model: Any, tokenizer: Any) -> str:
    """Refuses what ComfyUI would compute differently; the text to type into the node's field."""
    config = model.config
    size = SIZES.get(config.hidden_size) if config.model_type == "qwen3" else None
    if size is None:
        raise ModelError(f"'{source.name}' is not of a kind that ComfyUI can write with ({READABLE}); export to ollama")
    rope = config.rope_parameters
    expected = SHARED | {
        "num_hidden_layers": size.layers,
        "intermediate_size": size.inner,
        "num_attention_heads": size.heads,
        "tie_word_embeddings": size.tied,
    }
    other = [name for name, value in expected.items() if getattr(config, name) != value]
    if (rope["rope_type"], rope["rope_theta"]) != ROTATION:
        other.append("rope_parameters")
    if other:
        names = ", ".join(other)
        raise ModelError(f"'{source.name}' differs from the Qwen3 that ComfyUI knows ({names} of its configuration)")
    words, ends = tokenizer.get_vocab(), set(model.generation_config.eos_token_id)
    if any(words.get(token) != index for token, index in TOKENS.items()) or not ends <= STOPS:
        raise ModelError(f"the tokenizer of '{source.name}' is not Qwen3's, and ComfyUI uses Qwen3's; export to ollama")
    asked = "{prompt}".join(edges(source, tokenizer)) if source.form.system is None else None
    if size.template is None:
        return _with_system(source, tokenizer) if asked is None else asked
    if asked != size.template:
        raise ModelError(
            f"'{source.name}' is not asked in Qwen3's chat template without a system text, which ComfyUI puts around "
            "every prompt for this size; export to ollama"
        )
    return "{prompt}"


def _with_system(source: Source, tokenizer: Any) -> str:
    before, between, after = edges(source, tokenizer)
    return f"{before}{source.form.system}{between}{{prompt}}{after}"
