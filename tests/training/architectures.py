"""Tiny random models of many architectures of transformers."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM

_LLAMA = {
    "vocab_size": 100, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 128, "initializer_range": 0.2, "pad_token_id": 0,
}  # fmt: skip
_GPT = {"vocab_size": 100, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128, "initializer_range": 0.2}
_NEOX = {name: value for name, value in _LLAMA.items() if name != "num_key_value_heads"}
SIZES: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("llama", "mistral", "qwen2", "phi", "stablelm", "starcoder2", "gemma"), _LLAMA),
    **{kind: _LLAMA | {"head_dim": 8} for kind in ("qwen3", "gemma2", "gemma3_text")},
    "phi3": _LLAMA,
    "llama4_text": _LLAMA | {"num_local_experts": 2, "head_dim": 8, "intermediate_size_mlp": 64},
    "gpt2": _GPT,
    "gptj": _GPT | {"rotary_dim": 4},
    "codegen": _GPT | {"rotary_dim": 4},
    "gpt_bigcode": _GPT,
    "gpt_neox": _NEOX,
    "gpt_neo": {"vocab_size": 100, "hidden_size": 32, "num_layers": 2, "num_heads": 4, "max_position_embeddings": 128,
                "attention_types": [[["global", "local"], 1]], "initializer_range": 0.2},
    "opt": {"vocab_size": 100, "hidden_size": 32, "ffn_dim": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
            "word_embed_proj_dim": 32, "max_position_embeddings": 128, "init_std": 0.2},
    "bloom": {"vocab_size": 100, "hidden_size": 32, "n_layer": 2, "n_head": 4, "initializer_range": 0.2},
    "falcon": {"vocab_size": 100, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
               "initializer_range": 0.2},
    "mpt": {"vocab_size": 100, "d_model": 32, "n_heads": 4, "n_layers": 2, "initializer_range": 0.2},
    "mamba": {"vocab_size": 100, "hidden_size": 32, "num_hidden_layers": 2, "initializer_range": 0.2},
}  # fmt: skip


def config(kind: str, **more: Any) -> Any:
    """The configuration of a tiny model.

    Args:
        kind: transformers' model type, a key of ``SIZES``.
        more: other settings.
    """
    return AutoConfig.for_model(kind, **(SIZES[kind] | more))


def model(settings: Any, seed: int = 0) -> Any:
    """A model with random weights, in evaluation mode."""
    transformers.logging.set_verbosity_error()
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(settings).eval()
